# SPDX-License-Identifier: MIT
"""Times of what is put on the device's stream: CUDA events; where there is no device, seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from table import median, spread

RUNS = 50
WARM_UP = 5
SECONDS = 6.0  # that the runs of one measurement may take


@dataclass(frozen=True)
class Timing:
    """Medians in ms: of calls that find the device idle, and of calls behind each other."""

    ms: float
    iqr: float
    back_to_back_ms: float


def timed(work: Callable[[int], object], device: str, runs: int = RUNS) -> Timing:
    """``work(i)`` is the i-th call, for other inputs in turn.

    A call's time begins when it is made: what the host does before its first launch is part of it.
    """
    start = time.perf_counter()
    for i in range(WARM_UP):
        work(i)
        synchronize(device)
    runs = max(3, min(runs, int(WARM_UP * SECONDS / (time.perf_counter() - start + 1e-9))))
    each = [between(lambda i=i: work(i), device) for i in range(runs)]

    def all_runs() -> None:
        for i in range(runs):
            work(i)

    return Timing(median(each), spread(each), between(all_runs, device) / runs)


def between(work: Callable[[], object], device: str) -> float:
    """Milliseconds from the call to the end of all it put on the stream."""
    synchronize(device)
    if device == "cpu":
        begin = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - begin)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last))


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
