# SPDX-License-Identifier: MIT
"""The scene that adapters are tried with."""

import pytest

from scene import photograph, truth


@pytest.fixture
def labels():
    return truth()


@pytest.fixture
def photo(labels):
    return photograph(labels)
