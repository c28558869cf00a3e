# SPDX-License-Identifier: MIT
"""What a dense CRF gains on the data, as its README states, and whether that was found again.

The figures are of pydensecrf 1.0 after five mean-field iterations with Potts kernels, in per cent.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qualities import BASELINE, PEER, Quality

TOLERANCE = 0.2  # points
OURS = "crfseg"


class Reference(NamedTuple):
    """What is stated of one set and one choice of parameters: names of `Quality`, and figures."""

    set: str
    parameters: str
    figures: dict[str, float]


def image(miou: float, accuracy: float, miou_4: float, accuracy_4: float) -> dict[str, float]:
    """Over all pixels, and within 4 px of a boundary."""
    return {"miou": miou, "accuracy": accuracy, "miou_4": miou_4, "accuracy_4": accuracy_4}


def dice(whole: float, core: float, enhancing: float) -> dict[str, float]:
    """Of a volume."""
    return {"dice_whole": whole, "dice_core": core, "dice_enhancing": enhancing}


REFERENCES = (
    Reference("camvid", BASELINE, image(59.31, 90.69, 39.27, 62.63)),
    Reference("camvid", "1/1+10/5/3", image(59.74, 90.94, 40.49, 63.86)),
    Reference("camvid", "1/1+30/5/3", image(59.29, 91.06, 40.36, 64.18)),
    Reference("camvid", "3/3+30/5/4", image(58.94, 91.00, 39.83, 63.85)),
    Reference("msrc21", BASELINE, image(51.99, 74.29, 29.68, 51.31)),
    Reference("msrc21", "1/1+10/10/2", image(52.33, 74.37, 30.47, 52.84)),
    Reference("msrc21", "3/3+40/10/5", image(51.76, 73.73, 32.50, 56.50)),
    Reference("msrc21-hq", BASELINE, image(45.30, 62.60, 30.65, 40.58)),
    Reference("msrc21-hq", "1/1+40/10/10", image(51.28, 63.45, 43.71, 54.00)),
    Reference("msrc21-hq", "3/3+60/20/10", image(50.21, 60.93, 42.91, 52.36)),
    Reference("brats3d-pat0003", BASELINE, dice(87.3, 62.3, 66.6)),
    Reference("brats3d-pat0003", "1/1+5/25/3", dice(89.1, 70.4, 68.4)),
    Reference("brats3d-pat0004", BASELINE, dice(92.2, 48.8, 69.2)),
    Reference("brats3d-pat0004", "1/1+5/25/3", dice(93.5, 44.4, 73.2)),
)


def gains(rows: Sequence[Quality]) -> Iterator[tuple[str, bool]]:
    """A sentence and a verdict for every reference and each contender that was measured."""
    for reference in REFERENCES:
        for contender in (BASELINE, PEER, OURS):
            for row in rows:
                key = (row.set, row.parameters, row.contender)
                if key == (reference.set, reference.parameters, contender):
                    yield _judged(row, reference)


def _judged(row: Quality, reference: Reference) -> tuple[str, bool]:
    off = {name: getattr(row, name) - stated for name, stated in reference.figures.items()}
    worst = max(off, key=lambda name: abs(off[name]))
    kept = all(abs(points) <= TOLERANCE for points in off.values())
    what = f"{row.set} {row.contender} {row.parameters}"
    return f"reference: {what}: {off[worst]:+.2f} in {worst} at the most: {_word(kept)}", kept


def _word(kept: bool) -> str:
    return "reproduced" if kept else "NOT REPRODUCED"
