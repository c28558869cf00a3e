# SPDX-License-Identifier: MIT
"""The kernels for devices on the host, as the module crfseg._cuda: addresses are the host's."""

import importlib.util
import os
from pathlib import Path

import pytest

BUILT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "tests" / "emulation"


def load():
    """The module, or a reason why it is not there."""
    found = sorted(BUILT.glob("_cuda.*.so"))
    if not found:
        return None
    spec = importlib.util.spec_from_file_location("_cuda", found[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = load()
needs_emulation = pytest.mark.skipif(
    MODULE is None and "CI" not in os.environ, reason="`make emulated` builds what it needs"
)


@pytest.fixture
def emulated(monkeypatch):
    """In the place of crfseg._cuda for a test."""
    assert MODULE is not None, "`make emulated` builds it"
    monkeypatch.setattr("crfseg._native.cuda", MODULE)
    return MODULE
