# SPDX-License-Identifier: MIT
"""Refine the demo's photograph, draw before and after, say what changed and how long it took."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crfseg import info, refine
from crfseg.demo import CLASSES, load
from crfseg.io import write_picture

CLOSE_UPS = ((138, 0), (228, 178), (340, 200))  # x, y: hair, collar and arm, shuttle's tail


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m crfseg.demo", description=__doc__)
    parser.add_argument(
        *("-o", "--out"),
        type=Path,
        default=Path("crfseg-demo.png"),
        help="the before/after picture to write, .png or .jpg (default %(default)s)",
    )
    out: Path = parser.parse_args(arguments).out
    try:
        run(out)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"crfseg.demo: error: {error}", file=sys.stderr)
        return 1
    return 0


def run(out: Path) -> None:
    """Do what the module says."""
    from crfseg.demo.picture import compose

    photo, scores = load()
    # Without a pairwise term refine() upsamples the scores and no more: the picture's "before".
    before = refine(
        scores, photo, kind="logits", spatial=None, bilateral=None, iterations=0, returns="labels"
    )
    start = time.perf_counter()
    after = refine(scores, photo, kind="logits", returns="labels")
    seconds = time.perf_counter() - start
    print(report(before, after))
    facts = info()
    print(
        f"refined {photo.shape[1]} x {photo.shape[0]} pixels with {len(CLASSES)} labels in "
        f"{seconds * 1000:.0f} ms: 10 iterations, default parameters, "
        f"{facts['threads']} thread{'s' * (facts['threads'] != 1)}, {facts['isa']}"
    )
    write_picture(out, np.asarray(compose(photo, before, after, CLASSES, CLOSE_UPS)))
    print(f"before and after: {out.resolve()}")


def report(before: NDArray[np.integer], after: NDArray[np.integer]) -> str:
    """Return a table of the pixels of each class, and the share of pixels that changed."""
    n = len(CLASSES)
    counts = zip(
        CLASSES,
        np.bincount(before.ravel(), minlength=n),
        np.bincount(after.ravel(), minlength=n),
        strict=True,
    )
    lines = [f"{'pixels of':<12}{'before':>9}{'after':>9}{'change':>9}"]
    lines += [f"{name:<12}{old:>9}{new:>9}{new - old:>+9}" for name, old, new in counts]
    changed = float(np.mean(before != after))
    return "\n".join([*lines, f"{changed:.1%} of the pixels have another label"])


if __name__ == "__main__":
    sys.exit(main())
