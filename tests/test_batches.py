# SPDX-License-Identifier: MIT
"""Batches: images side by side on threads of their own give what they give one by one."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from bad_input import put
from command import doubtful_scores, stripes
from crfseg import CUSTOMARY, Gaussian, _memory, cli, refine
from crfseg._crew import n_side_by_side, share_out
from crfseg.io import write_picture
from photos import recorded_problem
from strategies import Array
from subprocesses import run_script


def batch(n_items: int, *, height: int = 40, width: int = 56) -> tuple[Array, Array]:
    """(N, C, H, W) probabilities and (N, H, W, 3) images, all different."""
    image, probs = recorded_problem("astronaut")
    at = [(7 * i % 60, 11 * i % 90) for i in range(n_items)]
    return (
        np.stack([probs[:, y : y + height, x : x + width] for y, x in at]),
        np.stack([image[y : y + height, x : x + width] for y, x in at]),
    )


def workers() -> list[threading.Thread]:
    """Those that are still there; other libraries have threads of their own."""
    return [thread for thread in threading.enumerate() if "(serve)" in thread.name]


def one_by_one(x: Array, images: Array | None, **options: Any) -> Array:
    each = [None] * len(x) if images is None else images
    return np.stack([refine(item, image, **options) for item, image in zip(x, each, strict=True)])


# --- which items go side by side ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_items", "threads", "expected"),
    [(1, 8, 0), (9, 1, 0), (2, 2, 2), (5, 2, 4), (8, 4, 8), (9, 4, 8), (10, 4, 8), (11, 4, 11)],
)
def test_whole_rounds_go_side_by_side(n_items: int, threads: int, expected: int) -> None:
    """And what is left too, if it keeps more than half of the threads busy."""
    assert n_side_by_side(n_items, threads) == expected


def threads_used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers each later call shares its items out to."""
    from crfseg import _items

    used = []

    def watched(n_items: int, n_workers: int, hire: Any) -> None:
        used.append(n_workers)
        share_out(n_items, n_workers, hire)

    monkeypatch.setattr(_items, "share_out", watched)
    return used


def test_threads_stay_inside_images_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    x, images = batch(8)
    expected = refine(x, images, **CUSTOMARY)
    used = threads_used(monkeypatch)
    monkeypatch.setattr(_memory, "_SMALL", 0)
    for available, workers in ((2**34, [4]), (3 * 2**20, []), (5.5 * 2**20, [3])):
        used.clear()
        monkeypatch.setattr(_memory, "available", lambda n_bytes=available: int(n_bytes))
        np.testing.assert_array_equal(refine(x, images, threads=4, **CUSTOMARY), expected)
        assert used == workers


def test_few_items_get_many_threads_each(monkeypatch: pytest.MonkeyPatch) -> None:
    x, images = batch(5)
    used = threads_used(monkeypatch)
    for n_items, threads, workers in ((1, 4, []), (2, 4, []), (3, 4, [3]), (5, 1, []), (5, 2, [2])):
        used.clear()
        refine(x[:n_items], images[:n_items], threads=threads)
        assert used == workers


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n_items", [1, 2, 3, 5, 8, 11])
def test_as_one_by_one_to_the_bit(n_items: int, threads: int) -> None:
    x, images = batch(n_items)
    expected = one_by_one(x, images, threads=1)
    np.testing.assert_array_equal(refine(x, images, threads=threads), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"returns": "labels"},
        {"accuracy": "fine"},
        {"normalization": "after", "compatibility": np.linspace(0.5, 1, 8)},
        {"tolerance": 0.01},
        {"pairwise": [Gaussian(2.0, 4.0)]},
        {"iterations": 0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_any_option_as_one_by_one(options: dict[str, Any]) -> None:
    x, images = batch(4)
    expected = one_by_one(x, images, threads=1, **options)
    np.testing.assert_array_equal(refine(x, images, threads=2, **options), expected)


@pytest.mark.parametrize(
    "kind", ["logits", "labels", "mask", "soft mask", "doubles", "channels last"]
)
def test_any_kind_as_one_by_one(kind: str) -> None:
    """Results that go through an item's worth of another form have one of it per thread."""
    probs, images = batch(4)
    x, options = {
        "logits": (np.log(probs), {"kind": "logits"}),
        "labels": (probs.argmax(axis=1), {"n_labels": 8}),
        "mask": (probs[:, 0] > 0.3, {}),
        "soft mask": (probs[:, 0], {"kind": "mask"}),
        "doubles": (probs.astype(np.float64), {}),
        "channels last": (np.ascontiguousarray(np.moveaxis(probs, 1, -1)), {}),
    }[kind]
    expected = one_by_one(x, images, threads=1, **options)
    np.testing.assert_array_equal(refine(x, images, threads=2, **options), expected)


def test_one_image_for_all_and_none() -> None:
    x, images = batch(5)
    shared = np.broadcast_to(images[0], images.shape)
    expected = one_by_one(x, shared, threads=1)
    np.testing.assert_array_equal(refine(x, images[0], threads=2), expected)
    smooth: dict[str, Any] = {"bilateral": None, "layout": "NCHW"}
    expected = np.stack([refine(one, images[0], bilateral=None, threads=1) for one in x])
    np.testing.assert_array_equal(refine(x, None, threads=2, **smooth), expected)


def test_coarse_scores_as_one_by_one() -> None:
    x, images = batch(4)
    coarse = np.log(np.ascontiguousarray(x[:, :, 4::8, 4::8]))
    options: dict[str, Any] = {"kind": "logits", "upsample": "half-pixel"}
    expected = one_by_one(coarse, images, layout="CHW", threads=1, **options)
    found = refine(coarse, images, layout="NCHW", threads=2, **options)
    np.testing.assert_array_equal(found, expected)


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_first_item_that_fails_is_named(threads: int) -> None:
    x, images = batch(8)
    spoiled = put(put(4 * x, (5, 0, 0, 0), np.nan), (3, 2, 30, 1), np.nan)
    for _ in range(5):
        with pytest.raises(ValueError, match=r"^\[refine\] x\[3\]"):
            refine(spoiled, images, kind="logits", threads=threads)
    bright = images / 255.0
    bright[2, 5, 5] = 3.0
    bright[6, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^\[refine\] image\[2\]"):
        refine(spoiled, bright, kind="logits", threads=threads)
    assert not workers()


def test_items_after_a_failure_are_not_waited_for() -> None:
    """A million iterations would take hours."""
    x, images = batch(2)
    spoiled = put(x, (0, 0, 0, 0), np.nan)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^\[refine\] x\[0\]"):
        refine(spoiled, images, kind="logits", threads=2, iterations=1_000_000, skip=False)
    assert time.monotonic() - start < 20
    assert not workers()


def test_items_before_a_failure_are_finished() -> None:
    """Item 1 fails at once, item 0 later: what is raised is what one by one would raise."""
    done = []

    def hire() -> Any:
        def work(i: int) -> None:
            time.sleep(0.05 if i == 0 else 0)
            done.append(i)
            raise ValueError(str(i))

        return work

    with pytest.raises(ValueError, match=r"^0$"):
        share_out(9, 3, hire)
    assert 0 in done
    assert len(done) <= 4


def test_who_cannot_be_hired_fails_at_the_item_it_was_to_do() -> None:
    def hire() -> Any:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        share_out(4, 2, hire)


def test_a_system_without_more_threads_does_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    x, images = batch(4)
    expected = refine(x, images, threads=1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    np.testing.assert_array_equal(refine(x, images, threads=2), expected)


INTERRUPT = """
probs, image = problem()
batch = np.stack([probs] * 6)
expected = crfseg.refine(batch, image, threads=2)
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    crfseg.refine(batch, image, threads=2, iterations=1_000_000, skip={skip})
    print("never interrupted")
except KeyboardInterrupt:
    threads = [t for t in threading.enumerate() if not isinstance(t, threading.Timer)]
    assert len(threads) == 1, threads
    assert np.array_equal(crfseg.refine(batch, image, threads=2), expected)
    print("ok")
"""


@pytest.mark.parametrize("skip", [True, False])
def test_control_c_ends_all_of_them(skip: bool) -> None:
    assert run_script(INTERRUPT.format(skip=skip)).strip() == "ok"


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Any) -> Any:
    for name in ("images", "scores"):
        (tmp_path / name).mkdir()
    for i in range(7):
        write_picture(tmp_path / "images" / f"{i}.png", stripes()[: 24 - i])
        np.save(tmp_path / "scores" / f"{i}.npy", doubtful_scores()[:, : 24 - i])
    return tmp_path


def refine_folder(folders: Any, out: str, *options: str) -> int:
    paths = [str(folders / name) for name in ("images", "scores")]
    return cli.main(["refine", *paths, "-o", str(folders / out), "--format", "npy", *options])


@pytest.mark.parametrize("threads", [2, 3, 7, 16])
def test_folders_as_one_by_one(folders: Any, threads: int, capsys: Any) -> None:
    assert refine_folder(folders, "one", "--threads", "1") == 0
    capsys.readouterr()
    assert refine_folder(folders, "many", "--threads", str(threads)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[: len("[1/7] 0.png")] for line in lines[:7]] == [
        f"[{i + 1}/7] {i}.png" for i in range(7)
    ]
    for path in sorted((folders / "one").iterdir()):
        np.testing.assert_array_equal(np.load(folders / "many" / path.name), np.load(path))


def test_folders_where_memory_is_short(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refine_folder(folders, "one", "--threads", "1") == 0
    monkeypatch.setattr(_memory, "available", lambda: 1)
    assert refine_folder(folders, "many", "--threads", "3") == 0
    for path in sorted((folders / "one").iterdir()):
        np.testing.assert_array_equal(np.load(folders / "many" / path.name), np.load(path))


def test_folders_complain_in_order_about_those_that_fail(folders: Any, capsys: Any) -> None:
    for i in (1, 4):
        np.save(folders / "scores" / f"{i}.npy", np.full((3, 24 - i, 32), np.nan, np.float32))
    assert refine_folder(folders, "out", "--threads", "3") == 1
    out, err = capsys.readouterr()
    assert [line.rpartition("/")[2].partition(":")[0] for line in err.splitlines()] == [
        "1.npy",
        "4.npy",
    ]
    assert "5 refined, 2 failed" in out
    assert len(list((folders / "out").iterdir())) == 5
    assert not workers()
