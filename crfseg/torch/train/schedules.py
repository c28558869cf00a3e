# SPDX-License-Identifier: MIT
"""How the rate of learning falls: by steps (Caffe, DeepLab v1) or as a polynomial (DeepLab v2)."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .options import Options

SCHEDULES: Final = ("step", "poly")


def step(iteration: int, *, size: int, gamma: float) -> float:
    """Times ``gamma`` after every ``size`` iterations."""
    return gamma ** (iteration // size)


def poly(iteration: int, *, total: int, power: float) -> float:
    """From 1 to 0 after ``total`` iterations."""
    return (1 - iteration / total) ** power


def factor(options: "Options", iteration: int) -> float:
    """What every rate is multiplied with in an iteration, the first being 0."""
    if options.schedule == "step":
        return step(iteration, size=options.step, gamma=options.gamma)
    return poly(iteration, total=options.iterations, power=options.power)
