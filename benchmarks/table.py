# SPDX-License-Identifier: MIT
"""Rows of the benchmark tables: medians, spread, how they print, the CSV."""

import csv
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MB = 1e6


class Machine(NamedTuple):
    """Where the numbers come from."""

    processor: str
    cores: int
    python: str
    numpy: str
    load: float  # tasks that were running when the benchmark began, averaged over a minute

    def __str__(self) -> str:
        return f"# {self.processor}, {self.cores} cores, Python {self.python}, numpy {self.numpy}"


def read_machine() -> Machine:
    """Processor, cores, versions, load."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    return Machine(processor, cores, platform.python_version(), np.__version__, load)


def median(values: Sequence[float]) -> float:
    """The median as a plain float."""
    return float(np.median(values))


def spread(values: Sequence[float]) -> float:
    """Interquartile range as a share of the median."""
    low, high = np.percentile(values, [25, 75])
    return float((high - low) / np.median(values))


def number(value: float) -> str:
    """Three digits, never as a power of ten."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


@dataclass(frozen=True)
class Row:
    """One contender on one case: times in ms, peak memory above the inputs in MB (1e6 bytes)."""

    case: str
    group: str  # the set of real cases it belongs to, else the case itself
    photo: str
    width: int
    height: int
    labels: int
    parameters: str
    iterations: int
    contender: str
    version: str
    isa: str
    threads: int
    rounds: int
    cold_ms: float
    cold_iqr: float
    warm_ms: float
    warm_iqr: float
    cold_ratio: float
    warm_ratio: float
    warm_ratio_iqr: float
    peak_mb: float
    peak_ratio: float
    labels_agree: float
    mean_dq: float
    max_dq: float
    peer: str

    @classmethod
    def of(
        cls,
        *,
        case: str,
        group: str,
        photo: str,
        size: tuple[int, int, int],
        parameters: str,
        iterations: int,
        runs: Sequence[dict[str, Any]],
        peer_runs: Sequence[dict[str, Any]],
        agreement: tuple[float, float, float],
    ) -> "Row":
        """From the workers' reports, those of the peer in the same rounds, and the agreement."""

        def ratio(key: str) -> list[float]:
            return [theirs[key] / ours[key] for ours, theirs in zip(runs, peer_runs, strict=True)]

        cold, warm, peak = ([run[key] for run in runs] for key in ("cold", "warm", "peak"))
        first, peer = runs[0], peer_runs[0]
        peer_peak = median([run["peak"] for run in peer_runs]) or float("nan")
        return cls(
            case, group, photo, *size, parameters, iterations,
            first["name"], first["version"], first["isa"], first["threads"], len(runs),
            1e3 * median(cold), spread(cold), 1e3 * median(warm), spread(warm),
            median(ratio("cold")), median(ratio("warm")), spread(ratio("warm")),
            median(peak) / MB, median(peak) / peer_peak,
            *agreement, f"{peer['name']} {peer['version']}",
        )  # fmt: skip

    def __str__(self) -> str:
        what = f"{self.case} {self.width}x{self.height} C={self.labels} it={self.iterations}"
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        who = f"refine | {what} {self.parameters} | {self.contender} {threads} {self.isa}"
        times = f"{number(self.warm_ms)} ms warm, {number(self.cold_ms)} cold"
        times += f" | {number(self.peak_mb)} MB"
        if self.peer == f"{self.contender} {self.version}":
            return f"{who} | {times}"
        spread = f"median of {self.rounds}, iqr {self.warm_ratio_iqr:.0%}"
        ratios = f"x{self.warm_ratio:.1f} warm, x{self.cold_ratio:.1f} cold vs {self.peer}"
        agreement = f"labels agree {self.labels_agree:.3%}, mean |dQ| {self.mean_dq:.0e}"
        return f"{who} | {times} (x{self.peak_ratio:.2f}) | {ratios} ({spread}) | {agreement}"


def rounded(value: Any) -> Any:
    """Six digits are more than any of these numbers has."""
    return f"{value:.6g}" if isinstance(value, float) else value


def write_csv(path: Path, rows: Sequence[Any], machine: Machine) -> None:
    """One line a row (any dataclass), the machine in its last columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*asdict(rows[0]), *machine._fields])
        for row in rows:
            writer.writerow([rounded(value) for value in (*asdict(row).values(), *machine)])
