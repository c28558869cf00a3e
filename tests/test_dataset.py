# SPDX-License-Identifier: MIT
"""refine_dataset(): what refine returns in files, bounded memory, failures told and left out."""

import threading
import time
import weakref

import numpy as np
import pytest

import crfseg
from crfseg import cache, refine, refine_dataset
from crfseg._crew import stream
from crfseg._room import Room
from crfseg.io import read_labels, write_labels
from datasets import make_dataset, noted, results, sample, summary


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path)


def run(data, **options):
    return refine_dataset(data / "images", data / "scores", out=data / "out", **options)


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_folders_come_out_as_refine_returns_them(data, workers):
    found = run(data, workers=workers, threads=2)
    assert (found.refined, found.unchanged, dict(found.failed)) == (4, 0, {})
    assert set(results(data / "out")) == {"a.png", "b.png", "in/c.png", "in/deep/d.png"}
    for i, name in enumerate(("a", "b", "in/c", "in/deep/d")):
        image, scores = sample(i)
        labels, palette = read_labels(data / "out" / f"{name}.png")
        np.testing.assert_array_equal(labels, refine(scores, image, returns="labels"))
        np.testing.assert_array_equal(palette, crfseg.palette.voc_palette())


def test_iterables_of_arrays_and_paths_come_out_the_same(data):
    run(data)
    triples = [
        ("a", *sample(0)),
        ("b", data / "images" / "b.png", sample(1)[1]),
        ("in/c", sample(2)[0], str(data / "scores" / "in" / "c.npy")),
    ]
    for given, out in ((triples, "list"), (iter(triples), "generator")):
        assert refine_dataset(given, out=data / out).refined == 3
        for name in ("a", "b", "in/c"):
            expected = (data / "out" / f"{name}.png").read_bytes()
            assert (data / out / f"{name}.png").read_bytes() == expected


def test_probabilities_and_options_of_refine(data):
    run(data, returns="probs", preset="deeplab-v2", iterations=3)
    image, scores = sample(1)
    expected = refine(scores, image, preset="deeplab-v2", iterations=3)
    np.testing.assert_array_equal(np.load(data / "out" / "b.npy"), expected)


def test_names_may_come_once(data):
    assert run(data, names=(name for name in ("a", "in/c"))).refined == 2
    assert set(results(data / "out")) == {"a.png", "in/c.png"}


def test_a_preset_cannot_say_what_is_returned(data):
    preset = crfseg.presets.Preset("own", "", "", {"returns": "probs", "iterations": 3})
    assert run(data, preset=preset).refined == 4
    image, scores = sample(0)
    expected = refine(scores, image, iterations=3, returns="labels")
    np.testing.assert_array_equal(read_labels(data / "out" / "a.png").labels, expected)


def test_unsure_pixels_get_the_mark(data):
    run(data, min_confidence=0.999)
    expected = refine(*sample(0)[::-1], returns="labels", min_confidence=0.999)
    assert (expected == 255).any()
    np.testing.assert_array_equal(read_labels(data / "out" / "a.png").labels, expected)


def test_palettes(data):
    own = np.array([[9, 8, 7], [6, 5, 4], [3, 2, 1]], np.uint8)
    text = data / "colours.txt"
    text.write_text("9 8 7 sky\n6,5,4\n\n3 2 1\n")
    write_labels(data / "own.png", np.zeros((1, 1), int), own)
    for palette in (own, text, data / "own.png"):
        run(data, palette=palette)
        np.testing.assert_array_equal(read_labels(data / "out" / "a.png").palette[:3], own)
    run(data, palette="grey")
    assert read_labels(data / "out" / "a.png").palette is None
    text.write_text("9 8 red\n")
    with pytest.raises(ValueError, match=r'colours\.txt: is no list of colours; expected lines "R'):
        run(data, palette=text)


def test_a_palette_png_of_labels_keeps_its_colours_unless_told_otherwise(data):
    own = np.array([[9, 8, 7], [6, 5, 4], [3, 2, 1]], np.uint8)
    (data / "scores" / "a.npy").unlink()
    write_labels(data / "scores" / "a.png", sample(0)[1].argmax(0), own)
    for palette, expected in ((None, own), ("voc", crfseg.palette.voc_palette(3))):
        run(data, palette=palette)
        np.testing.assert_array_equal(read_labels(data / "out" / "a.png").palette[:3], expected)


def test_a_summary_lies_beside_the_results(data):
    (data / "scores" / "b.npy").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"\[refine_dataset\] 1 failed, the first: .*b\.npy: sta"):
        found = run(data, iterations=2)
    written = summary(data / "out")
    assert written["refined"] == found.refined == 3
    assert list(written["failed"]) == list(found.failed) == ["b"]
    assert written["parameters"]["iterations"] == 2
    assert str(found).startswith("3 refined, 1 failed in ")


# --- failures -------------------------------------------------------------------------------------


def test_each_failure_is_told_and_the_rest_is_refined(data):
    (data / "images" / "a.png").write_bytes(b"\x89PNG cut off")
    (data / "scores" / "b.npy").unlink()
    np.save(data / "scores" / "in" / "c.npy", 9 * sample(2)[1])
    reports = []
    found = run(data, tell=reports.append)
    assert found.refined == 1
    assert set(results(data / "out")) == {"in/deep/d.png"}
    told = {report.name: str(report.error) for report in reports if report.error is not None}
    assert told.keys() == {"a", "in/c", str(data / "images" / "b.png")}
    assert "a.png: is not a picture Pillow can read" in told["a"]
    assert "c.npy: x sums to 9" in told["in/c"]
    assert "b.png: no .npy, .npz or .png of that name in" in told[str(data / "images" / "b.png")]
    assert {report.n_items for report in reports} == {4}


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        (("../a", *sample(0)), "is no name below the folder"),
        (("", *sample(0)), "is no name below the folder"),
        (("ok", *sample(0)), "ok: is the name of two images"),
        (("./ok", *sample(0)), "ok: is the name of two images"),
        (("short", 1), "expected (name, image, scores)"),
        ((3, *sample(0)), "expected (name, image, scores)"),
        ("text", "expected (name, image, scores)"),
        (("nan", sample(0)[0], sample(0)[1] * np.nan), "nan: x has nan"),
    ],
)
def test_bad_triples_are_failures_of_their_own(tmp_path, triple, words):
    reports = []
    found = refine_dataset(
        [("ok", *sample(0)), triple], out=tmp_path / "out", workers=1, tell=reports.append
    )
    assert found.refined == 1
    assert [words in str(report.error) for report in reports if report.error] == [True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"returns": "mask"}, r"\[refine_dataset\] returns is 'mask'"),
        ({"compare": "size"}, r"\[refine_dataset\] compare is 'size'"),
        ({"resume": 1}, r"\[refine_dataset\] resume is 1"),
        ({"workers": 0}, r"\[refine_dataset\] workers is 0"),
        ({"exif": "turn"}, r"\[refine_dataset\] exif is 'turn'"),
        ({"iterations": -1}, r"iterations is -1"),
        ({"returns": "probs", "min_confidence": 0.9}, r"min_confidence is 0.9"),
        ({"preset": "none"}, r"preset is 'none'"),
        ({"palette": "nowhere.png"}, r"nowhere\.png"),
        ({"colour": 3}, r"colour"),
        ({"names": "ab"}, r"\[refine_dataset\] names is 'ab'; expected strings in a list"),
        ({"names": [1]}, r"\[refine_dataset\] names is \[1\]; expected strings"),
    ],
)
def test_arguments_without_sense_are_refused_before_anything_is_written(data, options, words):
    with pytest.raises((ValueError, TypeError, OSError), match=words):
        run(data, **options)
    assert not (data / "out").exists()


def test_what_is_no_folder_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"\[refine_dataset\] images is None and scores None; exp"):
        refine_dataset(None, out=tmp_path / "out")
    with pytest.raises(TypeError, match=r"\[refine_dataset\] out is 3; expected a folder"):
        refine_dataset([], out=3)


def test_one_folder_alone_is_not_enough(data):
    with pytest.raises(TypeError, match=r"images is .* and scores None; expected two folders, or"):
        refine_dataset(data / "images", out=data / "out")


def test_what_an_iterable_raises_is_raised(tmp_path):
    def triples():
        yield ("a", *sample(0))
        raise RuntimeError("the network broke")

    with pytest.raises(RuntimeError, match="the network broke"):
        refine_dataset(triples(), out=tmp_path / "out")
    assert set(noted(tmp_path / "out")) <= {"a.png"}


# --- memory and threads ---------------------------------------------------------------------------


class Alive:
    """Counts the arrays that are there at a time."""

    def __init__(self):
        self._lock = threading.RLock()
        self.now = self.most = 0

    def watch(self, array):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        weakref.finalize(array, self._gone)
        return array

    def _gone(self):
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_arrays_of_a_generator_are_bounded_whatever_their_number(tmp_path, workers):
    alive = Alive()

    def triples():
        for i in range(40):
            image, scores = sample(i)
            if i % 5 == 4:  # failures must not hold on to arrays either
                scores = scores * np.nan
            yield f"{i}", image, alive.watch(scores.copy())
            del image, scores

    found = refine_dataset(
        triples(), out=tmp_path / "out", workers=workers, threads=workers, tell=lambda _: None
    )
    assert (found.refined, len(found.failed)) == (32, 8)
    assert 1 <= alive.most <= workers + 3  # those at work, two ahead, one in the generator's hand
    assert alive.now == 0


def test_files_in_memory_are_bounded_whatever_their_number(tmp_path, monkeypatch):
    from crfseg import batch

    alive = Alive()
    read = batch.read_array
    monkeypatch.setattr(batch, "read_array", lambda *a, **k: alive.watch(read(*a, **k)))
    data = make_dataset(tmp_path, [f"{i:02}" for i in range(30)])
    assert run(data, workers=2, threads=2).refined == 30
    assert 1 <= alive.most <= 4
    assert alive.now == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_images_are_refined_at_a_time_than_workers(tmp_path, monkeypatch, workers):
    from crfseg import batch

    alive, calls = Alive(), []

    class Token:
        pass

    def refine_slowly(*arguments, **options):
        token = alive.watch(Token())
        calls.append(options.get("threads"))
        time.sleep(0.005)
        del token
        return refine(*arguments, **options)

    data = make_dataset(tmp_path, [f"{i:02}" for i in range(20)])
    monkeypatch.setattr(batch, "refine", refine_slowly)
    run(data, workers=workers, threads=6)
    assert alive.most == workers
    assert calls[1:10] == [6 // workers] * 9  # the first call only checks the arguments


def test_items_are_taken_on_the_thread_of_the_call(tmp_path):
    threads = set()

    def triples():
        for i in range(5):
            threads.add(threading.current_thread())
            yield (f"{i}", *sample(i))

    refine_dataset(triples(), out=tmp_path / "out", workers=3)
    assert threads == {threading.current_thread()}


def test_a_stream_ends_at_the_first_failure():
    done = []

    def work(i):
        done.append(i)
        time.sleep(0.01)
        if i == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        stream(range(1000), 2, work)
    assert set(range(4)) <= set(done)
    assert len(done) < 10


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_on_a_thread_ends_the_run(tmp_path, error):
    """It would end its thread alone, and the run would wait for that for ever."""

    def leave(report):
        raise error

    def refine_all():
        triples = ((str(i), *sample(0)) for i in range(50))
        with pytest.raises(type(error)):
            refine_dataset(triples, out=tmp_path / "out", tell=leave, workers=1)
        ended.append(True)

    ended = []
    thread = threading.Thread(target=refine_all, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert ended


def test_room_for_one_image_more_is_waited_for(monkeypatch):
    monkeypatch.setattr(crfseg._memory, "available", lambda: 200)  # of which half may be held
    room = Room(threads=4, workers=4)
    order = []

    def small():
        with room.refine(60) as threads:
            order.append(threads)

    with room.refine(60) as threads:
        other = threading.Thread(target=small)
        other.start()
        time.sleep(0.05)
        assert order == []
        order.append(threads)
    other.join()
    assert order == [1, 1]
    with room.refine(1000) as threads:  # nothing fits beside it
        assert threads == 4


@pytest.mark.parametrize(
    ("n_items", "workers", "threads"), [(1, 4, 4), (2, 4, 2), (9, 4, 1), (9, 2, 2), (None, 2, 2)]
)
def test_few_images_get_several_threads_each(n_items, workers, threads):
    with Room(4, workers, n_items).refine(1) as found:
        assert found == threads


def test_memory_is_kept_for_the_run_alone(data, monkeypatch):
    monkeypatch.setattr(cache, "_is_chosen", False)
    monkeypatch.delenv("CRFSEG_CACHE", raising=False)
    limits = []
    run(data, tell=lambda _: limits.append(crfseg.info()["cache_limit"]))
    assert set(limits) == {256 << 20}
    assert crfseg.info()["cache_limit"] == 0
    crfseg.set_cache_limit(1 << 20)
    limits.clear()
    try:
        run(data, tell=lambda _: limits.append(crfseg.info()["cache_limit"]))
        assert set(limits) == {1 << 20}
    finally:
        crfseg.set_cache_limit(0)
