# SPDX-License-Identifier: MIT
"""Solvers of one energy: their names, what they refuse."""

import numpy as np
import pytest

from bad_input import assert_named, case
from crfseg import FrankWolfe, MeanField
from crfseg.solvers import SOLVERS, resolve


def test_names_stand_for_solvers() -> None:
    assert resolve("here", "mean-field") == MeanField()
    assert resolve("here", "damped") == MeanField(damping=0.5)
    assert resolve("here", "frank-wolfe") == FrankWolfe("entropy")
    assert resolve("here", "euclidean-frank-wolfe") == FrankWolfe("euclidean")
    for solver in (MeanField(0.25), FrankWolfe("euclidean", 1, np.float32(0.5))):
        assert resolve("here", solver) is solver
    assert all(resolve("here", name) is solver for name, solver in SOLVERS.items())


EXPECTED_STEP = "expected a number above 0 and at most 1, 'diminishing' or 'line-search'"
BAD = [
    case("damping", lambda: MeanField(1.0), ValueError,
         "[MeanField] damping is 1; expected a number of at least 0 and below 1"),
    case("damping type", lambda: MeanField("0.5"), TypeError, "[MeanField] damping is '0.5' (str)"),
    case("regularizer", lambda: FrankWolfe("l2"), ValueError,
         "[FrankWolfe] regularizer is 'l2'; expected 'entropy' or 'euclidean'"),
    case("step 0", lambda: FrankWolfe(step=0.0), ValueError,
         f"[FrankWolfe] step is 0; {EXPECTED_STEP}"),
    case("step above 1", lambda: FrankWolfe(step=1.5), ValueError,
         f"[FrankWolfe] step is 1.5; {EXPECTED_STEP}"),
    case("step NaN", lambda: FrankWolfe(step=np.nan), ValueError, "[FrankWolfe] step is nan"),
    case("step name", lambda: FrankWolfe(step="linesearch"), ValueError,
         f"[FrankWolfe] step is 'linesearch'; {EXPECTED_STEP}"),
    case("step type", lambda: FrankWolfe(step=None), TypeError,
         f"[FrankWolfe] step is None (NoneType); {EXPECTED_STEP}"),
    case("step flag", lambda: FrankWolfe(step=True), TypeError, "[FrankWolfe] step is True (bool)"),
    case("strength", lambda: FrankWolfe(strength=0), ValueError,
         "[FrankWolfe] strength is 0; expected a positive finite number"),
    case("name", lambda: resolve("refine", "newton"), ValueError,
         "[refine] solver is 'newton'; expected 'mean-field', 'damped', 'frank-wolfe' or"),
    case("type", lambda: resolve("refine", 0.5), TypeError,
         "[refine] solver is 0.5 (float); expected MeanField, FrankWolfe, 'mean-field',"),
    case("class", lambda: resolve("refine", FrankWolfe), TypeError,
         "[refine] solver is <class 'crfseg.solvers.FrankWolfe'> (type); expected MeanField,"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "fragments"), BAD)
def test_bad_solvers_are_named(call, error, fragments) -> None:
    assert_named(call, error, fragments)
