# SPDX-License-Identifier: MIT
"""``crfseg eval``: the scores of crfseg.metrics over folders; ``show``, ``presets``, completion."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import crfseg
from command import call, only_sentence
from crfseg import cli, presets
from crfseg.io import read_image, write_labels, write_mask
from crfseg.metrics import BandConfusion, Confusion
from crfseg.overlay import overlay
from crfseg.palette import voc_palette


@pytest.fixture
def maps(tmp_path, rng):
    """Folders ``true`` and ``pred`` of three maps with three classes and some void."""
    for i, name in enumerate(("a", "in/b", "c")):
        true = np.kron(rng.integers(0, 3, (5, 7)), np.ones((4, 4), int)).astype(np.uint8)
        noise = rng.random(true.shape) < 0.1 * (i + 1)
        pred = np.where(noise, (true + 1) % 3, true)
        true[:2, i:] = 255
        for folder, labels in (("true", true), ("pred", pred)):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_labels(tmp_path / folder / f"{name}.png", labels)
    return tmp_path


def read_both(maps):
    for name in ("a", "in/b", "c"):
        yield [np.array(Image.open(maps / folder / f"{name}.png")) for folder in ("pred", "true")]


def evaluate(maps, *options):
    folders = ["--labels", str(maps / "true"), "--pred", str(maps / "pred")]
    return cli.main(["eval", *folders, *map(str, options)])


def test_the_table_is_the_metrics_own(maps, capsys):
    assert evaluate(maps) == 0
    whole = Confusion(3)
    for pred, true in read_both(maps):
        whole.add(pred, true)
    assert capsys.readouterr() == (f"{whole.table()}\n", "")


def test_names_of_classes_and_bands(maps, capsys):
    (maps / "classes.txt").write_text("sky\nroad\n\ncar\nnever seen\n")
    assert evaluate(maps, "--classes", maps / "classes.txt", "--bands", "1,3") == 0
    whole, near = Confusion(4), BandConfusion(4, (1, 3), around="labels")
    for pred, true in read_both(maps):
        whole.add(pred, true)
        near.add(pred, true)
    *table, one, three = capsys.readouterr().out.splitlines()
    assert table == whole.table(["sky", "road", "car", "never seen"]).splitlines()
    assert one.startswith(f"within 1 pixel of boundaries: {near.at(1).total} pixels")
    assert three.endswith(f"mean IoU {100 * near.at(3).mean_iou():.2f}")


def test_a_list_names_what_counts(maps, capsys):
    (maps / "val.txt").write_text("a\nin/b\n")
    (maps / "pred" / "c.png").unlink()
    assert evaluate(maps, "--list", maps / "val.txt", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    (maps / "val.txt").write_text("a\nin/d\n")
    assert evaluate(maps, "--list", maps / "val.txt") == 1
    assert "in/d: no label map of that name in" in capsys.readouterr().err


@pytest.mark.parametrize("around", ["labels", "void"])
def test_json_has_the_same_numbers(maps, capsys, around):
    assert evaluate(maps, "--json", "--bands", "2", "--around", around) == 0
    found = json.loads(capsys.readouterr().out)
    whole, near = Confusion(3), BandConfusion(3, (2,), around=around)
    for pred, true in read_both(maps):
        whole.add(pred, true)
        near.add(pred, true)
    assert found["images"] == 3
    assert found["mean_iou"] == pytest.approx(whole.mean_iou())
    assert [one["iou"] for one in found["classes"].values()] == pytest.approx(whole.ious())
    assert found["bands"]["2"]["pixel_accuracy"] == pytest.approx(near.at(2).pixel_accuracy())


def test_another_void_label(maps, capsys):
    assert evaluate(maps, "--ignore", "1", "--json") == 1
    out, err = capsys.readouterr()
    assert "has label 1, which --ignore says is none; expected a class" in err
    assert out == ""


def test_masks_are_two_classes_of_which_all_pixels_count(tmp_path, capsys):
    true = np.arange(12).reshape(3, 4) > 5
    for folder, mask in (("true", true), ("pred", true | (np.arange(4) == 0))):
        (tmp_path / folder).mkdir()
        write_mask(tmp_path / folder / "a.png", mask)
    assert evaluate(tmp_path, "--masks", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pixels"] == 12
    assert found["classes"]["foreground"] == {"pixels": 6, "accuracy": 1.0, "iou": 6 / 8}


def test_what_cannot_be_compared_is_told_and_the_rest_is_counted(maps, capsys):
    (maps / "pred" / "a.png").unlink()
    write_labels(maps / "pred" / "c.png", np.zeros((3, 3), int))
    assert evaluate(maps, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1
    missing, other = err.splitlines()
    assert missing.endswith(f"true/a.png: no prediction of that name in {maps / 'pred'}")
    assert "pred/c.png against " in other
    assert "[" not in other


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--bands", "1,two"], 2, "--bands is 1,two; expected widths in pixels, as in 1,2,4,8"),
        (["--bands", "-1"], 1, "widths is -1"),
        (["--classes", "nowhere.txt"], 1, "nowhere.txt: No such file or directory"),
        (["--labels", "nowhere"], 1, "nowhere: is not a folder; expected one of label maps"),
    ],
)
def test_bad_questions_are_told_in_a_sentence(maps, capsys, options, code, words):
    assert evaluate(maps, *options) == code
    assert words in capsys.readouterr().err.splitlines()[-1]


# --- show -----------------------------------------------------------------------------------------


def test_show_lays_photograph_before_and_after_side_by_side(files, photo, photo_probs, capsys):
    assert call(files, "show", "photo.png", "scores.npy", "-o", "shown.png") == 0
    after = crfseg.refine(photo_probs, photo, returns="labels")
    before = photo_probs.argmax(0)
    changed = f"photo.png: {np.mean(before != after):.1%} of the labels changed -> "
    assert capsys.readouterr().out.startswith(changed)
    shown = read_image(files / "shown.png")
    width = photo.shape[1]
    for i, panel in enumerate((photo, overlay(photo, before), overlay(photo, after))):
        left = i * (width + 8)
        np.testing.assert_array_equal(shown[:, left : left + width], panel)
    assert shown.shape == (len(photo), 3 * width + 2 * 8, 3)


@pytest.mark.parametrize("kind", ["mask", "saliency", "labels", "grey"])
def test_show_takes_every_kind(files, photo, photo_probs, kind):
    x, *options = {
        "mask": ((photo_probs[1] > 0.4) * np.uint8(255), "--kind", "mask"),
        "saliency": (photo_probs[1], "--kind", "mask"),
        "labels": (np.where(photo_probs.max(0) > 0.6, photo_probs.argmax(0), 255),),
        "grey": (photo_probs,),
    }[kind]
    if kind == "labels":
        options = ["--ignore-index", "255"]
    if kind == "grey":
        Image.fromarray(photo.mean(-1).astype(np.uint16) * 257).save(files / "photo.png")
    np.save(files / "x.npy", x)
    assert call(files, "show", "photo.png", "x.npy", "-o", "shown.jpg", *options) == 0
    shown = read_image(files / "shown.jpg").astype(int)
    panels = [shown[:, i * 40 : i * 40 + 32] for i in range(3)]
    assert all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(panels))


def test_show_says_what_is_wrong(files, capsys):
    assert call(files, "show", "photo.png", "scores.npy", "-o", "shown.txt") == 1
    assert "shown.txt: the suffix names no kind of picture" in only_sentence(capsys)[1]
    assert call(files, "show", "photo.png", "scores.npy", "-o", "a.png", "--iterations", "-1") == 2
    assert call(files, "show", "photo.png", "scores.npy", "-o", "a.png", "--opacity", "2") == 2


# --- presets --------------------------------------------------------------------------------------


def test_presets_are_listed_and_shown(capsys, tmp_path):
    assert cli.main(["presets"]) == 0
    assert capsys.readouterr().out == f"{presets.list()!r}\n"
    assert cli.main(["presets", "irn-labels"]) == 0
    assert capsys.readouterr().out == f"{presets.get('irn-labels')}\n"
    assert cli.main(["presets", "irn"]) == 1
    assert "crfseg presets lists all" in only_sentence(capsys)[1]


def test_a_preset_goes_into_refine_and_options_go_before_it(files, photo, photo_probs):
    words = ("refine", "photo.png", "scores.npy", "-o", "out.npy", "--preset", "unet")
    assert call(files, *words, "--iterations", "2") == 0
    expected = crfseg.refine(photo_probs, photo, preset="unet", iterations=2)
    np.testing.assert_array_equal(np.load(files / "out.npy"), expected)


def test_what_a_preset_says_of_scores_is_known_where_files_are_read(files, photo, photo_probs):
    """As if it stood on the command line: a mask is written as one, and 255 is no class."""
    options = {"kind": "mask", "iterations": 2, "returns": "probs", "threads": 2}
    presets.save(files / "mask.json", presets.Preset("mask", "", "", options))
    np.save(files / "x.npy", photo_probs[1])
    assert call(files, "refine", "photo.png", "x.npy", "-o", "a.png", "--preset", "mask.json") == 0
    words = ("refine", "photo.png", "x.npy", "-o", "b.png", "--kind", "mask", "--iterations", "2")
    assert call(files, *words) == 0
    assert (files / "a.png").read_bytes() == (files / "b.png").read_bytes()

    presets.save(files / "void.json", presets.Preset("void", "", "", {"ignore_index": 255}))
    labels = photo_probs.argmax(0).astype(np.uint8)
    labels[:, 10:14] = 255
    np.save(files / "x.npy", labels)
    assert call(files, "refine", "photo.png", "x.npy", "-o", "a.png", "--preset", "void.json") == 0


# --- the shell, and installations without typer ---------------------------------------------------


def run_python(code, **environment):
    command = [sys.executable, "-I", "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("crfseg ", {"refine", "run", "eval", "show", "info", "presets"}),
     ("crfseg run --preset deeplab-v2", {"deeplab-v2"}),
     ("crfseg refine --solver euc", {"euclidean-frank-wolfe"}),
     ("crfseg run --kind lo", {"logits"})],
)  # fmt: skip
def test_the_shell_completes(words, expected):
    last = len(words.split(" ")) - 1
    done = run_python(
        "import sys; from crfseg.cli import main; sys.exit(main([]))",
        _CRFSEG_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(last),
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_typer_the_command_says_how_to_get_it(missing):
    done = run_python(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from crfseg.cli import main; sys.exit(main(['info']))"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"crfseg: error: the command needs {missing}; install it with: "
        "pip install 'dense-crfseg[cli]'\n"
    )


def test_the_palette_of_voc_is_what_show_paints_with(files, photo, photo_probs):
    call(files, "show", "photo.png", "scores.npy", "-o", "shown.png", "--opacity", "1")
    shown = read_image(files / "shown.png")[:, -photo.shape[1] :]
    colours = {tuple(row) for row in voc_palette(3)} | {(255, 255, 255)}
    assert {tuple(pixel) for pixel in shown.reshape(-1, 3)} <= colours
