# SPDX-License-Identifier: MIT
"""Distance from the exact model, and what closeness costs: ``python benchmarks/bench_accuracy.py``.

On images of 160 x 120 (``small_cases.py``), where the exact mean field can be had by brute force
(``exact.py``), for pydensecrf2, crfseg's two accuracies and a grid of ``Lattice(passes=, fill=)``:
pixels whose label after 10 iterations is not the exact model's, mean |dQ|, relative L2 error of
each kernel's filter (of the probabilities, the mean over labels taken off, which does not change
Q), vertices per pixel, and milliseconds with one thread: of the whole call, and of both lattices'
making and 10 filters. Ends with an error where "fine" misses its bars.
"""

import argparse
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cases import Problem
from exact import (
    ExactBilateral,
    ExactSpatial,
    Filter,
    Floats,
    bilateral_features,
    mean_field,
    softmax,
    spatial_features,
)
from parameters import ITERATIONS, PARAMETERS, Parameters
from peers import contender, pydensecrf2_filters
from small_cases import small_problems
from table import median, read_machine, write_csv

CLIP = 1e-5  # lowest probability, as pydensecrf's unary_from_softmax has it
Fill = int | tuple[int, ...]  # of Lattice
PEER, FINE = "pydensecrf2", "crfseg fine"
CALLS = (PEER, "crfseg fast", FINE)
GRID: tuple[tuple[int, Fill], ...] = (
    *itertools.product((1, 2, 3), (0, 3, 2, 1)),
    (2, (1, 2)),
    (2, (1, 1)),
)
SETS = ("3/3+80/13/10", "3/3+50/5/10", "1/3+67/3/4")
MEDIAN_BAR, LOWEST_BAR = 3.0, 2.0  # times fewer differing labels than the peer


@dataclass(frozen=True)
class Row:
    """One choice on one image; NaN where a library does not show a figure."""

    image: str
    parameters: str
    choice: str
    differing: int
    times_fewer: float  # labels that differ from the exact model's: the peer's over ours
    mean_dq: float
    spatial_error: float
    bilateral_error: float
    spatial_vertices: float  # per pixel
    bilateral_vertices: float
    call_ms: float
    lattice_ms: float


class Reference(NamedTuple):
    """The exact model's answers: (N, C) Q, and both kernels' filters of Q_0 = softmax(-unary)."""

    unary: Floats
    q: Floats
    filtered: tuple[Floats, Floats]


class Pair(NamedTuple):
    """Both kernels' lattices, ready for the mean field, and what they cost."""

    filters: tuple[Filter, Filter]
    vertices: tuple[float, float]
    lattice_ms: float


def centred(values: Floats) -> Floats:
    """Values less their mean over labels."""
    return np.asarray(values - values.mean(1, keepdims=True), np.float32)


def error(values: Floats, exact: Floats) -> float:
    """Relative L2 error of centred values."""
    difference = np.linalg.norm(centred(values) - centred(exact))
    return float(difference / np.linalg.norm(centred(exact)))


def solve_exactly(problem: Problem, parameters: Parameters) -> Reference:
    """Brute force; frees the kernel matrix before it returns."""
    n_labels, height, width = problem.probs.shape
    unary = np.ascontiguousarray(-np.log(problem.probs.clip(CLIP, 1)).reshape(n_labels, -1).T)
    (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = parameters
    spatial = ExactSpatial(height, width, sigma)
    bilateral = ExactBilateral(bilateral_features(problem.image, sigma_xy, sigma_rgb))
    q = mean_field(unary, [(weight, spatial), (bilateral_weight, bilateral)], ITERATIONS)
    start = softmax(unary)
    return Reference(unary, q, (spatial.filter(start), bilateral.filter(start)))


def build_pair(problem: Problem, parameters: Parameters, passes: int, fill: Fill) -> Pair:
    """Lattices of both kernels, timed with their making and the filters of 10 iterations."""
    from crfseg import Lattice

    (sigma, _), (sigma_xy, sigma_rgb, _) = parameters
    n_labels, height, width = problem.probs.shape
    features = (
        spatial_features(height, width, sigma),
        bilateral_features(problem.image, sigma_xy, sigma_rgb),
    )
    values = np.ascontiguousarray(problem.probs.reshape(n_labels, -1).T)
    start = time.perf_counter()
    spatial, bilateral = (
        Lattice(f, passes=passes, fill=fill, normalization="symmetric", threads=1) for f in features
    )
    for _ in range(ITERATIONS):
        spatial.filter(values)
        bilateral.filter(values)
    seconds = time.perf_counter() - start
    vertices = (spatial.n_vertices / len(values), bilateral.n_vertices / len(values))
    return Pair((spatial, bilateral), vertices, 1e3 * seconds)


class Judge:
    """Makes rows for one image and parameter set."""

    def __init__(self, image: str, problem: Problem, parameters: str) -> None:
        self.image, self.problem, self.name = image, problem, parameters
        self.parameters = PARAMETERS[parameters]
        self.exact = solve_exactly(problem, self.parameters)
        self.labels = self.exact.q.argmax(1)
        self.peer_differing = 0

    def row(
        self,
        choice: str,
        q: Floats,
        filtered: Iterable[Floats],
        pair: Pair | None = None,
        call_ms: float = np.nan,
    ) -> Row:
        differing = int((q.argmax(1) != self.labels).sum())
        if choice == PEER:
            self.peer_differing = differing
        spatial, bilateral = map(error, filtered, self.exact.filtered)
        return Row(
            self.image,
            self.name,
            choice,
            differing,
            self.peer_differing / max(differing, 1),
            float(np.abs(q - self.exact.q).mean()),
            spatial,
            bilateral,
            *(pair.vertices if pair else (np.nan, np.nan)),
            call_ms,
            pair.lattice_ms if pair else np.nan,
        )

    def call(self, choice: str) -> Row:
        """A library's own whole call, its second: the first one pays for start-up."""
        who = contender(choice, threads=1, isa=None)
        for _ in range(2):
            start = time.perf_counter()
            q = who.refine(self.problem.probs, self.problem.image, self.parameters)
            seconds = time.perf_counter() - start
        flat = np.ascontiguousarray(q.reshape(len(q), -1).T)
        if choice == PEER:
            filtered = pydensecrf2_filters(self.exact.unary, self.problem.image, self.parameters)
            return self.row(choice, flat, filtered, None, 1e3 * seconds)
        from crfseg.lattice import ACCURACIES

        accuracy = ACCURACIES[choice.removeprefix("crfseg ")]
        pair = build_pair(self.problem, self.parameters, accuracy.passes, accuracy.fill)
        return self.row(choice, flat, self._filtered(pair), pair, 1e3 * seconds)

    def lattices(self, passes: int, fill: Fill) -> Row:
        """The same mean field on lattices that no accuracy of refine() may stand for."""
        pair = build_pair(self.problem, self.parameters, passes, fill)
        (_, weight), (_, _, bilateral_weight) = self.parameters
        kernels = list(zip((weight, bilateral_weight), pair.filters, strict=True))
        q = mean_field(self.exact.unary, kernels, ITERATIONS)
        return self.row(f"passes={passes} fill={fill}", q, self._filtered(pair), pair)

    def _filtered(self, pair: Pair) -> list[Floats]:
        start = softmax(self.exact.unary)
        return [lattice.filter(start) for lattice in pair.filters]


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """All rows, image by image, the peer's first."""
    problems = itertools.islice(small_problems(args.data), args.images)
    for (image, problem), parameters in itertools.product(problems, args.params):
        judge = Judge(image, problem, parameters)
        yield from map(judge.call, CALLS)
        if not args.no_grid:
            yield from itertools.starmap(judge.lattices, GRID)


def print_row(row: Row) -> None:
    vertices = f"{row.spatial_vertices:.2f} + {row.bilateral_vertices:.2f}"
    print(
        f"accuracy | {row.image} {row.parameters} | {row.choice} | {row.differing} labels differ"
        f" (x{row.times_fewer:.2f} fewer), mean |dQ| {row.mean_dq:.1e} | filter error"
        f" {row.spatial_error:.2%} + {row.bilateral_error:.2%} | vertices per pixel {vertices} |"
        f" call {row.call_ms:.0f} ms, lattices {row.lattice_ms:.0f} ms",
        flush=True,
    )


def print_summary(rows: list[Row]) -> None:
    """One line a choice: medians over images and parameter sets."""
    by_choice: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_choice[row.choice].append(row)
    heads = ("choice", "labels differ", "times fewer: median (lowest)", "mean dQ", "error 2-D")
    more = ("error 5-D", "vertices per pixel 5-D", "call ms", "lattices ms")
    print(f"\n| {' | '.join(heads + more)} |\n{'|---' * len(heads + more)}|")
    for choice, chosen in by_choice.items():
        fewer = [row.times_fewer for row in chosen]
        names = ("mean_dq", "spatial_error", "bilateral_error", "bilateral_vertices")
        dq, spatial, bilateral, vertices = (median([getattr(r, n) for r in chosen]) for n in names)
        call, lattice = (median([getattr(r, n) for r in chosen]) for n in ("call_ms", "lattice_ms"))
        print(
            f"| {choice} | {sum(r.differing for r in chosen)} | {median(fewer):.2f}"
            f" ({min(fewer):.2f}) | {dq:.1e} | {spatial:.2%} | {bilateral:.2%} | {vertices:.2f}"
            f" | {call:.0f} | {lattice:.0f} |"
        )


def check_bars(rows: list[Row]) -> None:
    """The last line: how many times fewer labels differ under "fine" than under the peer."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        counts[row.image][row.choice] += row.differing
    fewer = [count[PEER] / max(count[FINE], 1) for count in counts.values()]
    pairs = [row.times_fewer for row in rows if row.choice == FINE]
    print(
        f"\nover {len(pairs)} pairs of image and parameters: fine has x{median(pairs):.2f}", end=""
    )
    print(f" fewer differing labels than {PEER} (median), x{min(pairs):.2f} (lowest)")
    print(f"over {len(fewer)} images: x{median(fewer):.2f} (median), x{min(fewer):.2f} (lowest)")
    if median(fewer) < MEDIAN_BAR or min(fewer) < LOWEST_BAR:
        sys.exit(f"[bench] expected x{MEDIAN_BAR} (median) and x{LOWEST_BAR} (lowest)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", nargs="+", choices=PARAMETERS, default=SETS)
    parser.add_argument("--images", type=int, help="stop after so many (all)")
    parser.add_argument("--no-grid", action="store_true", help="only whole calls")
    parser.add_argument("--data", type=Path, help="folder with photos/, camvid/ and msrc21/")
    parser.add_argument("--csv", type=Path, help="file to write")
    args = parser.parse_args()
    machine = read_machine()
    print(machine, flush=True)
    rows: list[Row] = []
    for row in measure(args):
        print_row(row)
        rows.append(row)
    if args.csv:
        write_csv(args.csv, rows, machine)
    print_summary(rows)
    check_bars(rows)


if __name__ == "__main__":
    main()
