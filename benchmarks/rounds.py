# SPDX-License-Identifier: MIT
"""Rounds: every contender once in a process of its own, in a new order each round.

The answers of a round are compared as soon as it ends: with the peer's, and those of the default
with full evaluation's.
"""

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cases import Problem
from table import median

Report = dict[str, Any]


class Entry(NamedTuple):
    """A contender as the worker is told to set it up; 0 threads are all."""

    name: str
    threads: int = 1
    isa: str = ""

    def __str__(self) -> str:
        threads = f"{self.threads or 'all'} thread{'s' * (self.threads != 1)}"
        return f"{self.name}, {threads}{self.isa and f', {self.isa}'}"


PEER = Entry("pydensecrf2")
DEFAULT_ENTRY = Entry("crfseg fast")
FULL = Entry("crfseg full")  # every pixel evaluated in every iteration


class Agreement(NamedTuple):
    """Of two Q: share of equal labels, mean and max |dQ|."""

    labels: float
    mean_dq: float
    max_dq: float

    def worst(self, other: "Agreement") -> "Agreement":
        """The worse of the two in each figure; NaN is worse than any number."""
        mean_dq, max_dq = (
            float(np.maximum(a, b)) for a, b in zip(self[1:], other[1:], strict=True)
        )
        return Agreement(min(self.labels, other.labels), mean_dq, max_dq)

    def within(self, limits: "Agreement") -> bool:
        """As close as ``limits`` asks for; NaN is not."""
        near = self.mean_dq <= limits.mean_dq and self.max_dq <= limits.max_dq
        return near and self.labels >= limits.labels

    def __str__(self) -> str:
        return (
            f"{self.labels:.4%} of the labels, |dQ| {self.mean_dq:.1e} mean, {self.max_dq:.1e} max"
        )


@dataclass
class Rounds:
    """Reports of every round by contender, and the worst agreement of any round."""

    reports: dict[Entry, list[Report]] = field(default_factory=dict)
    with_peer: dict[Entry, Agreement] = field(default_factory=dict)
    with_full: dict[Entry, Agreement] = field(default_factory=dict)

    def times_as_fast(self, entry: Entry, other: Entry) -> float:
        """Warm calls of ``entry`` against those of ``other``: the median of the rounds' ratios."""
        pairs = zip(self.reports[entry], self.reports[other], strict=True)
        return median([theirs["warm"] / ours["warm"] for ours, theirs in pairs])


def run_worker(folder: Path, entry: Entry, parameters: str, answer: Path) -> Report:
    """Measure one contender in a process of its own."""
    worker = Path(__file__).with_name("worker.py")
    words = [folder, entry.name, parameters, entry.threads, entry.isa, answer]
    done = subprocess.run(
        [sys.executable, worker, *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"[bench] {entry} failed on {parameters}:\n{done.stderr}")
    report: Report = json.loads(done.stdout)
    return report


def compare(q: Path, reference: Path) -> Agreement:
    """Agreement of two saved answers, read label by label where they are large.

    An answer of labels agrees in its labels; it has no Q to differ in.
    """
    ours, theirs = np.load(q, mmap_mode="r"), np.load(reference, mmap_mode="r")
    if ours.ndim < theirs.ndim:
        return Agreement(float((ours == theirs.argmax(0)).mean()), 0.0, 0.0)
    differences = [np.abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    mean = float(np.mean([d.mean(dtype=np.float64) for d in differences]))
    largest = max(float(d.max()) for d in differences)
    return Agreement(float((ours.argmax(0) == theirs.argmax(0)).mean()), mean, largest)


def note_agreement(rounds: Rounds, answers: dict[Entry, Path]) -> None:
    """Keep the worst that was seen of every contender."""
    for entry, answer in answers.items():
        seen = compare(answer, answers[PEER])
        rounds.with_peer[entry] = seen.worst(rounds.with_peer.get(entry, seen))
        if entry.name == DEFAULT_ENTRY.name and FULL in answers:
            seen = compare(answer, answers[FULL])
            rounds.with_full[entry] = seen.worst(rounds.with_full.get(entry, seen))


def run_rounds(
    problem: Problem, parameters: str, entries: list[Entry], n_rounds: int, order: random.Random
) -> Rounds:
    """Every contender ``n_rounds`` times."""
    rounds = Rounds({entry: [] for entry in entries})
    with tempfile.TemporaryDirectory(prefix="crfseg-bench-") as name:
        folder = Path(name)
        for what, array in problem._asdict().items():
            if array is not None:
                np.save(folder / f"{what}.npy", array)
        answers = {entry: folder / f"q{i}.npy" for i, entry in enumerate(entries)}
        for _ in range(n_rounds):
            for entry in order.sample(entries, len(entries)):
                report = run_worker(folder, entry, parameters, answers[entry])
                rounds.reports[entry].append(report)
            note_agreement(rounds, answers)
    return rounds
