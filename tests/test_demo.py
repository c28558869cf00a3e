# SPDX-License-Identifier: MIT
"""The demo runs as printed in the README, and its data is what its makers say."""

import re

import numpy as np
import pytest
from PIL import Image

import crfseg
from crfseg.demo import CLASSES, __main__, load, make_scores
from crfseg.demo.picture import compose
from crfseg.overlay import overlay


@pytest.fixture(scope="module")
def refined():
    """Labels before and after, made by other means than the demo's."""
    photo, scores = load()
    height, width = photo.shape[:2]
    stretched = [
        np.asarray(Image.fromarray(s).resize((width, height), Image.Resampling.BILINEAR))
        for s in scores.astype(np.float32)
    ]
    labels = crfseg.refine(scores, photo, kind="logits", returns="labels")
    return np.argmax(stretched, axis=0), labels


def test_the_shipped_scores_are_what_the_script_makes(tmp_path):
    _, scores = load()
    assert scores.shape == (len(CLASSES), 48, 64)
    assert scores.dtype == np.float16
    made = make_scores.make_scores()
    assert np.abs(made.astype(float) - scores.astype(float)).max() < 0.01  # an ulp of float16
    make_scores.main([str(tmp_path / "scores.npz")])
    with np.load(tmp_path / "scores.npz") as archive:
        np.testing.assert_array_equal(archive["scores"], made)


def test_the_scores_are_coarse_and_belong_to_the_photograph(refined):
    photo, scores = load()
    assert photo.shape == (384, 512, 3)
    before, after = refined
    assert set(np.unique(scores.argmax(0))) == set(range(len(CLASSES)))
    assert 0.03 < np.mean(before != after) < 0.25


def test_spread_keeps_what_there_is_and_reaches_two_cells():
    cells = np.zeros((1, 1, 9))
    cells[0, 0, 4] = 1
    averaged = make_scores.spread(cells, axis=2)
    np.testing.assert_allclose(averaged[0, 0] * 9, [0, 0, 1, 2, 3, 2, 1, 0, 0])
    np.testing.assert_allclose(make_scores.spread(np.ones((2, 3, 4)), axis=1), 1)


def mean_gradient_along_boundaries(photo, labels):
    """How much the photograph changes where the labels do, in grey levels."""
    grey = photo.astype(float).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1))
    return steps[labels[:, 1:] != labels[:, :-1]].mean()


def test_refinement_moves_boundaries_onto_edges_of_the_photograph(refined):
    photo, _ = load()
    before, after = refined
    old, new = (mean_gradient_along_boundaries(photo, labels) for labels in (before, after))
    assert new > 2 * old


def test_the_demo_writes_a_picture_and_says_what_changed(tmp_path, capsys, refined):
    out = tmp_path / "demo.png"
    assert __main__.main(["-o", str(out)]) == 0
    text, err = capsys.readouterr()
    assert err == ""
    assert str(out) in text
    assert re.search(r"refined 512 x 384 pixels with 8 labels in \d+ ms: 10 iterations", text)
    assert crfseg.info()["isa"] in text
    before, after = refined
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    for label, name in enumerate(CLASSES):
        old, new, change = map(int, rows[name])
        assert new == np.count_nonzero(after == label)
        assert old == pytest.approx(np.count_nonzero(before == label), abs=20)  # ties
        assert change == new - old
    with Image.open(out) as picture:
        assert picture.size[0] > 3 * 512


def test_the_picture_holds_the_three_panels(refined):
    photo, _ = load()
    before, after = refined
    sheet = np.asarray(compose(photo, before, after, CLASSES, __main__.CLOSE_UPS))
    colors = list(CLASSES.values())
    for column, panel in enumerate(
        (photo, overlay(photo, before, colors), overlay(photo, after, colors))
    ):
        left = 8 + column * (512 + 8)
        np.testing.assert_array_equal(sheet[26 : 26 + 384, left : left + 512], panel)


def test_a_failure_is_one_sentence(tmp_path, capsys):
    assert __main__.main(["-o", str(tmp_path / "none" / "demo.png")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("crfseg.demo: error: ")
    assert err.count("\n") == 1
    assert "does not exist" in err
