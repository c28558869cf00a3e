# SPDX-License-Identifier: MIT
"""Where "a little off" ends: values just inside every tolerance pass, values outside are named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crfseg import DenseCRF, Features, Gaussian, Lattice, refine

IMAGE = np.zeros((6, 8, 3), np.uint8)


def probs(total: float = 1.0, lowest: float = 0.25) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Three labels on 6 x 8 pixels; one pixel sums to ``total``, another has a ``lowest`` value."""
    array = np.full((3, 6, 8), 1 / 3)
    array[:, 2, 3] *= total
    array[:, 4, 5] = lowest, 0.5, 0.5 - lowest
    return array


def grey(value: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    image = np.zeros((6, 8))
    image[1, 1] = value
    return image


def crf(weight: float = 1.0) -> DenseCRF:
    return DenseCRF(np.zeros((2, 4, 4)), [Gaussian(1.0, weight)])


def marginals(lowest: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    q = np.full((2, 4, 4), 0.5, np.float32)
    q[:, 1, 2] = lowest, 1 - lowest
    return q


@pytest.mark.parametrize(
    "call",
    [
        lambda: refine(probs(total=1.009), IMAGE),
        lambda: refine(probs(lowest=-5e-7), IMAGE, kind="probs"),
        lambda: refine(probs(), grey(1.0 + 5e-6)),
        lambda: crf(weight=1e7).infer(1),
        lambda: Lattice(np.zeros((3, 2)), fill=1, passes=8),
        lambda: crf().step(marginals(0.0)),
    ],
    ids=["sum", "negative", "overshoot", "weight", "passes", "marginal"],
)
def test_just_inside(call: Callable[[], Any]) -> None:
    assert call() is not None


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: refine(probs(total=1.02), IMAGE, kind="probs"), r"\[refine\] x .*sum"),
        (lambda: refine(probs(lowest=-1e-4), IMAGE, kind="probs"), r"\[refine\] x .*-0\.0001"),
        (lambda: refine(probs(), grey(1.001)), r"\[refine\] image .*1\.001"),
        (lambda: crf(weight=1e9), "weight"),
        (lambda: Lattice(np.zeros((3, 2)), fill=1, passes=9), r"\[Lattice\] passes is 9"),
        (lambda: crf().step(marginals(-0.5)), r"\[DenseCRF.step\] q .*-0\.5"),
        (lambda: Features(np.zeros((3, 17))), "16"),
    ],
    ids=["sum", "negative", "overshoot", "weight", "passes", "marginal", "dimensions"],
)
def test_just_outside(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
