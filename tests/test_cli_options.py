# SPDX-License-Identifier: MIT
"""Options of the command line: checked before any file is read, and named as one types them."""

import re

import numpy as np
import pytest

from command import LABELS, call, only_sentence
from crfseg import cli, refine


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--spatial 0 3", "--spatial SIGMA_XY is 0; expected a positive finite number"),
        ("--bilateral 80 0 10", "--bilateral SIGMA_RGB is 0; expected a positive finite number"),
        ("--bilateral 80 13 nan", "--bilateral WEIGHT is nan; expected a finite number of at"),
        ("--iterations -1", "--iterations is -1; expected an integer of at least 0"),
        ("--keep-thin -1", "--keep-thin is -1; expected an integer of at least 0"),
        ("--tolerance -1", "--tolerance is -1; expected a finite number of at least 0"),
        ("--threads 0", "--threads is 0; expected an integer of at least 1 and at most 1024"),
        ("--confidence 1", "--confidence is 1; expected a number above 0 and below 1"),
        ("--n-labels 0", "--n-labels is 0; expected an integer of at least 1"),
        (
            "--kind probs --ignore-index 255",
            "--ignore-index is 255 but SCORES hold probs; expected --ignore-index with labels",
        ),
        ("--kind logits --layout HW", "--layout HW does not go with logits"),
        ("--n-labels 9 --layout CHW", "--layout CHW does not go with labels"),
    ],
)
def test_an_impossible_option_is_said_once_before_any_file_is_read(
    tmp_path, capsys, options, sentence
):
    for arguments in ("no.png no.npy -o out.png", f"{tmp_path} {tmp_path} -o {tmp_path / 'out'}"):
        assert cli.main(["refine", *arguments.split(), *options.split()]) == 2
        assert only_sentence(capsys)[1].startswith(f"crfseg: error: {sentence}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        "--n-labels 300 --ignore-index -1",
        "--kind labels --layout HW",
        "--kind mask --layout HW --confidence 0.9",
        "--kind logits --layout HWC --upsample align-corners",
        "--kind auto --no-spatial --no-bilateral --iterations 0",
        "--solver euclidean-frank-wolfe",
    ],
)
def test_possible_options_get_as_far_as_the_files(tmp_path, capsys, options):
    arguments = ("refine", str(tmp_path / "no.png"), "no.npy", "-o", "out.png")
    assert cli.main([*arguments, *options.split()]) == 1
    assert "no.png: No such file" in only_sentence(capsys)[1]


def one_hot(labels):
    return (labels == np.arange(LABELS)[:, None, None]).astype(np.uint8)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda p: 9 * p, "", "or --kind logits for scores before softmax, mask for foregr"),
        (np.log, "", "expected probabilities: pass --kind logits"),
        (lambda p: 9 * p, "--kind probs", "(scores before softmax need --kind logits)"),
        (lambda p: p, "--kind labels", "has dtype float32; expected integers for --kind labels"),
        (lambda p: p[1], "", "a foreground probability (H, W) needs --kind mask"),
        (lambda p: p.argmax(0) // 2 * 255, "", "expected --kind mask for a foreground mask, or"),
        (lambda p: one_hot(p.argmax(0)), "", "expected their argmax over the first axis, or --kin"),
        (lambda p: p.argmax(0), "--n-labels 2", "expected 0 to 1, or --ignore-index 2 if it marks"),
        (lambda p: p, "--n-labels 3", "npy: --n-labels is 3 but SCORES hold probs; expected --n-l"),
        (lambda p: p[:, ::5, ::7], "", "or scores of the image's size"),
        (lambda p: p[:, :6, :8], "--upsample none", "x.npy: has shape (3, 6, 8) but image is 24"),
        (lambda p: p, "--bilateral 80 1e-6 10", "--bilateral SIGMA_RGB = 1e-06 is too small"),
    ],
)
def test_what_refine_says_is_put_in_options(files, photo_probs, capsys, make, options, words):
    np.save(files / "x.npy", make(photo_probs))
    assert call(files, "refine", "photo.png", "x.npy", "-o", "out.png", *options.split()) == 1
    sentence = only_sentence(capsys)[1]
    assert words in sentence
    assert "[refine]" not in sentence
    assert not re.search(r"(kind|layout|upsample|n_labels|ignore_index)=|\bx (has|holds)", sentence)


def test_an_archive_of_several_arrays_needs_array(files, photo_probs, capsys):
    np.savez(files / "two.npz", a=photo_probs, b=photo_probs)
    arguments = ("refine", "photo.png", "two.npz", "-o", "out.png")
    assert call(files, *arguments) == 1
    assert "two.npz: holds a, b; expected one array, or name= (--array)" in only_sentence(capsys)[1]
    assert call(files, *arguments, "--array", "b") == 0


def test_no_skip_is_full_evaluation(files, photo, photo_probs):
    assert call(files, "refine", "photo.png", "scores.npy", "-o", "out.npy", "--no-skip") == 0
    np.testing.assert_array_equal(
        np.load(files / "out.npy"), refine(photo_probs, photo, skip=False, returns="probs")
    )
