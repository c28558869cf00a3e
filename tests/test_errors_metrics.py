# SPDX-License-Identifier: MIT
"""Bad input to the metrics: who was called, which argument, the first bad place."""

import re

import numpy as np
import pytest

from crfseg.metrics import (
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
ZEROS = np.zeros((4, 5), np.uint8)


def with_label(label, at=(2, 3)):
    labels = np.zeros((4, 5), np.int16)
    labels[at] = label
    return labels


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Confusion(0), "[Confusion] num_classes is 0; expected an integer of at least 1"),
        (lambda: Confusion(2, 1.5), "[Confusion] ignore_index is 1.5"),
        (
            lambda: Confusion(3).add(with_label(3), ZEROS),
            "[Confusion.add] prediction has label 3 at row 2, column 3; expected labels",
        ),
        (
            lambda: Confusion(3).add(ZEROS, with_label(-1)),
            "target has label -1 at row 2, column 3; expected labels from 0 to 2 or ignore_index",
        ),
        (
            lambda: Confusion(3).add(with_label(VOID), with_label(VOID, at=(0, 1))),
            "prediction has label 255 at row 2, column 3;",
        ),
        (
            lambda: Confusion(3).add(ZEROS, with_label(9, at=([0, 2], [1, 2]))),
            "target has label 9 at row 0, column 1 and 1 more such",
        ),
        (
            lambda: Confusion(3).add(ZEROS[:3], ZEROS),
            "prediction has shape (3, 5); expected (4, 5), the shape of target",
        ),
        (lambda: Confusion(3).add(ZEROS * 0.5, ZEROS), "prediction has dtype float64"),
        (lambda: Confusion(3).add(ZEROS, ZEROS > 0), "target has dtype bool"),
        (lambda: Confusion(3).add(ZEROS, ZEROS, ZEROS), "mask has dtype uint8; expected bool"),
        (lambda: Confusion(3).add(ZEROS, ZEROS, ZEROS[1:] == 0), "mask has shape (3, 5);"),
        (lambda: Confusion(3).merge(Confusion(2)), "a matrix of 2 classes cannot be added to one"),
        (lambda: Confusion(3).merge(7), "other is 7 (int); expected a Confusion"),
        (lambda: Confusion(3).mean_iou("skipped"), "absent is 'skipped'; expected 'fcn'"),
        (lambda: Confusion(3).table(["a"]), "names has 1 entries; expected 3"),
        (lambda: Confusion(3).table("abc"), "names is 'abc'; expected a list of strings"),
        (lambda: Confusion(3).table(3), "names is 3; expected a list of strings"),
        (lambda: Confusion.of(ZEROS), "[Confusion.of] counts has shape (4, 5); expected (C, C)"),
        (lambda: Confusion.of(np.eye(2)), "[Confusion.of] counts has dtype float64"),
        (lambda: Confusion.of([[1, -2], [0, 1]]), "[Confusion.of] counts has -2; expected none"),
        (lambda: BandConfusion(3, 5), "widths is 5; expected several, such as range(1, 41)"),
        (lambda: BandConfusion(3, []), "widths is empty"),
        (lambda: BandConfusion(3, [-1]), "widths is -1"),
        (lambda: BandConfusion(3, around="seam"), "around is 'seam'; expected 'void' or 'labels'"),
        (lambda: BandConfusion(3, ignore_index=None), "around is 'void' but ignore_index is None"),
        (lambda: BandConfusion(3).at(50), "width is 50; expected 1, 2"),
        (lambda: BandConfusion(3).add(ZEROS[0], ZEROS), "prediction has shape (5,)"),
        (lambda: BandConfusion(3).add(with_label(7), ZEROS), "prediction has label 7"),
        (
            lambda: BandConfusion(3, around=lambda labels: labels).add(ZEROS, ZEROS),
            "around(target) has dtype uint8; expected bool",
        ),
        (lambda: BandConfusion(3).merge(BandConfusion(3, [1])), "bands of other widths"),
        (lambda: distance_to(ZEROS, 3), "[distance_to] seeds has dtype uint8; expected bool"),
        (lambda: distance_to(ZEROS > 0, -1), "limit is -1; expected an integer of at least 0"),
        (lambda: label_boundaries(ZEROS[:0]), "target has shape (0, 5)"),
        (lambda: label_boundaries(ZEROS, 255, 6), "neighbours is 6; expected 4 or 8"),
        (lambda: boundary_iou(ZEROS, ZEROS), "prediction has dtype uint8; expected bool"),
        (lambda: boundary_iou(ZEROS > 0, ZEROS > 0, 0), "dilation_ratio is 0"),
        (lambda: BoundaryIoU(2).add(with_label(3), ZEROS), "prediction has label 3"),
        (lambda: mean_boundary_accuracy(ZEROS[1:], ZEROS), "prediction has shape (3, 5)"),
        (lambda: Calibration(0), "bins is 0; expected an integer of at least 1"),
        (lambda: Calibration().add(ZEROS, ZEROS), "probs has dtype uint8; expected floats"),
        (
            lambda: Calibration().add(np.full((2, 4, 4), 0.5), ZEROS),
            "probs has shape (2, 4, 4); expected (C, *target.shape)",
        ),
        (lambda: Calibration().add(np.full((2, 4, 5), 0.7), ZEROS), "1.4"),
        (lambda: Calibration().merge(Calibration(3)), "3 bins cannot be added to 15"),
    ],
)
def test_bad_input_is_named(call, sentence):
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
        call()
