# SPDX-License-Identifier: MIT
"""ncu over `gpu.profiled`: how near the heaviest kernels come to the device's limits."""

import csv
from dataclasses import dataclass

from gpu.facts import find_program
from gpu.report import LeftOut
from gpu.sections import Context
from gpu.tools import watch

HEAVIEST = 3
ALL = ("--target-processes", "all")
SECONDS = 110
TO_US = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3}
DURATION = "Duration"
SHARES = {
    "Compute (SM) Throughput": "compute",
    "Memory Throughput": "memory",
    "L1/TEX Cache Throughput": "L1",
    "L2 Cache Throughput": "L2",
    "DRAM Throughput": "DRAM",
}


@dataclass
class Launch:
    """A kernel's launch: microseconds, and shares of what the device can do, in per cent."""

    kernel: str
    us: float
    shares: dict[str, float]


def run(context: Context) -> None:
    program = find_program("ncu")
    if program is None:
        raise LeftOut("ncu is not there")
    command = [program, "--section", "SpeedOfLight", "--csv", "--clock-control", "none", *ALL]
    done = watch(context, command, "gpu.profiled", SECONDS)
    if "ERR_NVGPUCTRPERM" in done.printed:
        raise LeftOut("ncu may not read counters here (ERR_NVGPUCTRPERM)")
    launches = launches_of(done.printed)
    if not launches:
        print(done.printed[-4000:])
        raise LeftOut(f"ncu told of no kernel, exit status {done.code}")
    for kernel, of_kernel in heaviest(launches):
        describe(context, kernel, of_kernel)


def launches_of(printed: str) -> list[Launch]:
    """From the CSV that ncu prints, a line for each metric of a launch, among other lines."""
    lines = printed.splitlines()
    begins = [i for i, line in enumerate(lines) if line.startswith('"ID"')]
    if not begins:
        return []
    found: dict[str, Launch] = {}
    for row in csv.DictReader(line for line in lines[begins[0] :] if line.startswith('"')):
        launch = found.setdefault(row["ID"], Launch(row["Kernel Name"], 0.0, {}))
        name, unit = row["Metric Name"], row["Metric Unit"]
        value = (row["Metric Value"] or "").replace(",", "")
        if name == DURATION:
            launch.us = float(value) * TO_US.get(unit, 1.0)
        elif name in SHARES and unit == "%":
            launch.shares[SHARES[name]] = float(value)
    return list(found.values())


def heaviest(launches: list[Launch]) -> list[tuple[str, list[Launch]]]:
    """The kernels that take the most time over all their launches."""
    by_kernel: dict[str, list[Launch]] = {}
    for launch in launches:
        by_kernel.setdefault(launch.kernel, []).append(launch)
    ordered = sorted(by_kernel.items(), key=lambda pair: -sum(one.us for one in pair[1]))
    return ordered[:HEAVIEST]


def short(kernel: str) -> str:
    """A kernel's name and what its template was given."""
    return without_arguments(kernel).removeprefix("void ").replace("crfseg::cuda::", "")


def without_arguments(kernel: str) -> str:
    """``void name<(int)4>`` of ``void name<(int)4>(float *)``."""
    depth = 0
    for i in reversed(range(len(kernel))):
        depth += (kernel[i] == ")") - (kernel[i] == "(")
        if depth == 0:
            return kernel[:i] if kernel[i] == "(" else kernel
    return kernel


def describe(context: Context, kernel: str, launches: list[Launch]) -> None:
    """Shares of a kernel, by time over its launches."""
    us = sum(launch.us for launch in launches)
    name = short(kernel)
    context.report.measured(f"{name}, us", us, f"in {len(launches)} launches")
    for share in SHARES.values():
        known = [one for one in launches if share in one.shares]
        if known:
            spent = sum(one.us for one in known) or 1.0
            mean = sum(one.us * one.shares[share] for one in known) / spent
            context.report.measured(f"{name}, {share}", mean, "% of what the device can do")
