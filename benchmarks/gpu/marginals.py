# SPDX-License-Identifier: MIT
"""Marginals of the native module by hand: equal to the CPU's and to float64."""

from collections.abc import Iterator

import numpy as np

from gpu import scenes
from gpu.expected import (
    CLOSE,
    EXACT,
    ITERATIONS,
    KERNELS,
    bfloat16_bits,
    bfloat16_values,
    in_float64,
    off,
    on_cpu,
)
from gpu.native import Native
from gpu.place import native_module, place_of
from gpu.sections import Context


def cases(context: Context) -> Iterator[scenes.Case]:
    """Every number of labels at an odd size, every shape with few labels."""
    counts = (2, 3, 21, 150) if context.emulated else (2, 3, 21, 150, 256, 1024)
    for n_labels in counts:
        size = (5, 7) if context.emulated and n_labels > 21 else (17, 33)
        yield f"{size[1]} x {size[0]}", scenes.blocks(1, *size, seed=n_labels), n_labels
    yield from scenes.odd_ones()
    if not context.emulated:
        yield "500 x 375", scenes.photograph(375, 500)[0], 21
    if not context.emulated and not context.quick:
        yield "batch of 4 at 500 x 375", scenes.variants(scenes.photograph(375, 500)[0], 4), 21


def run(context: Context) -> None:
    native = Native(native_module(context), place_of(context))
    report = context.report
    for name, images, n_labels in cases(context):
        what = f"{name}, {n_labels} labels, against the CPU"
        with report.part(what):
            logits = scenes.logits(len(images), n_labels, *images.shape[1:3], seed=n_labels)
            found = native.marginals(logits, images, KERNELS, ITERATIONS)
            report.near(what, off(found, on_cpu(logits, images)), CLOSE)
    for n_labels in (2, 5):
        what = f"noise, {n_labels} labels, against float64"
        with report.part(what):
            check_exactly(context, native, n_labels, what)
    for dtype in ("float16", "bfloat16"):
        what = f"{dtype} logits, against the CPU's of the same values"
        with report.part(what):
            check_narrow(context, native, dtype, what)


def check_exactly(context: Context, native: Native, n_labels: int, what: str) -> None:
    images = scenes.noise(1, 9, 14, seed=n_labels)
    logits = scenes.logits(1, n_labels, 9, 14)
    expected = in_float64(logits[0], images[0])
    found = native.marginals(logits, images, KERNELS, ITERATIONS)
    context.report.near(what, off(found[0], expected), EXACT)
    context.report.near(f"{what}, the CPU", off(on_cpu(logits, images)[0], expected), EXACT)


def check_narrow(context: Context, native: Native, dtype: str, what: str) -> None:
    """What is read has 16 bits; what is computed with them does not."""
    images = scenes.blocks(2, 17, 19)
    logits = scenes.logits(2, 6, 17, 19)
    if dtype == "float16":
        bits = logits.astype(np.float16)
        values = bits.astype(np.float32)
    else:
        bits = bfloat16_bits(logits).view(np.int16)  # torch has no uint16 everywhere
        values = bfloat16_values(bits.view(np.uint16))
    found = native.marginals(bits, images, KERNELS, ITERATIONS, dtype)
    context.report.near(what, off(found, on_cpu(values, images)), CLOSE)
