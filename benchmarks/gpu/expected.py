# SPDX-License-Identifier: MIT
"""What marginals are compared with: the CPU's, and mean field in float64 over a slow lattice."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crfseg
from gpu.sections import REPOSITORY

SPATIAL, BILATERAL = (3.0, 3.0), (80.0, 13.0, 10.0)
KERNELS = [(3.0, None, 3.0), (80.0, 13.0, 10.0)]  # the same for gpu.native
ITERATIONS = 10
CLOSE, CLOSE_16 = 1e-5, 1e-2  # max |dQ|: of float32, of 16 bits
EXACT = 2e-5  # of float64, from which both twins may be as far as from each other

MODEL: dict[str, Any] = {
    "kind": "logits",
    "layout": "NCHW",
    "returns": "probs",
    "spatial": SPATIAL,
    "bilateral": BILATERAL,
    "keep_thin": 0,
    "upsample": False,
    "iterations": ITERATIONS,
}


def on_cpu(logits: NDArray[np.float32], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, C, H, W) marginals, every label evaluated everywhere."""
    found: NDArray[np.float32] = crfseg.refine(logits, images, skip=False, **MODEL)
    return found


def in_float64(logits: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(C, H, W) marginals of one image by the tests' reference: loops over vertices, O(N^2)."""
    if (tests := str(REPOSITORY / "tests")) not in sys.path:
        sys.path.append(tests)
    from reference import Term, compatibility_matrix, mean_field, normalize
    from reference_lattice import ReferenceLattice

    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    colours = image.reshape(-1, 3).astype(np.float32)
    n_labels = len(logits)
    mu = compatibility_matrix(None, n_labels)
    near = places * np.float32(1 / SPATIAL[0])
    alike = [places * np.float32(1 / BILATERAL[0]), colours * np.float32(1 / BILATERAL[1])]
    terms = [
        Term(normalize(ReferenceLattice(features).matrix(), "symmetric"), weight, mu)
        for features, weight in ((near, SPATIAL[1]), (np.hstack(alike), BILATERAL[2]))
    ]
    unary = -logits.reshape(n_labels, -1).astype(np.float64)
    found = mean_field(unary, terms, ITERATIONS, traced=False).qs[-1]
    return np.asarray(found).reshape(logits.shape)


def off(found: Any, expected: NDArray[Any]) -> float:
    """max |dQ|; NaN where there is one."""
    return float(np.abs(np.asarray(found, np.float64) - expected).max())


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves, rounded to nearest, ties to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def bfloat16_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
