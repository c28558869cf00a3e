# SPDX-License-Identifier: MIT
"""Metrics against counting by hand, slow definitions and scikit-learn."""

import math

import numpy as np
import pytest

from crfseg.metrics import (
    ABSENT,
    BandConfusion,
    BoundaryIoU,
    Calibration,
    Confusion,
    boundary_iou,
    distance_to,
    label_boundaries,
    mean_boundary_accuracy,
)

VOID = 255


def label_map(rng, height=23, width=31, n_labels=4, cell=5):
    """Blocks of labels with a void seam here and there."""
    cells = rng.integers(0, n_labels, (height // cell + 1, width // cell + 1))
    labels = cells.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8)
    labels[rng.integers(0, height)] = VOID
    return labels


def noisy(rng, target, n_labels=4, share=0.2):
    wrong = rng.random(target.shape) < share
    guess = rng.integers(0, n_labels, target.shape).astype(np.uint8)
    return np.where(wrong | (target == VOID), guess, target)


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    target = label_map(rng)
    return noisy(rng, target), target


# --- the confusion matrix -------------------------------------------------------------------------


def test_scores_of_a_matrix_counted_by_hand():
    target = np.array([[0, 0, 0, 1], [1, 2, 2, VOID]])
    prediction = np.array([[0, 0, 1, 1], [1, 2, 0, 2]])
    found = Confusion(3).add(prediction, target)
    assert found.counts.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert found.total == 7
    assert found.pixel_accuracy() == 5 / 7
    assert found.accuracies() == pytest.approx([2 / 3, 1, 1 / 2])
    assert found.ious() == pytest.approx([2 / 4, 2 / 3, 1 / 2])
    assert found.mean_accuracy() == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert found.mean_iou() == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    expected = (3 * 2 / 4 + 2 * 2 / 3 + 2 * 1 / 2) / 7
    assert found.frequency_weighted_iou() == pytest.approx(expected)


def test_absent_classes_are_treated_as_said():
    # Class 0 occurs, 1 was predicted but is not there, 2 is neither.
    found = Confusion(3).add([0, 0, 0, 1], [0, 0, 0, 0])
    iou = 3 / 4
    means = {absent: found.mean_iou(absent) for absent in ABSENT}
    assert means == {
        "fcn": pytest.approx(iou / 2),
        "skip": pytest.approx(iou),
        "zero": pytest.approx(iou / 3),
        "nan": pytest.approx(math.nan, nan_ok=True),
    }
    accuracies = {absent: found.mean_accuracy(absent) for absent in ABSENT}
    assert accuracies == {
        "fcn": pytest.approx(0.75),
        "skip": pytest.approx(0.75),
        "zero": pytest.approx(0.25),
        "nan": pytest.approx(math.nan, nan_ok=True),
    }
    assert found.frequency_weighted_iou() == pytest.approx(iou)
    assert found.mean_iou() == found.mean_iou("fcn")


def test_nothing_counted_is_nan_and_not_a_warning():
    empty = Confusion(2).add([VOID, 1], [VOID, VOID])
    assert empty.total == 0
    for score in (empty.pixel_accuracy(), empty.mean_iou(), empty.frequency_weighted_iou()):
        assert math.isnan(score)
    assert "-" in empty.table()


def test_agrees_with_scikit_learn(pair):
    metrics = pytest.importorskip("sklearn.metrics")
    prediction, target = pair
    found = Confusion(5).add(prediction, target)
    p, t = prediction[target != VOID], target[target != VOID]
    assert (found.counts == metrics.confusion_matrix(t, p, labels=range(5))).all()
    assert found.pixel_accuracy() == pytest.approx(metrics.accuracy_score(t, p))
    assert found.mean_accuracy() == pytest.approx(metrics.balanced_accuracy_score(t, p))
    every = {"labels": range(5), "zero_division": 0}
    by_class = metrics.jaccard_score(t, p, average=None, **every)
    assert np.nan_to_num(found.ious()) == pytest.approx(by_class)
    macro = metrics.jaccard_score(t, p, average="macro", **every)
    assert found.mean_iou("zero") == pytest.approx(macro)
    weighted = metrics.jaccard_score(t, p, average="weighted", **every)
    assert found.frequency_weighted_iou() == pytest.approx(weighted)
    present = metrics.jaccard_score(t, p, average="macro", labels=np.unique(t))
    assert found.mean_iou("skip") == pytest.approx(present)


def test_streams_and_merges_to_the_counts_of_everything_at_once(pair):
    prediction, target = pair
    whole = Confusion(4).add(prediction, target)
    streamed, rest = Confusion(4), Confusion(4)
    streamed.add(prediction[:10], target[:10])
    rest.add(prediction[10:].astype(np.int64), target[10:].astype(np.int16))
    assert (streamed.merge(rest).counts == whole.counts).all()
    assert (Confusion.of(whole.counts).counts == whole.counts).all()
    # Not the mean of the images' scores.
    halves = [Confusion(4).add(prediction[s], target[s]).mean_iou() for s in (np.s_[:3], np.s_[3:])]
    assert np.mean(halves) != pytest.approx(whole.mean_iou(), abs=1e-4)


def test_a_mask_chooses_pixels_and_ignored_ones_may_be_predicted_as_anything(pair):
    prediction, target = pair
    mask = np.random.default_rng(0).random(target.shape) < 0.5
    found = Confusion(4).add(np.where(target == VOID, 77, prediction), target, mask)
    chosen = mask & (target != VOID)
    assert (found.counts == Confusion(4).add(prediction[chosen], target[chosen]).counts).all()
    assert Confusion(256, ignore_index=None).add(prediction, target).total == target.size


def test_tables_name_classes_and_sums():
    table = Confusion(2).add([0, 1, 1, 1], [0, 0, 1, 1]).table(["sky", "road"])
    head, sky, road, every, last = table.splitlines()
    assert head.split() == ["class", "pixels", "accuracy", "IoU"]
    assert sky.split() == ["sky", "50.00", "50.00", "50.00"]
    assert road.split() == ["road", "50.00", "100.00", "66.67"]
    assert every.split() == ["all", "100.00", "75.00", "58.33"]
    assert last == "4 pixels, pixel accuracy 75.00, frequency-weighted IoU 58.33"
    assert str(Confusion(2)).splitlines()[1].split() == ["0", "-", "-", "-"]


# --- distances and bands --------------------------------------------------------------------------


def slow_distance(seeds, limit):
    y, x = np.mgrid[: seeds.shape[0], : seeds.shape[1]]
    found = np.full(seeds.shape, limit + 1)
    for sy, sx in np.argwhere(seeds):
        found = np.minimum(found, np.maximum(abs(y - sy), abs(x - sx)))
    return found


@pytest.mark.parametrize("limit", [0, 1, 3, 40, 253, 254, 300])
@pytest.mark.parametrize("shape", [(17, 29), (1, 300), (300, 1), (1, 1)])
def test_distances_are_those_of_the_chessboard(shape, limit):
    rng = np.random.default_rng(1)
    for share in (0.0, 0.01, 0.2, 1.0):
        seeds = rng.random(shape) < share
        assert (distance_to(seeds, limit) == slow_distance(seeds, limit)).all()


def test_distances_agree_with_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    seeds = np.random.default_rng(2).random((60, 80)) < 0.003
    expected = ndimage.distance_transform_cdt(~seeds, "chessboard")
    assert (distance_to(seeds, 79) == expected).all()
    eroded = ndimage.binary_erosion(~seeds, np.ones((3, 3)), iterations=4, border_value=1)
    assert ((distance_to(seeds, 4) > 4) == eroded).all()


def test_boundaries_are_where_labels_meet_and_not_at_void(pair):
    target = pair[1]
    padded = np.pad(target, 1, constant_values=VOID)
    for y, x in np.ndindex(target.shape):
        around = padded[y : y + 3, x : x + 3]
        others = (around != target[y, x]) & (around != VOID)
        expected = target[y, x] != VOID and others.any()
        assert label_boundaries(target)[y, x] == expected, (y, x)
        cross = around[[0, 1, 1, 2], [1, 0, 2, 1]]
        expected = expected and ((cross != target[y, x]) & (cross != VOID)).any()
        assert label_boundaries(target, neighbours=4)[y, x] == expected, (y, x)
    assert label_boundaries(target, None).sum() > label_boundaries(target).sum()


@pytest.mark.parametrize("around", ["void", "labels", "function"])
def test_bands_hold_what_dilation_and_counting_give(pair, around):
    ndimage = pytest.importorskip("scipy.ndimage")
    prediction, target = pair
    seeds = {
        "void": target == VOID,
        "labels": label_boundaries(target),
        "function": target == 2,
    }[around]
    how = (lambda labels: labels == 2) if around == "function" else around
    bands = BandConfusion(4, (7, 1, 3, 2), around=how)
    bands.add(prediction[:, ::-1], target[:, ::-1]).add(prediction, target)
    assert bands.widths == (1, 2, 3, 7)
    for i, width in enumerate(bands.widths):
        band = ndimage.binary_dilation(seeds, np.ones((2 * width + 1,) * 2)) & (target != VOID)
        expected = Confusion(4).add(prediction, target, band)
        assert (bands.at(width).counts == 2 * expected.counts).all()
        assert bands.pixel_accuracies()[i] == expected.pixel_accuracy()
        assert bands.mean_ious("skip")[i] == expected.mean_iou("skip")
    other = BandConfusion(4, (1, 2, 3, 7), around=how).add(prediction, target)
    assert (bands.merge(other).at(7).counts == 3 * expected.counts).all()


def test_a_band_by_hand():
    target = np.array([[0, 0, 0, VOID, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 1, 0, 1, 1, 0]], np.uint8)
    bands = BandConfusion(2, range(1, 4)).add(prediction, target)
    assert bands.pixel_accuracies() == pytest.approx([1 / 2, 3 / 4, 4 / 6])
    wide = BandConfusion(2).add(prediction, target)
    assert wide.widths == tuple(range(1, 41))
    assert wide.pixel_accuracies()[2:] == pytest.approx(np.full(38, 4 / 6))


# --- Boundary IoU and mBA -------------------------------------------------------------------------


def slow_inner_boundary(mask, width, ndimage):
    eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width)
    return mask & ~eroded[1:-1, 1:-1]


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.08])
def test_boundary_iou_is_the_iou_of_eroded_rims(pair, ratio):
    ndimage = pytest.importorskip("scipy.ndimage")
    ours, theirs = pair[0] == 1, pair[1] == 1
    width = max(1, round(ratio * math.hypot(*ours.shape)))
    a, b = (slow_inner_boundary(mask, width, ndimage) for mask in (ours, theirs))
    expected = (a & b).sum() / (a | b).sum()
    assert boundary_iou(ours, theirs, ratio) == expected
    assert boundary_iou(ours, ours, ratio) == 1
    assert math.isnan(boundary_iou(ours & False, ours & False))


def test_boundary_iou_by_hand():
    # Rims of 16 pixels of two 5 x 5 squares, one a step down and right of the other: they cross at
    # (3, 6) and (6, 3), and share nothing else.
    ours, theirs = np.zeros((2, 12, 12), bool)
    ours[2:7, 2:7] = theirs[3:8, 3:8] = True
    assert boundary_iou(ours, theirs) == 2 / 30


def test_boundary_iou_per_class_sums_over_images(pair):
    prediction, target = pair
    full = np.where(target == VOID, prediction, target)
    found = BoundaryIoU(6, ignore_index=None).add(prediction, full)
    for label in range(4):
        expected = boundary_iou(prediction == label, full == label)
        assert found.ious()[label] == pytest.approx(expected)
    assert np.isnan(found.ious()[4:]).all()
    assert found.mean_iou() == pytest.approx(np.nanmean(found.ious()))
    once, twice = BoundaryIoU(6).add(prediction, target), BoundaryIoU(6)
    assert twice.add(prediction, target).add(prediction, target).mean_iou() == once.mean_iou() < 1
    assert BoundaryIoU(6).add(full, target).mean_iou() == 1
    assert math.isnan(BoundaryIoU(6).mean_iou())


def slow_mba(prediction, target):
    """As written by the authors, over whole images: a disc's maximum and minimum differ."""
    height, width = target.shape
    accuracies = []
    for step in range(5):
        radius = 1 + int(((height + width) / 300 - 1) / 5 * step)
        band = np.zeros(target.shape, bool)
        for y, x in np.ndindex(target.shape):
            if target[y, x] != VOID:
                for dy in range(-radius, radius + 1):
                    reach = round(math.sqrt(radius**2 - dy**2))
                    if 0 <= y + dy < height:
                        row = target[y + dy, max(0, x - reach) : x + reach + 1]
                        band[y, x] |= ((row != target[y, x]) & (row != VOID)).any()
        accuracies.append((prediction == target)[band].mean())
    return np.mean(accuracies)


def test_mba_is_the_mean_over_five_bands():
    rng = np.random.default_rng(5)
    target = np.zeros((9, 1500), np.uint8)  # H + W large enough for radii 1, 2 and 3
    target[4:, 30:55], target[:6, 800:820], target[7, 1000:1100] = 1, 2, VOID
    prediction = noisy(rng, target, 3)
    assert mean_boundary_accuracy(prediction, target) == pytest.approx(slow_mba(prediction, target))
    assert mean_boundary_accuracy(target == 1, target == 1) == 1
    assert math.isnan(mean_boundary_accuracy(target * 0, target * 0))


# --- calibration ----------------------------------------------------------------------------------


def test_calibration_by_hand():
    probs = np.array([[0.95, 0.85, 0.55, 0.1], [0.05, 0.15, 0.45, 0.9]])
    found = Calibration(bins=10).add(probs, [0, 1, 0, 1])
    # Bins (.9, 1]: 0.95 right; (.8, .9]: 0.85 wrong and 0.9 right; (.5, .6]: 0.55 right.
    assert found.expected_error() == pytest.approx((0.05 + abs(1 - 1.75) + 0.45) / 4)
    assert found.largest_error() == pytest.approx(0.45)
    shares, confidences, accuracies = found.reliability()
    assert shares[[5, 8, 9]] == pytest.approx([0.25, 0.5, 0.25])
    assert confidences[8] == pytest.approx(0.875)
    assert accuracies[8] == 0.5
    assert np.isnan(accuracies[0])


def test_calibration_agrees_with_scikit_learn_and_streams():
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(6)
    probs = rng.dirichlet(np.ones(3), (40, 50)).transpose(2, 0, 1)
    target = np.where(rng.random((40, 50)) < 0.6, probs.argmax(0), rng.integers(0, 3, (40, 50)))
    whole = Calibration().add(probs, target)
    true, mean = calibration.calibration_curve(
        (probs.argmax(0) == target).ravel(), probs.max(0).ravel(), n_bins=15
    )
    shares, confidences, accuracies = whole.reliability()
    used = shares > 0
    assert accuracies[used] == pytest.approx(true)
    assert confidences[used] == pytest.approx(mean)
    assert whole.expected_error() == pytest.approx((shares[used] * abs(true - mean)).sum())
    halves = Calibration().add(probs[:, :7], target[:7])
    halves.merge(Calibration().add(probs[:, 7:], target[7:]))
    assert halves.expected_error() == pytest.approx(whole.expected_error())
    target[3] = VOID
    assert Calibration().add(probs, target).sums[0].sum() == 39 * 50
    assert math.isnan(Calibration().expected_error())
    assert math.isnan(Calibration().largest_error())
