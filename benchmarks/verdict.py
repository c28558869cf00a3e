# SPDX-License-Identifier: MIT
"""A bar and what was measured."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A must, which ends a run with an error where it is missed; ``aim`` is NaN where none is."""

    what: str
    value: float
    must: float
    aim: float = math.nan
    at_most: bool = False

    def passes(self, limit: float) -> bool:
        """Whether the value is on the right side; NaN is not."""
        return self.value <= limit if self.at_most else self.value >= limit

    @property
    def met(self) -> bool:
        return self.passes(self.must)

    def __str__(self) -> str:
        aim = "" if math.isnan(self.aim) else f", aim {self.aim:g}"
        reached = aim and (" reached" if self.passes(self.aim) else " not reached")
        limit = f"{'at most' if self.at_most else 'at least'} {self.must:g}"
        verdict = "met" if self.met else "MISSED"
        return f"bar: {self.what}: {self.value:.3g}, {limit} {verdict}{aim}{reached}"
