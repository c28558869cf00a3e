# SPDX-License-Identifier: MIT
"""What ncu counts: one image of 500 x 375 with 21 labels, two iterations, without torch."""

from gpu import scenes
from gpu.driver import DriverPlace
from gpu.expected import KERNELS
from gpu.native import Native
from gpu.place import HostPlace, Place, native_module
from gpu.sections import Context

ITERATIONS = 2


def run(context: Context) -> None:
    place: Place = HostPlace() if context.emulated else DriverPlace()
    size = (12, 15) if context.emulated else (375, 500)
    images, logits = scenes.photograph(*size)[0], scenes.logits(1, 21, *size)
    found = Native(native_module(context), place).marginals(logits, images, KERNELS, ITERATIONS)
    context.report.near("marginals add up to 1", float(abs(found.sum(1) - 1).max()), 1e-4)
