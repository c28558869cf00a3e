# SPDX-License-Identifier: MIT
"""refine(keep_thin=): where structures are thin, and that strong kernels do not erase them."""

import numpy as np
import pytest

import crfseg
from crfseg import _thin

SIZE = (40, 60)
STRONG = {"spatial": (3.0, 6.0), "bilateral": (30.0, 13.0, 10.0)}
UNHELD = {"keep_thin": 0, **STRONG}


def slow_thin(labels, side):
    """Every square, one after the other, hanging over the border by half."""
    height, width = labels.shape
    covered = np.zeros(labels.shape, bool)
    over = side // 2
    for top in range(-over, height + over - side + 1):
        for left in range(-over, width + over - side + 1):
            inside = np.s_[max(0, top) : top + side, max(0, left) : left + side]
            if np.ptp(labels[inside]) == 0:
                covered[inside] = True
    return ~covered


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 21])
def test_thin_is_what_no_square_covers(side):
    rng = np.random.default_rng(side)
    for cell in (1, 3, 8):
        labels = rng.integers(0, 3, (9, 9)).repeat(cell, 0).repeat(cell, 1)[:23, :30]
        assert (_thin.thin_structures(labels, side) == slow_thin(labels, side)).all()


def test_borders_do_not_make_a_region_thin():
    labels = np.zeros((30, 30), int)
    labels[:, :11] = 1  # half of a square of 21 is inside
    assert not _thin.thin_structures(labels, 21).any()
    labels[:, 10] = 0
    assert (_thin.thin_structures(labels, 21) == (np.arange(30) < 10)).all()


def test_the_most_probable_label_is_numpys():
    values = np.random.default_rng(0).integers(0, 4, (5, 200)).astype(np.float32)
    assert (_thin.most_probable(values) == values.argmax(0)).all()


def scene(contrast=0):
    """A wide region on the left and a pole of 4 px, of which a network is not sure."""
    labels = np.zeros(SIZE, int)
    labels[:, :25], labels[5:35, 42:46] = 1, 2
    probs = np.full((3, *SIZE), 0.25, np.float32)
    np.put_along_axis(probs, labels[None], 0.5, axis=0)
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[:, :20] += np.uint8(60)  # the region's edge is 5 px off
    image[labels == 2] += np.uint8(contrast)
    return probs, image, labels


def test_what_is_thin_is_kept_and_the_rest_refined():
    probs, image, labels = scene()
    erased = crfseg.refine(probs, image, returns="labels", **UNHELD)
    kept = crfseg.refine(probs, image, returns="labels", keep_thin=21, **STRONG)
    pole = labels == 2
    assert not (erased == 2).any()
    assert (kept[pole] == 2).mean() > 0.9
    far = np.s_[:, :30]
    np.testing.assert_array_equal(kept[far], erased[far])
    assert (kept[:, 20:25] == 0).all()
    smaller = crfseg.refine(probs, image, returns="labels", keep_thin=4, **STRONG)
    np.testing.assert_array_equal(smaller, erased)  # a square of 4 px fits into the pole


def held_by_hand(probs, side):
    is_thin = slow_thin(probs.argmax(0), side)
    energies = -np.log(probs)
    return np.where(is_thin, _thin.TRUST * (energies - energies.min(0)), energies)


def model(energies, image, iterations=10):
    terms = [
        crfseg.Gaussian(*STRONG["spatial"]),
        crfseg.Bilateral(image, *STRONG["bilateral"]),
    ]
    return crfseg.DenseCRF(energies.astype(np.float32), terms).infer(iterations).q


def test_it_is_the_model_with_a_unary_of_32_times():
    probs, image, _ = scene()
    found = crfseg.refine(probs, image, keep_thin=21, **STRONG)
    np.testing.assert_allclose(found, model(held_by_hand(probs, 21), image), atol=1e-4)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_dtypes_and_kinds_agree(layout, dtype):
    probs, image, labels = scene()
    expected = crfseg.refine(probs, image, returns="labels", keep_thin=21, **STRONG)
    x = (probs if layout == "CHW" else np.moveaxis(probs, 0, -1)).astype(dtype)
    before = x.copy()
    same = {"layout": layout, "returns": "labels", "keep_thin": 21, **STRONG}
    np.testing.assert_array_equal(crfseg.refine(x, image, kind="probs", **same), expected)
    np.testing.assert_array_equal(crfseg.refine(np.log(x), image, kind="logits", **same), expected)
    np.testing.assert_array_equal(x, before)
    hard = crfseg.refine(labels, image, confidence=0.5, keep_thin=21, **STRONG)
    assert (hard[labels == 2] == 2).mean() > 0.9


def test_masks_coarse_scores_and_batches_are_held_too():
    probs, image, labels = scene()
    p = np.where(labels == 2, 0.6, 0.4).astype(np.float32)
    for mask in (p, labels == 2):
        options = {"kind": "mask", "returns": "labels", "confidence": 0.6, **UNHELD}
        assert not crfseg.refine(mask, image, **options).any()
        held = crfseg.refine(mask, image, **{**options, "keep_thin": 21})
        assert (held[labels == 2] == 1).mean() > 0.9
    coarse = probs[:, 2::4, 2::4]
    options = {"upsample": "half-pixel", "layout": "CHW", "returns": "labels", **UNHELD}
    assert 2 in crfseg.refine(coarse, image, **{**options, "keep_thin": 21})
    assert 2 not in crfseg.refine(coarse, image, **options)
    both = crfseg.refine(np.stack([probs] * 3), [image] * 3, keep_thin=21, threads=2, **STRONG)
    one = crfseg.refine(probs, image, keep_thin=21, **STRONG)
    for item in both:
        np.testing.assert_array_equal(item, one)


def test_bad_values_are_found_where_they_are_held():
    probs, image, labels = scene()
    y, x = np.argwhere(labels == 2)[7]
    for value, sentence in ((np.nan, "nan"), (-0.5, "-0.5"), (0.9, "1.4")):
        bad = probs.copy()
        bad[2, y, x] = value
        with pytest.raises(ValueError, match=rf"\[refine\] x .*{sentence}"):
            crfseg.refine(bad, image, kind="probs", keep_thin=21, **STRONG)
    logits = np.log(probs)
    logits[1, y, x] = np.inf
    with pytest.raises(ValueError, match="inf"):
        crfseg.refine(logits, image, kind="logits", keep_thin=21, **STRONG)


def test_scores_are_held_by_default_and_hard_labels_are_not():
    probs, image, labels = scene()
    plain = crfseg.refine(probs, image)
    np.testing.assert_array_equal(plain, crfseg.refine(probs, image, keep_thin=21, **STRONG))
    np.testing.assert_array_equal(plain, crfseg.refine(probs, image, **STRONG))
    assert (plain.argmax(0)[labels == 2] == 2).mean() > 0.9
    for x in (labels, labels == 2):
        unheld = crfseg.refine(x, image, **UNHELD)
        np.testing.assert_array_equal(crfseg.refine(x, image), unheld)
    for given in ({"spatial": (3, 5)}, {"bilateral": (30, 13, 9)}, {"spatial": None}):
        unheld = crfseg.refine(probs, image, keep_thin=0, **given)
        np.testing.assert_array_equal(crfseg.refine(probs, image, **given), unheld)
    customary = crfseg.refine(probs, image, spatial=(3, 3), bilateral=(80, 13, 10))
    np.testing.assert_array_equal(crfseg.refine(probs, image, **crfseg.CUSTOMARY), customary)


def test_noise_is_not_held():
    rng = np.random.default_rng(4)
    labels = np.where(rng.random(SIZE) < 0.2, 1, 0)
    assert _thin.thin_structures(labels, 21).mean() > 0.5
    assert not _thin.held_structures(labels, 21).any()
    probs = np.where(labels == np.arange(2)[:, None, None], 0.6, 0.4).astype(np.float32)
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert (crfseg.refine(probs, flat, returns="labels") == 0).all()


def test_without_iterations_nothing_is_held():
    probs, image, _ = scene()
    for options in ({}, {"keep_thin": 21}):
        found = crfseg.refine(probs, image, iterations=0, **options)
        np.testing.assert_allclose(found, probs, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "error"), [("yes", ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_bad_sides_are_named(value, error):
    probs, image, _ = scene()
    with pytest.raises(error, match=r"\[refine\] keep_thin is"):
        crfseg.refine(probs, image, keep_thin=value)
