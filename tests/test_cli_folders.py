# SPDX-License-Identifier: MIT
"""The command line on folders: pairs by name, every failure reported, the rest refined."""

import os
import subprocess
import sys

import numpy as np
import pytest

import crfseg
from command import only_sentence
from crfseg import cli
from crfseg.cli.wording import listed
from crfseg.io import read_labels, write_labels, write_picture


@pytest.fixture
def folders(tmp_path, photo, photo_probs):
    for name in ("images", "scores"):
        (tmp_path / name).mkdir()
    for stem in ("a", "b", "c"):
        write_picture(tmp_path / "images" / f"{stem}.png", photo)
    np.save(tmp_path / "scores" / "a.npy", photo_probs)
    np.savez(tmp_path / "scores" / "b.npz", photo_probs)
    write_labels(tmp_path / "scores" / "c.png", photo_probs.argmax(0))
    return tmp_path


def call_folders(folders, *options):
    arguments = ("images", "scores", "-o", "out")
    return cli.main(
        ["refine", *(str(folders / a) if a[0] != "-" else a for a in arguments), *options]
    )


def test_folders_are_paired_by_name_with_a_line_for_each(folders, photo, photo_probs, capsys):
    assert call_folders(folders) == 0
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(
        read_labels(folders / "out" / "b.png").labels,
        crfseg.refine(photo_probs, photo, returns="labels"),
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "[1/3] a.png",
        "[2/3] b.png",
        "[3/3] c.png",
    ]
    assert lines[3:] == ["3 refined, 0 failed"]


def test_folders_to_arrays(folders, photo, photo_probs):
    (folders / "scores" / "c.png").unlink()
    (folders / "images" / "c.png").unlink()
    assert call_folders(folders, "--format", "npy") == 0
    np.testing.assert_array_equal(
        np.load(folders / "out" / "a.npy"), crfseg.refine(photo_probs, photo, returns="probs")
    )


def test_a_bad_file_does_not_stop_the_others(folders, capsys):
    (folders / "scores" / "b.npz").write_bytes(b"PK\x03\x04 cut off")
    np.save(folders / "scores" / "alone.npy", np.zeros(3))
    assert call_folders(folders) == 1
    out, err = capsys.readouterr()
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["a.png", "c.png"]
    assert len(err.splitlines()) == 2
    assert "alone.npy: no image of that name in " in err
    assert "b.npz: is damaged" in err
    assert "[2/3] b.png: failed" in out
    assert "2 refined, 2 failed" in out


def test_a_photograph_without_scores_is_a_failure(folders, photo, capsys):
    write_picture(folders / "images" / "unscored.png", photo)
    assert call_folders(folders) == 1
    out, err = capsys.readouterr()
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    assert err == (
        f"crfseg: error: {folders / 'images' / 'unscored.png'}: "
        f"no .npy, .npz or .png of that name in {folders / 'scores'}\n"
    )
    assert out.endswith("3 refined, 1 failed\n")


def test_a_missing_option_is_asked_for_once(folders, photo, photo_probs, capsys):
    for stem in "defghi":
        write_picture(folders / "images" / f"{stem}.png", photo)
        np.save(folders / "scores" / f"{stem}.npy", 9 * photo_probs - ord(stem))
    np.save(folders / "scores" / "a.npy", np.full_like(photo_probs, np.nan))
    assert call_folders(folders) == 1
    out, err = capsys.readouterr()
    nan, first, rest = err.splitlines()
    assert "a.npy: has nan at label 0" in nan
    assert "d.npy: has " in first
    assert first.count("--kind") == 1
    assert rest == "crfseg: error: 5 more like d.npy: e.npy, f.npy, g.npy, h.npy, i.npy"
    assert out.count(": failed") == 7
    assert out.endswith("2 refined, 7 failed\n")


def test_long_lists_of_names_are_cut():
    assert listed(["a"]) == "a"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_folder_called_like_a_picture_is_refused_unless_it_is_there(folders, capsys):
    arguments = ["refine", *(str(folders / a) for a in ("images", "scores"))]
    out = folders / "out.png"
    assert cli.main([*arguments, "-o", str(out)]) == 1
    assert "out.png: is called like a file but" in only_sentence(capsys)[1]
    assert not out.exists()
    out.mkdir()
    assert cli.main([*arguments, "-o", str(out)]) == 0
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda d: (d / "scores" / "a.npz").touch(), "a.npz: has the same name as"),
        (lambda d: (d / "images" / "a.jpg").touch(), "a.png: has the same name as"),
        (lambda d: (d / "out").touch(), "out: is a file; expected a folder"),
        (lambda d: [p.unlink() for p in (d / "scores").iterdir()], "holds no .npy, .npz or .png"),
        (
            lambda d: [p.unlink() for p in (d / "images").iterdir()],
            "images: holds no picture (.bmp",
        ),
        (lambda d: (d / "images").rename(d / "else"), "images: does not exist; expected a folder"),
    ],
)
def test_folders_that_make_no_sense(folders, capsys, prepare, words):
    prepare(folders)
    assert call_folders(folders) == 1
    assert words in only_sentence(capsys)[1]


def numpy_out_of_memory():
    """An error of a class of numpy's own, which is made of a shape and a dtype."""
    with pytest.raises(MemoryError) as caught:
        np.empty(2**58)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        numpy_out_of_memory(),
        UnicodeDecodeError("ascii", b"x", 0, 1, "odd byte"),
    ],
    ids=["MemoryError", "ValueError"],
)
def test_errors_with_constructors_of_their_own_stay_sentences(folders, capsys, monkeypatch, error):
    def fail(x, image, **options):
        if x.size:
            raise error

    monkeypatch.setattr("crfseg.batch.refine", fail)
    assert call_folders(folders) == 1
    written = capsys.readouterr().err
    assert f"a.npy: {error}" in written
    assert "unforeseen" not in written


def test_names_of_no_encoding_end_nothing(folders):
    """Files from old archives; the output of a command may take UTF-8 alone."""
    for path in (folders / "images" / "a.png", folders / "scores" / "a.npy"):
        path.rename(path.parent / os.fsdecode(b"\xff" + path.suffix.encode()))
    words = ["refine", folders / "images", folders / "scores", "-o", folders / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "crfseg", *map(str, words)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 0, done.stderr
    assert rb"\udcff.png: 32 x 24" in done.stdout
    assert len(list((folders / "out").iterdir())) == 3


@pytest.mark.parametrize("kind", ["images", "scores"])
@pytest.mark.parametrize("command", ["refine", "run"])
def test_results_do_not_lie_beside_what_they_are_made_of(folders, capsys, command, kind):
    images, scores = (str(folders / name) for name in ("images", "scores"))
    inputs = [images, scores] if command == "refine" else ["--images", images, "--scores", scores]
    before = {path: path.is_file() and path.read_bytes() for path in folders.rglob("*")}
    assert cli.main([command, *inputs, "--out", str(folders / "." / kind)]) == 1
    assert f"{kind}: holds the inputs; expected another folder" in only_sentence(capsys)[1]
    after = {path: path.is_file() and path.read_bytes() for path in folders.rglob("*")}
    assert after == before
