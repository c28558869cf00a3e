# SPDX-License-Identifier: MIT
"""Bad input to the differentiated mean field: a sentence that names the argument."""

import functools

import numpy as np
import pytest

from bad_input import LOGITS, POINTS, C, H, W, assert_named, case, put
from crfseg import _memory
from crfseg.gradients import Kernel, fixed_point, unroll

KERNEL = Kernel(POINTS, 1.0)
TAPE = unroll(LOGITS, [KERNEL])
SHAPE = f"({C}, {H}, {W})"

CASES = [
    case("features", lambda: Kernel("x"), TypeError, "[Kernel]", "features"),
    case("features' shape", lambda: Kernel(POINTS[0]), ValueError, "features", "(N, d)"),
    case("nan in features", lambda: Kernel(put(POINTS, (2, 1), np.nan)), ValueError, "point 2"),
    case("weight's type", lambda: Kernel(POINTS, "strong"), TypeError, "weight"),
    case("weight's value", lambda: Kernel(POINTS, np.nan), ValueError, "weight", "finite"),
    case(
        "weights' values", lambda: Kernel(POINTS, [1.0, np.inf, 0.0]), ValueError, "weight", "(1,)"
    ),
    case("weights' axes", lambda: Kernel(POINTS, np.ones((2, 2))), ValueError, "weight", "(C,)"),
    case("normalization", lambda: Kernel(POINTS, normalization="l2"), ValueError, "'l2'"),
    case("accuracy", lambda: Kernel(POINTS, accuracy="best"), ValueError, "accuracy", "'best'"),
    case(
        "weight again",
        lambda: KERNEL.with_parameters(None),
        TypeError,
        "[Kernel.with_parameters]",
        "weight",
    ),
    case("unary's type", lambda: unroll(None, []), TypeError, "[unroll]", "unary"),
    case("unary's dtype", lambda: unroll(LOGITS.astype(int), []), TypeError, "unary", "floats"),
    case("unary's axes", lambda: unroll(LOGITS[0, 0], []), ValueError, "unary", "(C, *spatial)"),
    case("empty unary", lambda: unroll(LOGITS[:0], []), ValueError, "unary", "empty"),
    case("nan", lambda: unroll(put(LOGITS, (1, 2, 3), np.nan), []), ValueError, "nan", "(1, 2, 3)"),
    case(
        "inf", lambda: fixed_point(put(LOGITS, 0, np.inf), []), ValueError, "[fixed_point]", "inf"
    ),
    case("kernels' type", lambda: unroll(LOGITS, KERNEL), TypeError, "kernels", "list"),
    case("a kernel's type", lambda: unroll(LOGITS, [KERNEL, 3]), TypeError, "kernels[1] is 3"),
    case(
        "points", lambda: unroll(LOGITS[:, 1:], [KERNEL]), ValueError, "kernels[0] features", "24"
    ),
    case(
        "weights' number",
        lambda: unroll(LOGITS, [KERNEL.with_parameters([1.0, 2.0])]),
        ValueError,
        "weight has shape (2,)",
        "(3,)",
    ),
    case(
        "compatibility",
        lambda: unroll(LOGITS, [KERNEL.with_parameters(1.0, np.eye(2))]),
        ValueError,
        "compatibility has shape (2, 2)",
    ),
    case("iterations", lambda: unroll(LOGITS, [], -1), ValueError, "iterations is -1"),
    case("iterations' type", lambda: unroll(LOGITS, [], 2.0), TypeError, "iterations is 2"),
    case("no iterations", lambda: fixed_point(LOGITS, [], 0), ValueError, "iterations is 0"),
    case("last", lambda: unroll(LOGITS, [], 3, last=4), ValueError, "last is 4", "at most 3"),
    case("recompute", lambda: unroll(LOGITS, [], recompute=1), TypeError, "recompute is 1"),
    case("kind", lambda: unroll(LOGITS, [], kind="probs"), ValueError, "kind is 'probs'"),
    case("output", lambda: unroll(LOGITS, [], output="q"), ValueError, "output is 'q'"),
    case("threads", lambda: unroll(LOGITS, [], threads=0), ValueError, "threads is 0"),
    case("tolerance", lambda: fixed_point(LOGITS, [], tolerance=-1.0), ValueError, "tolerance"),
    case(
        "gradient's type", lambda: TAPE.backward([None]), TypeError, "[Tape.backward]", "gradient"
    ),
    case("gradient's dtype", lambda: TAPE.backward(np.ones((C, H, W), int)), TypeError, "floats"),
    case("gradient's shape", lambda: TAPE.backward(LOGITS[:, :2]), ValueError, "gradient", SHAPE),
    case("form", lambda: TAPE.backward(LOGITS, features="fast"), ValueError, "features is 'fast'"),
    case(
        "kernel of features",
        lambda: TAPE.backward(LOGITS, features="exact", feature_kernels=[1]),
        ValueError,
        "feature_kernels is 1",
    ),
    case(
        "kernels of features",
        lambda: TAPE.backward(LOGITS, features="exact", feature_kernels=0),
        TypeError,
        "feature_kernels is 0",
    ),
    case("sigmas alone", lambda: TAPE.backward(LOGITS, sigmas=[[]]), ValueError, "sigmas", "step"),
    case("sigmas", lambda: TAPE.backward(LOGITS, sigmas=[], step=0.1), ValueError, "1 kernels"),
    case("groups", lambda: TAPE.backward(LOGITS, sigmas=[[0]], step=0.1), ValueError, "sigmas[0]"),
    case(
        "a feature twice",
        lambda: TAPE.backward(LOGITS, sigmas=[[[0, 1], [1]]], step=0.1),
        ValueError,
        "sigmas[0]",
        "none of them in two",
    ),
    case(
        "a feature too many",
        lambda: TAPE.backward(LOGITS, sigmas=[[[2]]], step=0.1),
        ValueError,
        "sigmas[0] is 2",
    ),
    case("step", lambda: TAPE.backward(LOGITS, sigmas=[[]], step=0.0), ValueError, "step is 0"),
    case("out's type", lambda: TAPE.backward(LOGITS, out=[1]), TypeError, "out is [1]", "array"),
    case(
        "out's shape",
        lambda: TAPE.backward(LOGITS, out=np.zeros(LOGITS.shape[::-1], np.float32)),
        ValueError,
        "out has shape",
        SHAPE,
    ),
    case(
        "out's dtype",
        lambda: TAPE.backward(LOGITS, out=np.zeros(LOGITS.shape)),
        TypeError,
        "out has dtype float64",
    ),
    case(
        "out that would be written to in a copy",
        lambda: TAPE.backward(LOGITS, out=np.zeros((C, 2 * H, 2 * W), np.float32)[:, :H, :W]),
        ValueError,
        "out is read-only or a crop",
    ),
    case(
        "out that is read-only",
        lambda: TAPE.backward(LOGITS, out=np.broadcast_to(np.float32(0), LOGITS.shape)),
        ValueError,
        "out is read-only or a crop",
    ),
    case(
        "couplings that drown the unary",
        lambda: unroll(LOGITS, [KERNEL.with_parameters(1e30, np.full(C, 1e30))]),
        ValueError,
        "kernels[0] weight times compatibility is 1e+60; expected at most 1e+08",
    ),
    case("terms", lambda: TAPE.backward(LOGITS, most_terms=0), ValueError, "most_terms is 0"),
    case("end", lambda: TAPE.backward(LOGITS, tolerance=0.0), ValueError, "tolerance is 0"),
]


@pytest.mark.parametrize(("call", "error", "fragments"), CASES)
def test_bad_input_is_named(call, error, fragments):
    assert_named(call, error, fragments)


@pytest.mark.parametrize(
    "run",
    [
        unroll,
        functools.partial(unroll, recompute=True),
        functools.partial(unroll, last=1),
        fixed_point,
    ],
)
def test_what_is_kept_is_counted_before_it_is_made(rng, monkeypatch, run):
    """Scattered points have more vertices than there are points, and rows of each are kept."""
    needed = []
    monkeypatch.setattr(_memory, "require", lambda *call: needed.append(call[-1]))
    kernel = Kernel(10 * rng.normal(size=(2000, 5)))
    tape = run(rng.normal(size=(C, 2000)), [kernel])
    assert tape.nbytes <= needed[-1]
