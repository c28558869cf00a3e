# SPDX-License-Identifier: MIT
"""accuracy="fine" against "fast", judged by the exact model: brute force on crops of photographs.

The crops are small because the exact kernels are (N, N). Differing labels are counted after 10
iterations of a crf of everyday strength; "fast" is the lattice as the field knows it.
"""

import numpy as np
import pytest

from crfseg import refine
from photos import recorded_problem
from reference import Array, Term, compatibility_matrix, gaussian_kernel, mean_field, normalize

HEIGHT, WIDTH = 72, 96
SPATIAL = (3.0, 3.0)
BILATERALS = {
    "80/13/10": (80.0, 13.0, 10.0),
    "20/13/10": (20.0, 13.0, 10.0),
    "50/5/10": (50.0, 5.0, 10.0),
}


def crop(name: str) -> tuple[Array, Array]:
    """Image (72, 96, 3) and probabilities (8, 72, 96)."""
    image, probs = recorded_problem(name)
    rows, columns = slice(24, 24 + HEIGHT), slice(32, 32 + WIDTH)
    return image[rows, columns], probs[:, rows, columns]


def features(image: Array, sigma_xy: float, sigma_rgb: float | None) -> Array:
    y, x = np.indices((HEIGHT, WIDTH)).reshape(2, -1) / sigma_xy
    colours = [] if sigma_rgb is None else list(image.reshape(-1, 3).T / sigma_rgb)
    return np.stack([x, y, *colours], axis=1)


def kernel(image: Array, sigma_xy: float, sigma_rgb: float | None) -> Array:
    """(N, N) in float32, whose rounding is 1e-4 of the lattice errors that are measured."""
    return normalize(
        gaussian_kernel(features(image, sigma_xy, sigma_rgb), dtype=np.float32), "symmetric"
    )


@pytest.fixture(scope="module")
def spatial_kernel() -> Array:
    """The same for every image of this size."""
    return kernel(np.zeros((HEIGHT, WIDTH, 3)), SPATIAL[0], None)


def exact(name: str, bilateral: str, spatial_kernel: Array) -> Array:
    """(8, N) Q of the exact model."""
    image, probs = crop(name)
    sigma_xy, sigma_rgb, weight = BILATERALS[bilateral]
    mu = compatibility_matrix(None, 8)
    terms = [
        Term(spatial_kernel, SPATIAL[1], mu),
        Term(kernel(image, sigma_xy, sigma_rgb), weight, mu),
    ]
    unary = -np.log(probs.clip(1e-5)).reshape(8, -1)
    return mean_field(unary, terms, 10, traced=False).qs[-1]


def refined(name: str, bilateral: str, accuracy: str) -> Array:
    image, probs = crop(name)
    q = refine(probs, image, spatial=SPATIAL, bilateral=BILATERALS[bilateral], accuracy=accuracy)
    return q.reshape(8, -1)


@pytest.mark.slow
@pytest.mark.parametrize("bilateral", BILATERALS)
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_fine_has_half_the_wrong_labels_of_fast(
    name: str, bilateral: str, spatial_kernel: Array
) -> None:
    """At least 2 times fewer labels that differ from the exact model's, and half the mean |dQ|."""
    truth = exact(name, bilateral, spatial_kernel)
    wrong, dq = {}, {}
    for accuracy in ("fast", "fine"):
        q = refined(name, bilateral, accuracy)
        wrong[accuracy] = int((q.argmax(axis=0) != truth.argmax(axis=0)).sum())
        dq[accuracy] = float(np.abs(q - truth).mean())
    print(f"{name} {bilateral}: differing labels {wrong}, mean |dQ| {dq}")
    assert wrong["fast"] > 0, "the crop is too easy to tell the two apart"
    assert 2 * wrong["fine"] <= wrong["fast"]
    assert 2 * dq["fine"] <= dq["fast"]
    # And the lattice is doing its work at all: the published error of "fast" is 1-4 % of labels.
    assert wrong["fast"] <= 0.05 * HEIGHT * WIDTH
