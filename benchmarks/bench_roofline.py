# SPDX-License-Identifier: MIT
"""What the machine can do and what an iteration takes of it: ``make roofline``.

``native/machine.cpp`` measures the clock, multiply-adds and reading from sets of growing size in
loops that do nothing else. ``native/stages.cpp`` says which stages of the headline take how long.
An iteration of it is the difference between calls of 12 and of 2 iterations, over 10: what does not
belong to an iteration cancels out. ``render.py`` puts it beside the floor (``work.py``) and draws
the figure.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cases import CASES, HEADLINE, Problem, describe
from parameters import DEFAULT, ITERATIONS, PARAMETERS
from peers import VARIANTS
from table import median, read_machine, write_csv

CSV = Path(__file__).resolve().parent.parent / "build" / "roofline.csv"
FEW, MANY = 2, 12  # iterations
STAGE_REPEATS = 9
UNITS = {"clock": "Hz", "fma": "FLOP/s", "read": "B/s"}
CALL, ITERATION = "s", "s/pixel"


@dataclass(frozen=True)
class Measured:
    """One figure: of the machine, of a stage, or of a contender's iteration."""

    what: str
    isa: str
    threads: int
    labels: int  # 0: of the machine
    bytes: int  # of the set that was read, or of a vector; 0 for others
    value: float
    unit: str


def measure_machine(programs: Path, isa: str, threads: int) -> list[Measured]:
    """Clock, multiply-adds and reading, as ``machine_ISA`` prints them."""
    command = [str(programs / f"machine_{isa}"), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    words = [line.split() for line in done.stdout.splitlines()]
    return [
        Measured(what, isa, int(n_threads), 0, int(n_bytes), float(value), UNITS[what])
        for what, n_threads, n_bytes, value in words
    ]


def measure_stages(
    programs: Path, problem: Problem, isa: str, thread_counts: list[int]
) -> list[Measured]:
    """Seconds of every stage of one warm call."""
    n_labels, height, width = problem.probs.shape
    words = [f"labels={n_labels}", f"height={height}", f"width={width}"]
    words += [f"iterations={ITERATIONS}", f"repeats={STAGE_REPEATS}"]
    found = []
    with tempfile.TemporaryDirectory(prefix="crfseg-bench-") as name:
        image, probabilities = Path(name, "image"), Path(name, "probabilities")
        problem.image.astype(np.float32).tofile(image)
        problem.probs.tofile(probabilities)
        words += [f"image={image}", f"probabilities={probabilities}"]
        for threads in thread_counts:
            command = [str(programs / "stages"), *words, f"threads={threads}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines()[1:]:
                stage, seconds = line.split()
                found.append(Measured(stage, isa, threads, n_labels, 0, float(seconds), CALL))
    return found


def seconds_per_iteration(problem: Problem, name: str, threads: int, rounds: int) -> float:
    """Of a contender's warm calls, the median of the rounds."""
    import crfseg as library

    spatial, bilateral = PARAMETERS[DEFAULT]

    def call(iterations: int) -> float:
        start = time.perf_counter()
        library.refine(
            problem.probs,
            problem.image,
            kind="probs",
            spatial=spatial,
            bilateral=bilateral,
            iterations=iterations,
            threads=threads,
            **VARIANTS[name].arguments,
        )
        return time.perf_counter() - start

    call(FEW)
    return median([(call(MANY) - call(FEW)) / (MANY - FEW) for _ in range(rounds)])


def measure_iterations(
    problem: Problem, isa: str, thread_counts: list[int], rounds: int
) -> list[Measured]:
    """Seconds per pixel and iteration, full evaluation and the default."""
    n_labels, height, width = problem.probs.shape
    return [
        Measured(
            name,
            isa,
            threads,
            n_labels,
            0,
            seconds_per_iteration(problem, name, threads, rounds) / (height * width),
            ITERATION,
        )
        for name in ("crfseg full", "crfseg fast")
        for threads in thread_counts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("programs", type=Path, help="folder of the programs that CMake built")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, default=CSV, help="file to write")
    args = parser.parse_args()
    machine = read_machine()
    print(machine, flush=True)
    import crfseg as library

    isa, most = library.info()["isa"], library.get_num_threads()
    thread_counts = sorted({1, most})
    found = [m for threads in thread_counts for m in measure_machine(args.programs, isa, threads)]
    problem = CASES[HEADLINE].load()
    print(f"# {HEADLINE}: {describe(problem)}", flush=True)
    found += measure_stages(args.programs, problem, isa, thread_counts)
    found += measure_iterations(problem, isa, thread_counts, args.rounds)
    write_csv(args.csv, found, machine)
    for m in found:
        size = f" {m.bytes} bytes" if m.bytes else ""
        print(f"{m.what}{size}, {m.threads} threads: {m.value:.4g} {m.unit}")
    print(f"# rows written to {args.csv}", file=sys.stderr)


if __name__ == "__main__":
    main()
