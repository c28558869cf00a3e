# SPDX-License-Identifier: MIT
"""How hypothesis runs, and what all tests may ask for.

Timings belong to benchmarks/, so no test has a deadline.
"""

import os

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
# CI must pass or fail for the change alone, so it draws the same examples every time.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(2011)
