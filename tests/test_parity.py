# SPDX-License-Identifier: MIT
"""Parity with pydensecrf2 1.1 on photographs: the same model and settings give the same Q.

Agreement is on labels and on mean |dQ|, never on the largest |dQ|: mean field is chaotic where two
labels are nearly even, and float32 sums in another order tip those pixels. The same feature order
(x, y, r, g, b) makes the same lattice; what is left is rounding, and points on a face of a simplex
that either rounds to the other side.
"""

from functools import lru_cache

import numpy as np
import pytest

from crfseg import refine
from native import calibration
from peer import ITERATIONS, PARAMETERS, peer_inference
from photos import DATA, photo_problem, recorded_problem
from record_parity import EVERY, PHOTOS, key
from reference import NORMALIZATIONS, Array

LABELS_EQUAL = 0.9985
MEAN_DQ = 1e-3


@lru_cache
def raw_gain(dim: int) -> float:
    """pydensecrf's unnormalised kernel over ours, whose k(0) is 1 on average.

    Theirs blurs with [1/2 1 1/2] along d + 1 axes, twice ours each, and scales by 1 / (1 + 2^-d);
    ours divides the plain [1/4 1/2 1/4] lattice by ``calibration``.
    """
    return calibration(dim, 0, 1) * 2.0 ** (dim + 1) / (1 + 2.0**-dim)


def ours(probs: Array, image: Array, parameters: str, normalization: str) -> Array:
    """(C, H, W) Q with the weights that "none" needs to mean the same as theirs."""
    (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = PARAMETERS[parameters]
    gains = (raw_gain(2), raw_gain(5)) if normalization == "none" else (1.0, 1.0)
    return refine(
        probs,
        image,
        kind="probs",
        spatial=(sigma, weight * gains[0]),
        bilateral=(sigma_xy, sigma_rgb, bilateral_weight * gains[1]),
        iterations=ITERATIONS,
        normalization=normalization,
        accuracy="fast",
    )


def assert_parity(q: Array, theirs: Array) -> None:
    equal = float((q.argmax(axis=0) == theirs.argmax(axis=0)).mean())
    dq = float(np.abs(q - theirs).mean())
    assert equal >= LABELS_EQUAL, f"labels equal on {equal:.5%}, mean |dQ| {dq:.2e}"
    assert dq < MEAN_DQ, f"labels equal on {equal:.5%}, mean |dQ| {dq:.2e}"


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", ["chelsea", "rocket"])
def test_parity_with_the_installed_peer(name: str, parameters: str, normalization: str) -> None:
    image, probs = photo_problem(name, 180, 240, n_labels=8)
    theirs = peer_inference(probs, image, parameters, normalization)
    assert_parity(ours(probs, image, parameters, normalization), theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    list(zip(("astronaut", "coffee", "chelsea", "rocket"), PARAMETERS, strict=True)),
)
def test_parity_at_full_size(name: str, parameters: str) -> None:
    """500 x 375 with 21 labels, the size and number that the field reports on."""
    image, probs = photo_problem(name, 375, 500, n_labels=21)
    theirs = peer_inference(probs, image, parameters, "symmetric")
    assert_parity(ours(probs, image, parameters, "symmetric"), theirs)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_parity_for_few_labels(n_labels: int) -> None:
    """The peer takes another code path for two labels."""
    image, probs = photo_problem("coffee", 120, 160, n_labels=n_labels)
    theirs = peer_inference(probs, image, "3/3+80/13/10", "symmetric")
    assert_parity(ours(probs, image, "3/3+80/13/10", "symmetric"), theirs)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", PHOTOS)
def test_parity_with_recorded_outputs(name: str, parameters: str, normalization: str) -> None:
    """The same, from files, where the peer cannot be installed."""
    image, probs = recorded_problem(name)
    with np.load(DATA / f"{name}.npz") as stored:
        labels = stored[f"{key(parameters, normalization)} labels"]
        sample = stored[f"{key(parameters, normalization)} q"] / 65535
    q = ours(probs, image, parameters, normalization)
    assert float((q.argmax(axis=0) == labels).mean()) >= LABELS_EQUAL
    assert np.abs(q.reshape(len(q), -1)[:, ::EVERY] - sample).mean() < MEAN_DQ
    # The inputs decide nothing by themselves: refinement moved labels in every case.
    assert float((probs.argmax(axis=0) == labels).mean()) < 0.99
