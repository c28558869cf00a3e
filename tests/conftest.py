# SPDX-License-Identifier: MIT
"""What every test shares: hypothesis profiles, the places of the tree, a generator of random numbers."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Timings belong to benchmarks/, so no test has a deadline. CI must fail or pass for the change alone.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout (or unpacked sdist) the tests stand in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run and every test."""
    return np.random.default_rng(2011)
