# SPDX-License-Identifier: MIT
"""What the device can do at most, by torch's own kernels: copies, reads of L2, launches, sorts."""

from collections.abc import Callable

import torch

from gpu.clock import between, timed
from gpu.sections import Context
from gpu.streams import captured

GB, MB = 1e9, 1e6
IN_L2 = 20 * MB
READS = 64  # of the buffer, by one kernel
LAUNCHES = 1000
SORTED = {"179 K": 178_609, "1.1 M": 1_125_000, "24.6 M": 24_576_000}


def run(context: Context) -> None:
    found = torch.cuda.get_device_properties(0)
    context.report.measured("multiprocessors", found.multi_processor_count, "")
    context.report.measured("L2 cache, MB", getattr(found, "L2_cache_size", 0) / MB, "")
    for what, check in (
        ("copy", copy_rate),
        ("reads of L2", l2_rate),
        ("launches", launch_gaps),
        ("sorts", sort_rates),
    ):
        with context.report.part(what):
            check(context)


def copy_rate(context: Context) -> None:
    """Bytes read and written, of buffers far larger than the L2 cache."""
    source = torch.empty(int(GB) // 4, device="cuda").normal_()
    target = torch.empty_like(source)
    ms = timed(lambda _: target.copy_(source), "cuda", 20).back_to_back_ms
    context.report.measured("copy, GB/s", 2 * 4 * source.numel() / ms / MB, "")


def l2_rate(context: Context) -> None:
    """A buffer of 20 MB, summed many times over by one kernel: at least what L2 gives."""
    buffer = torch.ones(int(IN_L2) // 4, device="cuda")
    many = buffer.expand(READS, -1)
    ms = timed(lambda _: many.sum(1), "cuda", 20).back_to_back_ms
    context.report.measured("read of 20 MB, GB/s", READS * IN_L2 / ms / MB, "(by torch's sum)")


def launch_gaps(context: Context) -> None:
    """Kernels that do next to nothing, behind each other."""
    one = torch.zeros(1, device="cuda")

    def many() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    graph = captured(many)
    for name, work in (("on a stream", many), ("in a graph", graph.replay)):
        best = min(between(work, "cuda") for _ in range(5))
        context.report.measured(f"launch {name}, us", 1e3 * best / LAUNCHES, "")


def sort_rates(context: Context) -> None:
    for name, n in SORTED.items():
        for bits, dtype in ((32, torch.int32), (64, torch.int64)):
            keys = torch.randint(0, 2**31 - 1, (n,), device="cuda").to(dtype)
            work: Callable[[int], object] = lambda _, keys=keys: torch.sort(keys)  # noqa: E731
            ms = timed(work, "cuda", 10).back_to_back_ms
            context.report.measured(f"sort of {name} keys of {bits} bits, ms", ms, "(with indices)")
