# SPDX-License-Identifier: MIT
"""One program with either library's modules: ``python benchmarks/bench_compat.py``.

The customary lines of a pydensecrf program, from float32 probabilities to an array of marginals,
run with pydensecrf2 and with ``crfseg.compat.pydensecrf`` in turn, in one process, part by part. A
ratio is the median over rounds of the ratio within a round; a case's first round is not counted.
With one thread it is the processor's time that counts, with more the time that passes.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import crfseg
from cases import CASES, HEADLINE, Problem, describe
from parameters import DEFAULT, ITERATIONS, PARAMETERS, Parameters
from rounds import Agreement
from table import median, read_machine

PEER, OURS = "pydensecrf", "crfseg.compat.pydensecrf"
PARTS = ("unary", "kernels", "inference", "labels", "all")
LABELS_EQUAL, MEAN_DQ = 0.9985, 1e-3


Modules = tuple[ModuleType, ModuleType]
Clock = Callable[[], float]


class Run(NamedTuple):
    seconds: NDArray[np.float64]  # of PARTS
    q: NDArray[np.float32]  # (C, N)


def modules_of(package: str) -> Modules:
    """Its ``densecrf`` and ``utils``."""
    return import_module(f"{package}.densecrf"), import_module(f"{package}.utils")


def run(modules: Modules, problem: Problem, parameters: Parameters, clock: Clock) -> Run:
    """The program, with a look at the clock between its parts."""
    densecrf, utils = modules
    n_labels, height, width = problem.probs.shape
    (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = parameters
    times = [clock()]
    crf = densecrf.DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(utils.unary_from_softmax(problem.probs))
    times.append(clock())
    crf.addPairwiseGaussian(sxy=sigma, compat=weight)
    crf.addPairwiseBilateral(
        sxy=sigma_xy, srgb=sigma_rgb, rgbim=problem.image, compat=bilateral_weight
    )
    times.append(clock())
    q = np.array(crf.inference(ITERATIONS))
    times.append(clock())
    np.argmax(q, axis=0).reshape(height, width)
    times.append(clock())
    return Run(np.array([*np.diff(times), times[-1] - times[0]]), q)


def agreement(ours: Run, theirs: Run) -> Agreement:
    """Of the two answers."""
    difference = np.abs(ours.q - theirs.q)
    labels = float((ours.q.argmax(0) == theirs.q.argmax(0)).mean())
    return Agreement(labels, float(difference.mean()), float(difference.max()))


def measure(problem: Problem, parameters: str, threads: int, n_rounds: int) -> bool:
    """Print one line per part; whether the answers agree."""
    crfseg.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    both = modules_of(OURS), modules_of(PEER)
    rounds = [
        [run(modules, problem, PARAMETERS[parameters], clock) for modules in both]
        for _ in range(n_rounds + 1)
    ]
    print(f"{parameters}, {threads} thread{'s' * (threads != 1)}, median of {n_rounds} rounds:")
    for i, part in enumerate(PARTS):
        mine, peers = ([pair[who].seconds[i] for pair in rounds[1:]] for who in (0, 1))
        ratio = median([b / a for a, b in zip(mine, peers, strict=True)])
        print(
            f"  {part:10} {1e3 * median(peers):8.2f} ms {1e3 * median(mine):8.2f} ms x{ratio:.1f}"
        )
    found = agreement(*rounds[-1])
    print(f"  agreement on {found}", flush=True)
    return found.labels >= LABELS_EQUAL and found.mean_dq < MEAN_DQ


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=[HEADLINE])
    parser.add_argument("--params", nargs="+", choices=PARAMETERS, default=[DEFAULT])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with photos/")
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    print(read_machine())
    agree = True
    for name in args.case:
        problem = CASES[name].load(args.data)
        problem = problem._replace(image=problem.image.copy())  # the peer wants it writeable
        print(f"# {name}: {describe(problem)}", flush=True)
        for parameters in args.params:
            for threads in dict.fromkeys(args.threads):
                agree &= measure(problem, parameters, threads, args.rounds)
    if not agree:
        sys.exit("[bench] the answers differ")


if __name__ == "__main__":
    main()
