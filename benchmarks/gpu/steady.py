# SPDX-License-Identifier: MIT
"""The same bits every time: of 20 runs, and whatever lay in the memory that is worked in."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from gpu import scenes
from gpu.expected import ITERATIONS, KERNELS
from gpu.native import Native, poisoned
from gpu.place import native_module, place_of
from gpu.sections import Context

POISONS = {"NaN": 0xFF, "large numbers": 0x7E, "0x55": 0x55, "zeros": 0}


def run(context: Context) -> None:
    module, place = native_module(context), place_of(context)
    size = (17, 19) if context.emulated else (375, 500)
    images = scenes.variants(scenes.photograph(*size)[0], 2)
    logits = scenes.logits(2, 3 if context.emulated else 21, *size)
    plain = Native(module, place)

    def result(native: Native) -> str:
        return digest(native.marginals(logits, images, KERNELS, ITERATIONS))

    expected = result(plain)
    repeats = 2 if context.emulated else 20
    with context.report.part("repeats"):
        same = sum(result(plain) == expected for _ in range(repeats))
        context.report.holds(f"{repeats} repeats are bit-identical", same == repeats, f"{same} are")
    for name, byte in POISONS.items():
        what = f"workspace of {name} changes nothing"
        with context.report.part(what):
            native = Native(module, place, poisoned(place, byte))
            context.report.holds(what, result(native) == expected)
    with context.report.part("labels and items"):
        alone = plain.marginals(logits[1:], images[1:], KERNELS, ITERATIONS)
        batch = plain.marginals(logits, images, KERNELS, ITERATIONS)
        context.report.holds(
            "an item of a batch is what it is alone", same_bits(alone[0], batch[1])
        )


def digest(array: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def same_bits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return digest(one) == digest(other)
