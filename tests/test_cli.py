# SPDX-License-Identifier: MIT
"""The command line: the answers of ``refine``, and a sentence and exit code for each failure."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crfseg
from command import HEIGHT, LABELS, WIDTH, call, only_sentence
from crfseg import cli
from crfseg.io import read_labels, write_labels, write_mask
from crfseg.palette import voc_palette

# --- one image ------------------------------------------------------------------------------------


def test_labels_of_one_image(files, photo, photo_probs, capsys):
    assert call(files, "refine", "photo.png", "scores.npy", "-o", "out.png") == 0
    labels, palette = read_labels(files / "out.png")
    expected = crfseg.refine(photo_probs, photo, returns="labels")
    assert (expected != photo_probs.argmax(0)).any()
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(palette, voc_palette())
    out, err = capsys.readouterr()
    assert err == ""
    changed = np.mean(expected != photo_probs.argmax(0))
    line = rf"photo\.png: 32 x 24, {changed:.1%} of the labels changed in \d+ ms -> .*out\.png\n"
    assert re.fullmatch(line, out)


def test_probabilities_of_one_image(files, photo, photo_probs, capsys):
    assert call(files, "refine", "photo.png", "scores.npy", "-o", "out.npy", "--quiet") == 0
    np.testing.assert_array_equal(np.load(files / "out.npy"), crfseg.refine(photo_probs, photo))
    assert capsys.readouterr() == ("", "")


def test_pictures_with_transparency_are_read_as_their_colours(files, photo, photo_probs):
    rgba = np.dstack([photo, photo[..., 1]])
    Image.fromarray(rgba).save(files / "cut out.png")
    assert call(files, "refine", "cut out.png", "scores.npy", "-o", "out.npy") == 0
    np.testing.assert_array_equal(np.load(files / "out.npy"), crfseg.refine(photo_probs, photo))


def test_every_option_reaches_refine(files, photo, photo_probs):
    logits = np.log(photo_probs).transpose(1, 2, 0)
    np.savez(files / "scores.npz", other=np.zeros(3), logits=logits)
    options = (
        "--kind logits --layout HWC --array logits --spatial 2 1.5 --bilateral 20 7 4 "
        "--iterations 3 --tolerance 1e-6 --normalization before --accuracy fine --upsample none "
        "--threads 1"
    )
    assert call(files, "refine", "photo.png", "scores.npz", "-o", "out.npy", *options.split()) == 0
    expected = crfseg.refine(
        logits,
        photo,
        kind="logits",
        layout="HWC",
        spatial=(2, 1.5),
        bilateral=(20, 7, 4),
        iterations=3,
        tolerance=1e-6,
        normalization="before",
        accuracy="fine",
        upsample=False,
        threads=1,
        returns="probs",
    )
    np.testing.assert_array_equal(np.load(files / "out.npy"), expected)


def test_terms_can_be_left_out(files, photo, photo_probs):
    call(files, "refine", "photo.png", "scores.npy", "-o", "out.npy", "--no-bilateral")
    expected = crfseg.refine(photo_probs, photo, bilateral=None)
    np.testing.assert_array_equal(np.load(files / "out.npy"), expected)


def test_coarse_scores_are_stretched_to_the_image(files, photo, photo_probs):
    coarse = photo_probs.reshape(LABELS, HEIGHT // 8, 8, WIDTH // 8, 8).mean((2, 4))
    np.save(files / "coarse.npy", coarse[None])  # as a network saves a batch of one
    assert call(files, "refine", "photo.png", "coarse.npy", "-o", "out.npy") == 0
    np.testing.assert_array_equal(np.load(files / "out.npy"), crfseg.refine(coarse, photo))


def test_a_label_png_keeps_its_palette(files, photo, photo_probs):
    own = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    labels = photo_probs.argmax(0).astype(np.uint8)
    write_labels(files / "labels.png", labels, own)
    assert call(files, "refine", "photo.png", "labels.png", "-o", "out.png") == 0
    refined, palette = read_labels(files / "out.png")
    np.testing.assert_array_equal(palette[:3], own)
    np.testing.assert_array_equal(refined, crfseg.refine(labels, photo))


def test_unlabelled_pixels_are_asked_about_and_then_filled(files, photo, photo_probs, capsys):
    labels = photo_probs.argmax(0).astype(np.uint8)
    labels[:, 10:14] = 255
    write_labels(files / "labels.png", labels)
    arguments = ("refine", "photo.png", "labels.png", "-o", "out.png")
    assert call(files, *arguments) == 1
    assert "say whether it marks unlabelled pixels (--ignore-index 255)" in only_sentence(capsys)[1]
    assert call(files, *arguments, "--ignore-index", "255", "--confidence", "0.8") == 0
    expected = crfseg.refine(labels, photo, ignore_index=255, confidence=0.8)
    np.testing.assert_array_equal(read_labels(files / "out.png").labels, expected)


def test_the_void_of_maps_of_16_bits_is_asked_about(files, photo, photo_probs, capsys):
    labels = photo_probs.argmax(0).astype(np.uint16)
    labels[:, 10:14] = 65535
    np.save(files / "labels.npy", labels)
    arguments = ("refine", "photo.png", "labels.npy", "-o", "out.png")
    assert call(files, *arguments) == 1
    assert "(--ignore-index 65535) or is a class (--n-labels 65536)" in only_sentence(capsys)[1]
    assert call(files, *arguments, "--ignore-index", "65535") == 0
    expected = crfseg.refine(labels, photo, ignore_index=65535)
    np.testing.assert_array_equal(read_labels(files / "out.png").labels, expected)


@pytest.mark.parametrize("command", ["refine", "show"])
def test_the_mark_of_unsure_labels_is_none_of_those_before(files, photo, photo_probs, command):
    options = ("--min-confidence", "0.999", "--ignore-index", "7")
    assert call(files, command, "photo.png", "scores.npy", "-o", "out.png", *options) == 0
    if command == "refine":
        expected = crfseg.refine(
            photo_probs, photo, returns="labels", min_confidence=0.999, ignore_index=7
        )
        assert (expected == 7).any()
        np.testing.assert_array_equal(read_labels(files / "out.png").labels, expected)


def test_masks_stay_masks(files, photo):
    mask = np.arange(WIDTH) < np.full((HEIGHT, 1), WIDTH // 3 + 2)
    Image.fromarray(mask).save(files / "two-level.png")
    np.save(files / "mask.npy", mask)
    write_mask(files / "mask.png", mask)
    expected = crfseg.refine(mask, photo)
    assert (expected != mask).any()
    for name, *options in (["two-level.png"], ["mask.npy"], ["mask.png", "--kind", "mask"]):
        assert call(files, "refine", "photo.png", name, "-o", "out.png", *options) == 0
        with Image.open(files / "out.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), np.where(expected, 255, 0))


def changes(text):
    """The shares of changed labels in the lines about images."""
    return re.findall(r", (\d+\.\d%) of the labels changed", text)


@pytest.mark.parametrize("kind", ["probs", "HWC", "coarse", "labels", "mask", "foreground"])
def test_the_share_of_changed_labels_is_the_same_for_png_and_npy(
    files, photo, photo_probs, capsys, kind
):
    cells = photo_probs.reshape(LABELS, HEIGHT // 8, 8, WIDTH // 8, 8).mean((2, 4))
    foreground = photo_probs[1]
    labels = photo_probs.argmax(0).astype(np.uint8)
    x, *options = {
        "probs": (photo_probs,),
        "HWC": (photo_probs.transpose(1, 2, 0), "--layout", "HWC"),
        "coarse": (cells,),
        "labels": (labels,),
        "mask": ((labels == 1) * np.uint8(255), "--kind", "mask"),
        "foreground": (foreground, "--kind", "mask"),
    }[kind]
    np.save(files / "x.npy", x)
    for out in ("out.npy", "out.png"):
        assert call(files, "refine", "photo.png", "x.npy", "-o", out, *options) == 0
    after = read_labels(files / "out.png").labels
    before = {
        "labels": labels,
        "mask": (labels == 1) * 255,
        "foreground": (foreground > 0.5) * 255,
        "coarse": crfseg.refine(cells, photo, spatial=None, bilateral=None).argmax(0),
    }.get(kind, photo_probs.argmax(0))
    assert (after != before).any()
    assert changes(capsys.readouterr().out) == [f"{np.mean(after != before):.1%}"] * 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_saliency_pictures_are_foreground_probabilities(files, photo, photo_probs, capsys, dtype):
    highest = np.iinfo(dtype).max
    levels = (photo_probs[0] / photo_probs[0].max() * highest).astype(dtype)
    Image.fromarray(levels).save(files / "saliency.png")
    arguments = ("refine", "photo.png", "saliency.png", "-o", "out.npy")
    assert call(files, *arguments, "--kind", "mask") == 0
    expected = crfseg.refine((levels / highest).astype(np.float32), photo, kind="mask")
    np.testing.assert_array_equal(np.load(files / "out.npy"), expected)
    capsys.readouterr()
    Image.fromarray(levels // (highest // 8)).save(files / "saliency.png")  # rather labels
    assert call(files, *arguments, "--kind", "mask") == 1
    assert re.search(
        "saliency.png: has values .*; expected 0 and 1, or 0 and 255", only_sentence(capsys)[1]
    )


@pytest.mark.parametrize("kind", ["labels", "mask"])
def test_a_batch_of_one_hard_map_is_written_and_more_are_refused(files, photo, capsys, kind):
    one = np.arange(WIDTH) < np.full((1, HEIGHT, 1), WIDTH // 2)
    one = one.astype(bool if kind == "mask" else np.uint8)
    np.save(files / "one.npy", one)
    assert call(files, "refine", "photo.png", "one.npy", "-o", "out.png") == 0
    expected = crfseg.refine(one[0], photo) * (255 if kind == "mask" else 1)
    np.testing.assert_array_equal(read_labels(files / "out.png").labels, expected)
    capsys.readouterr()
    np.save(files / "two.npy", np.concatenate((one, one)))
    assert call(files, "refine", "photo.png", "two.npy", "-o", "two.png", "--kind", kind) == 1
    assert "two.npy: has shape (2, 24, 32), a batch; expected" in only_sentence(capsys)[1]
    assert not (files / "two.png").exists()


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "scores", "out", "words"),
    [
        ("none.png", "scores.npy", "out.png", "none.png: No such file"),
        ("photo.png", "none.npy", "out.png", "none.npy: No such file"),
        (
            "scores.npy",
            "photo.png",
            "out.png",
            "scores.npy: is not a picture by its name; expected",
        ),
        ("photo.png", "photo.png", "out.png", "photo.png: is a picture of mode RGB"),
        ("photo.png", "scores.npy", "out.txt", "out.txt: expected a name that ends in .png"),
        ("photo.png", "scores.npy", "no/out.png", "does not exist"),
        ("photo.png", "scores.npy", "photo.png", "photo.png: is one of the files to read"),
        ("photo.png", "scores.npy", "scores.npy", "scores.npy: is one of the files to read"),
        ("photo.png", "small.npy", "out.png", "small.npy: has shape (3, 7, 5) and image"),
        ("photo.png", "batch.npy", "out.png", "batch.npy: has shape (2, 3, 24, 32), a batch"),
    ],
)
def test_a_failure_is_one_sentence(files, capsys, image, scores, out, words):
    np.save(files / "small.npy", np.full((3, 7, 5), 1 / 3))
    np.save(files / "batch.npy", np.full((2, 3, HEIGHT, WIDTH), 1 / 3))
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert call(files, "refine", image, scores, "-o", out) == 1
    out, err = only_sentence(capsys)
    assert words in err
    assert out == ""
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_unforeseen_failures_say_so(files, capsys, monkeypatch):
    monkeypatch.setattr("crfseg.cli.commands.refine_file", lambda *_, **__: {}["key"])
    assert call(files, "refine", "photo.png", "scores.npy", "-o", "out.png") == 1
    assert "KeyError: 'key' (unforeseen; --debug shows where)" in only_sentence(capsys)[1]


def test_debug_shows_the_traceback(files, capsys):
    assert call(files, "refine", "photo.png", "none.npy", "-o", "out.png", "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("crfseg: error: ")


def test_an_interrupt_is_not_a_traceback(files, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("crfseg.cli.commands.refine_file", interrupt)
    assert call(files, "refine", "photo.png", "scores.npy", "-o", "out.png") == 130
    assert capsys.readouterr().err == "crfseg: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["refine"],
        ["refine", "a.png", "b.npy"],
        ["refine", "a.png", "b.npy", "-o", "c.png", "--spatial", "3"],
        ["refine", "a.png", "b.npy", "-o", "c.png", "--kind", "numbers"],
        ["refine", "a.png", "b.npy", "-o", "c.png", "--no-spatial", "--spatial", "3", "3"],
        ["sharpen"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    *usage, sentence = err.splitlines()
    assert all(line.startswith("Usage: crfseg") for line in usage)
    assert sentence.startswith("crfseg: error: ")
    assert out == ""


# --- the whole command ----------------------------------------------------------------------------


def run_command(*arguments, **environment):
    command = [sys.executable, "-I", "-m", "crfseg", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_info_is_what_the_library_says():
    process = run_command("info", CRFSEG_NUM_THREADS="1")
    assert process.returncode == 0
    assert process.stderr == ""
    lines = dict(line.split(": ", 1) for line in process.stdout.splitlines())
    assert lines["version"] == crfseg.__version__
    assert lines["isa"] == crfseg.info()["isa"]
    assert lines["threads"] == "1"


def test_version():
    assert run_command("--version").stdout == f"crfseg {crfseg.__version__}\n"


def test_exit_code_and_stderr_of_a_failure(files):
    process = run_command("refine", files / "photo.png", files / "no.npy", "-o", files / "out.png")
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr == f"crfseg: error: {files / 'no.npy'}: No such file or directory\n"


def test_the_bare_source_folder_says_what_hides_the_installed_package(tmp_path):
    """As in a checkout after ``pip install .``, where ``python -m crfseg`` finds the sources."""
    sources = Path(crfseg.__file__).parent
    native = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(sources, tmp_path / "crfseg", ignore=native)
    script = (
        "import sys; from importlib import machinery as m; sys.path.insert(0, sys.argv[1]);"
        "sys.meta_path[:] = [m.BuiltinImporter, m.FrozenImporter, m.PathFinder]; import crfseg"
    )
    command = [sys.executable, "-I", "-B", "-c", script, str(tmp_path)]
    for words in ("ImportError: crfseg cannot load its native", "ImportError: you are in the chec"):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 1
        assert words in process.stderr.splitlines()[-1]
        (tmp_path / "CMakeLists.txt").touch()
    sentence = process.stderr.splitlines()[-1]
    ways = ("another folder", "`crfseg` command", "editable", "`pip install .`")
    assert sorted(ways, key=sentence.index) == list(ways)
