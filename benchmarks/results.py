# SPDX-License-Identifier: MIT
"""What runs have left in ``benchmarks/results``, read back as the rows they were."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from bench_instructions import Count, read_budgets
from bench_roofline import CALL, ITERATION, Measured
from bench_solvers import LONG, MEAN_FIELD, Solved
from qualities import Quality
from table import Row
from training import Joint, Trained
from verdict import Verdict

T = TypeVar("T", Row, Verdict, Measured, Trained, Joint, Solved, Quality)
READERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda word: word == "True",
}


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Rows of a dataclass as `table.write_csv` wrote them; none where there is no such file."""
    if not path.exists():
        return []

    def value(name: str, type_: Any, row: dict[str, str]) -> Any:
        return READERS[getattr(type_, "__name__", type_)](row[name])

    with path.open(newline="") as file:
        return [
            kind(**{f.name: value(f.name, f.type, row) for f in fields(kind)})
            for row in csv.DictReader(file)
        ]


@dataclass(frozen=True)
class Results:
    """Everything that tables are made of."""

    rows: list[Row]
    verdicts: list[Verdict]
    measured: list[Measured]
    counts: list[Count]
    trained: list[Trained]
    joint: list[Joint]
    solved: list[Solved]
    qualities: list[Quality]

    @classmethod
    def read(cls, folder: Path) -> "Results":
        return cls(
            read_rows(folder / "refine.csv", Row),
            read_rows(folder / "bars.csv", Verdict),
            read_rows(folder / "roofline.csv", Measured),
            read_budgets(folder / "instructions.csv"),
            read_rows(folder / "torch.csv", Trained),
            read_rows(folder / "joint_training.csv", Joint),
            read_rows(folder / "solvers.csv", Solved),
            read_rows(folder / "quality.csv", Quality),
        )

    def machine(self, threads: int) -> list[Measured]:
        """What was measured of the machine itself."""
        return [m for m in self.measured if not m.labels and m.threads == threads]

    def stages(self) -> list[Measured]:
        """Seconds of the headline's stages."""
        return [m for m in self.measured if m.unit == CALL]

    def iterations(self) -> list[Measured]:
        """Seconds per pixel of the headline's iterations."""
        return [m for m in self.measured if m.unit == ITERATION]

    def solvers(self) -> dict[tuple[str, str], dict[str, list[Solved]]]:
        """Rows by set and parameters, then by solver, in the order they were measured."""
        found: dict[tuple[str, str], dict[str, list[Solved]]] = {}
        for row in self.solved:
            by_solver = found.setdefault((row.group, row.parameters), {})
            by_solver.setdefault(row.solver, []).append(row)
        return found

    def groups(self) -> dict[tuple[str, str], list[Row]]:
        """Rows by case, or set of real cases, and parameters, in the order they were measured."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.group, row.parameters), []).append(row)
        return found


def of(rows: Iterable[Row], contender: str, threads: int, isa: str | None = None) -> list[Row]:
    """The rows of a contender; without ``isa`` on the best instruction set it ran with."""
    chosen = [row for row in rows if (row.contender, row.threads) == (contender, threads)]
    return [row for row in chosen if row.isa == (isa or chosen[0].isa)]


def as_long(solvers: dict[str, list[Solved]]) -> list[Solved]:
    """Each solver as far as it comes in the time of mean field's ten iterations, or nearly so."""
    (limit,) = (row.ms for row in solvers[MEAN_FIELD] if row.iterations == LONG)
    return [
        max([rows[0], *(row for row in rows if row.ms <= 1.1 * limit)], key=lambda r: r.iterations)
        for rows in solvers.values()
    ]
