# SPDX-License-Identifier: MIT
"""Instructions that the library's stages take, held to a budget: ``make instructions``.

callgrind counts what ``native/stages.cpp`` executes on a made-up image with one thread, so nothing
is timed and a busy machine changes nothing. The AVX2 kernels are forced: valgrind knows no AVX-512.
A stage that takes over 3 % more than its budget is an error; ``--record`` writes new budgets for
the compiler that is used, and leaves those of others. callgrind's files stay:
``callgrind_annotate --inclusive=yes`` says which functions took them.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

BUDGETS = Path(__file__).with_name("results") / "instructions.csv"
STAGES = ("build_spatial", "build_bilateral", "unary", "normaliser", "full_inference", "inference")
LABELS = (2, 21, 150)
TOLERANCE = 0.03
ISA = "avx2"


class Count(NamedTuple):
    """Of one stage; the columns of the budget's file."""

    compiler: str
    labels: int
    stage: str
    instructions: int

    @property
    def place(self) -> tuple[str, int, str]:
        """What the count is of."""
        return self[:3]


def read_part(text: str) -> tuple[str, int] | None:
    """Stage and instructions of one of callgrind's files; None where no stage ended."""
    stage = re.search(r"^desc: Trigger: --dump-after=stage_(\w+)$", text, re.MULTILINE)
    totals = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
    return (stage[1], int(totals[1])) if stage and totals else None


def count(program: Path, labels: int, folder: Path) -> list[Count]:
    """Run ``program`` under callgrind, which starts a file at the end of every stage."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["--collect-atstart=no", "--toggle-collect=stage_*"]
    options += [f"--dump-after=stage_{stage}" for stage in STAGES]
    options += [f"--callgrind-out-file={folder / 'callgrind.out'}"]
    done = subprocess.run(
        ["valgrind", "-q", "--tool=callgrind", *options, program, f"labels={labels}"],
        env=dict(os.environ, CRFSEG_ISA=ISA),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"[instructions] {program} failed:\n{done.stderr}")
    compiler, isa = done.stdout.splitlines()[0].rsplit(maxsplit=1)
    parts = [read_part(path.read_text()) for path in sorted(folder.iterdir())]
    found = dict(part for part in parts if part)
    if isa != ISA or found.keys() != set(STAGES) or not all(found.values()):
        sys.exit(f"[instructions] callgrind counted {found}, {isa} kernels")
    return [Count(compiler, labels, stage, found[stage]) for stage in STAGES]


def read_budgets(path: Path) -> list[Count]:
    """What was recorded, for every compiler."""
    with path.open(newline="") as file:
        return [
            Count(row["compiler"], int(row["labels"]), row["stage"], int(row["instructions"]))
            for row in csv.DictReader(file)
        ]


def record(path: Path, counts: list[Count]) -> None:
    """Replace the budgets of the compiler that ``counts`` are of."""
    others = [b for b in read_budgets(path) if b.compiler != counts[0].compiler]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Count._fields, *others, *counts])


def compare(counts: Iterable[Count], budgets: Iterable[Count]) -> tuple[list[str], bool]:
    """A line for every stage, and whether all of them keep to a budget they have."""
    recorded = {budget.place: budget.instructions for budget in budgets}
    lines, kept = [], True
    for found in counts:
        line = f"{found.labels:4} labels {found.stage:16} {found.instructions:13,}"
        if budget := recorded.get(found.place):
            change = found.instructions / budget - 1
            kept &= change <= TOLERANCE
            line += f" | budget {budget:13,} {change:+7.2%}"
            line += " EXCEEDED" * (change > TOLERANCE) + " record it" * (change < -TOLERANCE)
        lines.append(line)
    return lines, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", type=Path, help="stages, as CMake built it")
    parser.add_argument("--record", action="store_true", help="write the counts as the budgets")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("[instructions] valgrind is not installed; it is in a package of that name")
    folder = args.program.resolve().with_name("callgrind")
    counts = [c for labels in LABELS for c in count(args.program, labels, folder / str(labels))]
    budgets = read_budgets(BUDGETS)
    lines, kept = compare(counts, budgets)
    print(f"# {counts[0].compiler}, {ISA}, 160 x 120 pixels, 10 iterations", *lines, sep="\n")
    if args.record:
        record(BUDGETS, counts)
        print(f"# recorded in {BUDGETS}")
        return
    if not {c.compiler for c in counts} <= {b.compiler for b in budgets}:
        print(f"# there is no budget for {counts[0].compiler}: nothing was compared")
    if not kept:
        sys.exit(f"[instructions] over the budget by more than {TOLERANCE:.0%}; see {folder}")


if __name__ == "__main__":
    main()
