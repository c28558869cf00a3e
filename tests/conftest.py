# SPDX-License-Identifier: MIT
"""How hypothesis runs, and what all tests may ask for.

Timings belong to benchmarks/, so no test has a deadline.
"""

import os

import numpy as np
import pytest
from hypothesis import settings

from command import doubtful_scores, stripes
from crfseg import refine
from crfseg.io import write_picture
from small import C, H, W

settings.register_profile("default", deadline=None)
# CI must pass or fail for the change alone, so it draws the same examples every time.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(2011)


@pytest.fixture
def image(rng):
    """Of the small problem: noise."""
    return rng.integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.fixture
def probs(rng):
    """Of the small problem, (C, H, W)."""
    return rng.dirichlet(np.full(C, 0.5), (H, W)).transpose(2, 0, 1).astype(np.float32).copy()


@pytest.fixture
def refined(probs, image):
    """The plain case that all others are compared with; it must differ from the input."""
    result = refine(probs, image)
    assert np.abs(result - probs).max() > 0.2
    return result


@pytest.fixture
def photo():
    """Of the command line's problem."""
    return stripes()


@pytest.fixture
def photo_probs():
    """Of the command line's problem."""
    return doubtful_scores()


@pytest.fixture
def files(tmp_path, photo, photo_probs):
    """A folder with photo.png and scores.npy."""
    write_picture(tmp_path / "photo.png", photo)
    np.save(tmp_path / "scores.npy", photo_probs)
    return tmp_path
