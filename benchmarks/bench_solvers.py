# SPDX-License-Identifier: MIT
"""What solvers reach, and in what time: ``python benchmarks/bench_solvers.py --data DIR``.

Real network outputs (CamVid val, MSRC-21 dev) are refined by every solver of one energy with
several numbers of iterations. Energies are per 1000 pixels, less mean field's after 10 iterations:
the relaxed energy E(Q) that all of them lower, the free energy that mean field lowers, and the
energy of the most probable labels. Scores are of those labels, over all images together; the band
is where a label boundary is within about 5 pixels. Solvers take turns image by image; milliseconds
are of an inference on lattices that are there, medians over images.

The last set's model has labels that repel: its scores say nothing, its energies which solvers
still go down.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cases import RealCase, real_cases
from crfseg import Bilateral, DenseCRF, FrankWolfe, Gaussian, MeanField, unary_from_probs
from parameters import DEFAULT, PARAMETERS, Parameters
from table import median, number, read_machine, write_csv

SOLVERS: dict[str, MeanField | FrankWolfe] = {
    "mean field": MeanField(),
    "mean field, damped by 0.5": MeanField(0.5),
    "entropic, 2/(k+2)": FrankWolfe("entropy", "diminishing"),
    "entropic, line search": FrankWolfe("entropy", "line-search"),
    "entropic, strength 0.5": FrankWolfe("entropy", 1.0, 0.5),
    "Euclidean": FrankWolfe("euclidean", 1.0),
    "Euclidean, 2/(k+2)": FrankWolfe("euclidean", "diminishing"),
    "Euclidean, line search": FrankWolfe("euclidean", "line-search"),
}
MEAN_FIELD = "mean field"
ITERATIONS = (1, 2, 3, 5, 10, 20)
LONG = 10  # iterations of mean field that energies are compared with
REPELLING = "1/1+10/5/3, repelling"
SETS: dict[str, dict[str, Parameters]] = {
    "camvid": {
        DEFAULT: PARAMETERS[DEFAULT],
        "1/1+10/5/3": Parameters((1.0, 1.0), (10.0, 5.0, 3.0)),
        REPELLING: Parameters((1.0, 1.0), (10.0, 5.0, 3.0)),
    },
    "msrc21": {
        DEFAULT: PARAMETERS[DEFAULT],
        "1/1+40/10/10": Parameters((1.0, 1.0), (40.0, 10.0, 10.0)),
    },
}
VOID = 255
Labels = NDArray[np.uint8]
Key = tuple[str, str, str, int]  # set, parameters, solver, iterations


@dataclass(frozen=True)
class Solved:
    """One solver with one number of iterations, over the images of a set."""

    group: str
    parameters: str
    solver: str
    iterations: int
    images: int
    relaxed: float
    free: float
    discrete: float
    miou: float
    accuracy: float
    band: float
    ms: float


@dataclass
class Tally:
    """What is added up image by image."""

    confusion: NDArray[np.int64]
    band: NDArray[np.int64]
    energies: list[tuple[float, float, float]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, n_labels: int) -> "Tally":
        return cls(*(np.zeros((n_labels, n_labels), np.int64) for _ in range(2)))

    def row(self, key: Key) -> Solved:
        relaxed, free, discrete = np.mean(self.energies, axis=0)
        agree = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - agree
        miou = float((agree[union > 0] / union[union > 0]).mean())
        shares = [float(np.trace(counts) / counts.sum()) for counts in (self.confusion, self.band)]
        energies = (float(relaxed), float(free), float(discrete))
        return Solved(*key, len(self.ms), *energies, miou, *shares, median(self.ms))


def confusion(truth: Labels, found: NDArray[np.intp], n_labels: int) -> NDArray[np.int64]:
    """(true label, found label) counts."""
    counts = np.bincount(truth.astype(np.intp) * n_labels + found, minlength=n_labels**2)
    return counts.reshape(n_labels, n_labels)


def near_boundaries(truth: Labels) -> NDArray[np.bool_]:
    """Where a 3 x 3 neighbourhood has several labels, and four pixels around."""
    mixed = ndimage.maximum_filter(truth, 3) != ndimage.minimum_filter(truth, 3)
    return np.asarray(ndimage.binary_dilation(mixed, np.ones((3, 3)), iterations=4), bool)


def read_truth(case: RealCase) -> Labels:
    """The labels that belong to the image of a case."""
    file = case.image_file.parent.parent / "labels" / f"{case.image_file.stem}.png"
    with Image.open(file) as image:
        return np.asarray(image, np.uint8)


def measure(case: RealCase, tallies: dict[Key, Tally]) -> None:
    """Every solver on one image; each is run once untimed, for memory to be there."""
    problem, truth = case.load(), read_truth(case)
    n_labels, band, known = len(problem.probs), near_boundaries(truth), truth != VOID
    unary = unary_from_probs(problem.probs)
    for name, ((sigma, weight), bilateral) in SETS[case.group].items():
        terms = [Gaussian(sigma, weight), Bilateral(problem.image, *bilateral)]
        mu = np.eye(n_labels) if name == REPELLING else None  # it costs to agree
        crf = DenseCRF(unary, terms, compatibility=mu)
        base = np.array(energies_of(crf, crf.infer(LONG).q))
        for solver_name, solver in SOLVERS.items():
            crf.infer(1, solver=solver)
            for iterations in ITERATIONS:
                start = perf_counter()
                q = crf.infer(iterations, solver=solver).q
                seconds = perf_counter() - start
                labels = q.argmax(axis=0)
                tally = tallies[case.group, name, solver_name, iterations]
                tally.ms.append(1e3 * seconds)
                relative = (np.array(energies_of(crf, q)) - base) * 1000 / truth.size
                tally.energies.append((relative[0], relative[1], relative[2]))
                tally.confusion += confusion(truth[known], labels[known], n_labels)
                tally.band += confusion(truth[known & band], labels[known & band], n_labels)


def energies_of(crf: DenseCRF, q: NDArray[np.float32]) -> tuple[float, float, float]:
    """Relaxed, free and of the most probable labels."""
    return crf.expected_energy(q), crf.free_energy(q), crf.energy(q.argmax(axis=0))


def solve_all(cases: list[RealCase]) -> Iterator[Solved]:
    """Rows set by set, as they are listed above."""
    for group, parameters in SETS.items():
        chosen = [case for case in cases if case.group == group]
        n_labels = len(chosen[0].load().probs)
        tallies = {
            (group, name, solver, iterations): Tally.empty(n_labels)
            for name in parameters
            for solver in SOLVERS
            for iterations in ITERATIONS
        }
        for case in chosen:
            measure(case, tallies)
        for key, tally in tallies.items():
            yield tally.row(key)


def print_row(row: Solved) -> None:
    print(
        f"solvers | {row.group}, {row.images} images, {row.parameters} | {row.solver},"
        f" {row.iterations} iterations | energy: relaxed {row.relaxed:+.2f}, free {row.free:+.2f},"
        f" of labels {row.discrete:+.2f} | mIoU {row.miou:.2%}, accuracy {row.accuracy:.2%},"
        f" in the band {row.band:.2%} | {number(row.ms)} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with camvid/ and msrc21/")
    parser.add_argument("--every", type=int, default=8, help="take every so manieth image (8)")
    parser.add_argument("--csv", type=Path, help="file to write")
    args = parser.parse_args()
    machine = read_machine()
    print(machine, flush=True)
    rows = list(solve_all(list(real_cases(args.data, args.every, args.every))))
    for row in rows:
        print_row(row)
    if args.csv:
        write_csv(args.csv, rows, machine)


if __name__ == "__main__":
    main()
