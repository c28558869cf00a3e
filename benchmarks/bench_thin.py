# SPDX-License-Identifier: MIT
"""What holding thin structures costs: ``python benchmarks/bench_thin.py [--rounds N]``.

``refine`` with its default kernels, with and without, in turn in one process with one thread: the
headline's 500 x 375 x 21 probabilities, and the stride-8 scores that they were made of. Processor
time, medians, and the median of the ratio within a round.
"""

import argparse
import time
from typing import Any

import crfseg
from cases import CASES, HEADLINE
from table import median, read_machine


def seconds(x: Any, image: Any, keep_thin: int, options: dict[str, Any]) -> float:
    start = time.process_time()
    crfseg.refine(x, image, keep_thin=keep_thin, threads=1, **options)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    machine = read_machine()
    print(f"# {machine.processor}, {machine.cores} cores")
    problem = CASES[HEADLINE].load()
    coarse = {"kind": "logits", "layout": "CHW", "upsample": "half-pixel"}
    for name, x, options in (
        ("probabilities of full size", problem.probs, {}),
        ("scores of stride 8", problem.scores, coarse),
    ):
        times = [
            [seconds(x, problem.image, side, options) for side in (0, 21)]
            for _ in range(rounds + 1)
        ][1:]
        without, held = (median([both[i] for both in times]) for i in (0, 1))
        ratio = median([both[1] / both[0] for both in times])
        print(f"{name}: {1e3 * without:.1f} ms, held {1e3 * held:.1f} ms, x{ratio:.2f}")


if __name__ == "__main__":
    main()
