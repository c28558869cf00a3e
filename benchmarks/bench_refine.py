# SPDX-License-Identifier: MIT
"""Time, memory and agreement of crfseg and pydensecrf2: ``python benchmarks/bench_refine.py``.

One process per contender, case and round; the order is shuffled every round. Both contenders get
the same arrays and do the same work (``peers.py``). A ratio is the median over rounds of the ratio
within a round. The answers of each round are compared; where labels agree on less than 99.85 % of
the pixels, or the mean |dQ| is above 1e-3, the run ends with an error; so does one where the
headline misses a bar (``SPEED_BARS``, and peak memory below the peer's). The rows go to a CSV file,
``build/refine.csv`` unless told otherwise.
"""

import argparse
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cases import CASES, HEADLINE, Case, Problem, RealCase, all_cases, describe
from parameters import DEFAULT, ITERATIONS, PARAMETERS
from table import Row, read_machine, write_csv

LOWEST_AGREEMENT = {"fast": 0.9985, "fine": 0.98}  # "fine" departs from the peer on purpose
HIGHEST_MEAN_DQ = {"fast": 1e-3, "fine": 1e-2}
SPEED_BARS = {1: 3.5, 2: 6.0}  # threads: times as fast as the peer, warm, on the headline
CSV = Path(__file__).resolve().parent.parent / "build" / "refine.csv"


class Entry(NamedTuple):
    """A contender as the worker is told to set it up; 0 threads are all."""

    name: str
    threads: int = 1
    isa: str = ""

    @property
    def accuracy(self) -> str:
        return self.name.removeprefix("crfseg ")


PEER = Entry("pydensecrf2")
Report = dict[str, Any]


class Agreement(NamedTuple):
    """Of a contender's Q with the peer's: share of equal labels, mean and max |dQ|."""

    labels: float
    mean_dq: float
    max_dq: float

    def worst(self, other: "Agreement") -> "Agreement":
        """The worse of the two in each figure; NaN is worse than any number."""
        mean_dq, max_dq = (
            float(np.maximum(a, b)) for a, b in zip(self[1:], other[1:], strict=True)
        )
        return Agreement(min(self.labels, other.labels), mean_dq, max_dq)


def run_worker(folder: Path, entry: Entry, parameters: str, answer: Path) -> Report:
    """Measure one contender in a process of its own."""
    worker = Path(__file__).with_name("worker.py")
    words = [folder, entry.name, parameters, entry.threads, entry.isa, answer]
    done = subprocess.run(
        [sys.executable, worker, *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"[bench] {entry.name} failed on {parameters}:\n{done.stderr}")
    report: Report = json.loads(done.stdout)
    return report


def compare(q: Path, reference: Path) -> Agreement:
    """Agreement of two saved answers, read label by label where they are large."""
    ours, theirs = np.load(q, mmap_mode="r"), np.load(reference, mmap_mode="r")
    differences = [np.abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    mean = float(np.mean([d.mean(dtype=np.float64) for d in differences]))
    largest = max(float(d.max()) for d in differences)
    return Agreement(float((ours.argmax(0) == theirs.argmax(0)).mean()), mean, largest)


def run_rounds(
    problem: Problem, parameters: str, entries: list[Entry], rounds: int, order: random.Random
) -> tuple[dict[Entry, list[Report]], dict[Entry, Agreement]]:
    """Every contender once a round, in a new order each; and the worst agreement of any round."""
    reports: dict[Entry, list[Report]] = {entry: [] for entry in entries}
    worst: dict[Entry, Agreement] = {}
    with tempfile.TemporaryDirectory(prefix="crfseg-bench-") as name:
        folder = Path(name)
        np.save(folder / "probs.npy", problem.probs)
        np.save(folder / "image.npy", problem.image)
        answers = {entry: folder / f"q{i}.npy" for i, entry in enumerate(entries)}
        for _ in range(rounds):
            for entry in order.sample(entries, len(entries)):
                report = run_worker(folder, entry, parameters, answers[entry])
                reports[entry].append(report)
            for entry in entries:
                agreement = compare(answers[entry], answers[PEER])
                worst[entry] = agreement.worst(worst.get(entry, agreement))
    return reports, worst


def rows_of(
    case: str,
    photo: str,
    problem: Problem,
    parameters: str,
    reports: dict[Entry, list[Report]],
    agreements: dict[Entry, Agreement],
) -> Iterable[Row]:
    """The table's rows of one case and parameter set, the peer's own first."""
    n_labels, height, width = problem.probs.shape
    for entry, runs in reports.items():
        yield Row.of(
            case=case,
            photo=photo,
            size=(width, height, n_labels),
            parameters=parameters,
            iterations=ITERATIONS,
            runs=runs,
            peer_runs=reports[PEER],
            agreement=agreements[entry],
        )


def disagreements(case: str, parameters: str, agreements: dict[Entry, Agreement]) -> list[str]:
    """A sentence for every contender whose answer is not the peer's."""
    return [
        f"{case} {parameters}: {entry.name} on {entry.threads or 'all'} threads {entry.isa} agrees"
        f" with {PEER.name} on {got.labels:.4%} of the labels, mean |dQ| {got.mean_dq:.1e}"
        for entry, got in agreements.items()
        if entry != PEER
        and (
            got.labels < LOWEST_AGREEMENT[entry.accuracy]
            or not got.mean_dq <= HIGHEST_MEAN_DQ[entry.accuracy]
        )
    ]


def bars(entries: Iterable[Entry], rows: Iterable[Row]) -> list[tuple[str, bool]]:
    """What the headline asks for and whether it was met, for rows whose kernels were not forced.

    A number of threads without a bar is held to the memory bar alone; where peak memory is not
    measured (no /proc) there is none.
    """
    found: list[tuple[str, bool]] = []
    for entry, row in zip(entries, rows, strict=True):
        if entry.name != "crfseg fast" or entry.isa:
            continue
        threads = f"with {row.threads} thread{'s' * (row.threads != 1)}"
        if lowest := SPEED_BARS.get(row.threads):
            text = f"{threads} at least {lowest:g} times as fast as the peer: {row.warm_ratio:.2f}"
            found.append((text, row.warm_ratio >= lowest))
        if not math.isnan(row.peak_ratio):
            text = f"{threads} peak memory below the peer's: {row.peak_ratio:.2f} of it"
            found.append((text, row.peak_ratio < 1))
    return found


def plan(args: argparse.Namespace) -> list[tuple[Case | RealCase, str]]:
    """What was asked for; else the headline on every parameter set and the others on one."""
    cases = all_cases(args.data)
    if args.quick:
        return [(cases[name], DEFAULT) for name in ("msrc", HEADLINE, "binary")]
    if args.case or args.params:
        chosen = itertools.product(args.case or cases, args.params or [DEFAULT])
        return [(cases[name], parameters) for name, parameters in chosen]
    headline = [(cases[HEADLINE], parameters) for parameters in PARAMETERS]
    return headline + [(cases[name], DEFAULT) for name in cases if name != HEADLINE]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", nargs="+", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--params", nargs="+", choices=PARAMETERS, help="kernel parameters")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0], help="0 is all cores")
    parser.add_argument("--accuracy", nargs="+", choices=LOWEST_AGREEMENT, default=["fast"])
    parser.add_argument("--isa", nargs="+", default=[""], help="instruction sets to force")
    parser.add_argument("--rounds", type=int, help="7, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="three small cases, one minute")
    parser.add_argument("--data", type=Path, help="folder with photos/, camvid/ and msrc21/")
    parser.add_argument("--csv", type=Path, default=CSV, help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the contenders")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 7)
    unknown = set(args.case or ()) - set(all_cases(args.data))
    if unknown:
        parser.error(
            f"--case {sorted(unknown)}: expected some of {', '.join(all_cases(args.data))}"
        )
    return args


def main() -> None:
    args = read_arguments()
    machine = read_machine()
    print(machine, flush=True)
    if machine.load > 0.5:
        print(f"[bench] {machine.load:.1f} other tasks are running: times will be too long")
    ours = itertools.product([f"crfseg {a}" for a in args.accuracy], args.threads, args.isa)
    one_core = os.cpu_count() == 1
    entries = [PEER, *(Entry(*who) for who in ours if not (one_core and who[1] == 0))]
    order = random.Random(args.seed)
    rows: list[Row] = []
    wrong: list[str] = []
    held: list[tuple[str, bool]] = []
    for case, parameters in plan(args):
        problem = case.load(args.data)
        print(f"# {case.name}: {case.source(args.data)}, {describe(problem)}", flush=True)
        reports, agreements = run_rounds(problem, parameters, entries, args.rounds, order)
        new = list(
            rows_of(case.name, case.source(args.data), problem, parameters, reports, agreements)
        )
        print(*new, sep="\n", flush=True)
        rows += new
        wrong += disagreements(case.name, parameters, agreements)
        if (case.name, parameters) == (HEADLINE, DEFAULT) and not args.quick:
            held += bars(entries, new)
        write_csv(args.csv, rows, machine)
    print(f"# rows written to {args.csv}")
    for text, met in held:
        print(f"bar: {HEADLINE} {DEFAULT} {text}: {'met' if met else 'MISSED'}")
    if wrong:
        print("[bench] the answers differ:", *wrong, sep="\n", file=sys.stderr)
    if wrong or not all(met for _, met in held):
        sys.exit(1)


if __name__ == "__main__":
    main()
