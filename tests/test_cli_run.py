# SPDX-License-Identifier: MIT
"""``crfseg run``: what its options do, what it prints, and what it shows on a terminal."""

import os
import pty
import subprocess
import sys

import numpy as np
import pytest

import crfseg
from command import only_sentence
from crfseg import cli
from crfseg.io import read_labels, write_labels, write_picture
from datasets import command_line, make_dataset, results, sample, summary


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path)


def call(data, *options):
    return cli.main(command_line(data, *options))


def test_a_data_set_and_its_summary_line(data, capsys):
    assert call(data) == 0
    out, err = capsys.readouterr()
    assert out.startswith("4 refined, 0 failed in ")
    assert out.endswith(f" images/s -> {data / 'out'}\n")
    assert err == ""
    image, scores = sample(3)
    labels = read_labels(data / "out" / "in" / "deep" / "d.png").labels
    np.testing.assert_array_equal(labels, crfseg.refine(scores, image, returns="labels"))
    assert call(data, "--resume") == 0
    assert capsys.readouterr().out.startswith("0 refined, 0 failed, 4 done before in ")


def test_every_option_reaches_the_run(data, tmp_path):
    image, scores = sample(0)
    for i, name in enumerate(("a", "b", "in/c", "in/deep/d")):
        path = data / "scores" / f"{name}.npy"
        np.savez(path.with_suffix(".npz"), other=np.zeros(3), logits=np.log(sample(i)[1]))
        path.unlink()
    options = (
        "--probs --kind logits --layout CHW --array logits --preset unet --bilateral 20 7 4 "
        "--iterations 3 --tolerance 1e-6 --normalization before --accuracy fine --upsample none "
        "--scale 2 --no-skip --keep-thin 5 --solver damped --workers 2 --threads 2 --exif ignore "
        "--compare contents"
    )
    assert call(data, *options.split()) == 0
    expected = crfseg.refine(
        np.log(scores),
        image,
        kind="logits",
        layout="CHW",
        preset="unet",
        bilateral=(20, 7, 4),
        iterations=3,
        tolerance=1e-6,
        normalization="before",
        accuracy="fine",
        upsample=False,
        scale=2,
        skip=False,
        keep_thin=5,
        solver="damped",
        returns="probs",
    )
    np.testing.assert_array_equal(np.load(data / "out" / "a.npy"), expected)


def test_unsure_pixels_and_palettes(data):
    assert call(data, "--labels", "--min-confidence", "0.999", "--palette", "grey") == 0
    labels, palette = read_labels(data / "out" / "a.png")
    assert (labels == 255).any()
    assert palette is None
    own = np.array([[9, 8, 7], [6, 5, 4], [3, 2, 1]], np.uint8)
    write_labels(data / "own.png", np.zeros((1, 1), int), own)
    assert call(data, "--palette", data / "own.png", "--resume") == 0
    np.testing.assert_array_equal(read_labels(data / "out" / "a.png").palette[:3], own)


def test_unsure_pixels_of_masks_are_not_foreground(data, capsys):
    image, scores = sample(0)
    for name in ("a", "b", "in/c", "in/deep/d"):
        np.save(data / "scores" / f"{name}.npy", scores[0])
    words = "--kind mask --min-confidence 0.9 --no-spatial --bilateral 3 20 0.5"
    options = words.split()
    assert call(data, *options) == 0
    given = {"kind": "mask", "min_confidence": 0.9, "returns": "labels"}
    expected = crfseg.refine(scores[0], image, spatial=None, bilateral=(3, 20, 0.5), **given)
    assert set(np.unique(expected)) == {0, 1, 255}
    np.testing.assert_array_equal(read_labels(data / "out" / "a.png").labels, expected)

    paths = [data / "images" / "a.png", data / "scores" / "a.npy"]
    for command, suffix in (("refine", "png"), ("show", "jpg")):
        capsys.readouterr()
        out = data / f"shown.{suffix}"
        assert cli.main([command, *map(str, paths), "-o", str(out), *options]) == 0
        changed = np.mean(expected != (scores[0] > 0.5))
        assert f" {changed:.1%} of the labels changed" in capsys.readouterr().out


def test_a_corrupted_image_and_a_missing_score_file_are_a_line_each(data, capsys):
    (data / "images" / "a.png").write_bytes((data / "images" / "a.png").read_bytes()[:200])
    (data / "scores" / "in" / "c.npy").unlink()
    assert call(data) == 1
    out, err = capsys.readouterr()
    missing, damaged = sorted(err.splitlines(), key=lambda line: "damaged" in line)
    assert "a.png: is damaged or too large: " in damaged
    assert missing == (
        f"crfseg: error: {data / 'images' / 'in' / 'c.png'}: no .npy, .npz or .png of that name "
        f"in {data / 'scores'}"
    )
    assert out.startswith("2 refined, 2 failed in ")
    assert set(results(data / "out")) == {"b.png", "in/deep/d.png"}
    assert summary(data / "out")["failed"].keys() == {"a", str(data / "images" / "in" / "c.png")}


def test_debug_shows_where_an_image_failed(data, capsys):
    (data / "scores" / "b.npy").write_bytes(b"nothing")
    assert call(data, "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in read_array" in err
    assert err.splitlines()[-1].startswith("crfseg: error: ")


def test_a_list_names_what_matters(data, capsys):
    (data / "scores" / "b.npy").unlink()
    (data / "val.txt").write_text("a\n\nin/c \nnowhere\n")
    assert call(data, "--list", data / "val.txt") == 1
    assert "nowhere: no image of that name in" in only_sentence(capsys)[1]
    assert set(results(data / "out")) == {"a.png", "in/c.png"}
    assert len(summary(data / "out")["failed"]) == 1
    for content, words in ((b"\n", "is empty; expected"), (b"\xff", "is no text; expected")):
        (data / "val.txt").write_bytes(content)
        assert call(data, "--list", data / "val.txt") == 1
        assert f"val.txt: {words} a name in each line" in only_sentence(capsys)[1]


def test_what_many_files_lack_is_said_once(tmp_path, capsys):
    data = make_dataset(tmp_path, [f"{i}" for i in range(9)])
    for i in range(1, 9):
        (data / "scores" / f"{i}.npy").unlink()
    np.save(data / "scores" / "0.npy", 9 * sample(0)[1])
    assert call(data) == 1
    first, wrong, others = capsys.readouterr().err.splitlines()
    assert "1.png: no .npy, .npz or .png of that name in" in first
    assert "0.npy: sums to 9" in wrong
    assert "--kind logits" in wrong
    assert others.startswith(f"crfseg: error: 7 more like {data / 'images' / '1.png'}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--iterations", "-1"], "--iterations is -1; expected"),
        (["--kind", "probs", "--ignore-index", "9"], "--ignore-index is 9 but SCORES hold probs"),
        (["--preset", "deplab-v2"], "the nearest name is 'deeplab-v2' (crfseg presets lists all"),
        (["--probs", "--min-confidence", "0.9"], "--min-confidence is 0.9; expected label PNGs"),
        (["--workers", "0"], "'--workers': "),
    ],
)
def test_options_without_sense_are_exit_code_2(data, capsys, options, words):
    assert call(data, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
    assert not (data / "out").exists()


def test_folders_that_make_no_sense(data, capsys):
    (data / "file").touch()
    for name, words in (
        ("--images", "file: is a file; expected a folder"),
        ("--scores", "file: is a file; expected a folder"),
        ("--out", "file: is a file; expected a folder"),
    ):
        arguments = command_line(data)
        arguments[arguments.index(name) + 1] = str(data / "file")
        assert cli.main(arguments) == 1
        assert words in only_sentence(capsys)[1]


def test_results_and_scores_inside_the_images_folder_are_not_taken_for_images(tmp_path):
    make_dataset(tmp_path / "images", ["a"])  # images/images/a.png, images/scores/a.npy
    folder = tmp_path / "images"
    write_labels(folder / "scores" / "labels.png", np.zeros((24, 32), int))
    write_picture(folder / "labels.png", sample(1)[0])
    (folder / "scores" / "images").mkdir()
    (folder / "scores" / "a.npy").rename(folder / "scores" / "images" / "a.npy")
    (folder / "circle").symlink_to(folder)
    words = ["run", "--images", folder, "--scores", folder / "scores", "--out", folder / "out"]
    for refined in (2, 2):
        assert cli.main([*map(str, words), "--no-bilateral"]) == 0
        assert summary(folder / "out")["refined"] == refined


def on_a_terminal(words):
    """What a process writes to the terminal that its stderr is."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "crfseg", *words],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "250"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() in (0, 1)
    return shown.decode()


def test_a_terminal_sees_a_bar_with_rate_and_time_left(tmp_path):
    data = make_dataset(tmp_path, [f"{i:02}" for i in range(30)])
    (data / "scores" / "07.npy").write_bytes(b"nothing")
    shown = on_a_terminal(command_line(data, "--iterations", "300", "--no-skip"))
    assert "30/30" in shown
    assert " images/s, 0:0" in shown
    assert " left" in shown
    assert "07.npy: starts with b'nothin'; expected a .npy or .npz file" in shown
    assert on_a_terminal(command_line(data, "--quiet")).count("\n") == 1  # the failure
