# SPDX-License-Identifier: MIT
"""What the CUDA half is held to: 500 x 375, 21 labels, 10 iterations, lattices included."""

import math
from typing import NamedTuple

from gpu.runner import Outcome
from verdict import Verdict


class Bar(NamedTuple):
    """A measurement of a section, and on which side of what it has to be."""

    section: str
    measurement: str
    must: float
    aim: float = math.nan
    at_most: bool = True


BARS = (
    Bar("speed", "80/13, batch 1, float32, ms", 2.0, 1.0),
    Bar("speed", "80/13, batch 1, float16, ms", 2.0, 0.5),
    Bar("speed", "80/13, batch 64, float32, images/s", 1500, 2500, at_most=False),
    Bar("speed", "80/13, batch 64, float16, images/s", 1500, 4500, at_most=False),
    Bar("rivals", "batch 1, times as fast as the plain torch lattice", 20, at_most=False),
    Bar("rivals", "batch 16, times as fast as the plain torch lattice", 20, at_most=False),
    Bar("training", "backward, forward passes", 3.0),
)


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    """One for every bar; what was not measured is NaN and meets none."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    return [
        Verdict(
            f"{bar.section}: {bar.measurement}",
            by_name[bar.section].value(bar.measurement) if bar.section in by_name else math.nan,
            bar.must,
            bar.aim,
            bar.at_most,
        )
        for bar in BARS
    ]
