# SPDX-License-Identifier: MIT
"""Volumes with crfseg and with pydensecrf2: ``python benchmarks/bench_volumes.py --data DIR``.

DIR holds ``brats3d``. From float32 probabilities and uint8 channels to float32 marginals, five
iterations with the parameters of the data's README. The peer is fed with the same features, which
are there before its time starts; ``refine`` makes them itself. One process per contender, volume
and round, in a new order each round; of a process' two calls the second is *warm*. A ratio is the
median over rounds of the ratio within a round, of the time that passes and of the processor's; the
latter counts where a machine is busy. Ends with an error where answers differ or the bar is missed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

import volumes
from bars import WITH_PEER
from parameters import Parameters, in_words
from rounds import Agreement, Entry, Report, compare
from table import MB, median, number, read_machine, spread, write_csv
from worker import reset_peak, resident

CSV = Path(__file__).resolve().parent.parent / "build" / "volumes.csv"
PARAMETERS = Parameters((1.0, 1.0), (5.0, 25.0, 3.0))
ITERATIONS = 5
PEER = Entry("pydensecrf2")
OURS = (Entry("crfseg"), Entry("crfseg", threads=0))
MUST = 6.0  # times as fast as the peer, with all threads
CALLS = 2


@dataclass(frozen=True)
class Timed:
    """One contender on one volume: ms of warm calls, peak memory above the inputs in MB."""

    volume: str
    size: str
    labels: int
    channels: int
    parameters: str
    iterations: int
    contender: str
    version: str
    threads: int
    rounds: int
    cold_ms: float
    warm_ms: float
    warm_iqr: float
    processor_ms: float
    ratio: float
    ratio_iqr: float
    processor_ratio: float
    peak_mb: float
    peak_ratio: float
    labels_agree: float
    mean_dq: float
    max_dq: float

    def __str__(self) -> str:
        who = f"{self.contender} {self.threads} thread{'s' * (self.threads != 1)}"
        what = f"{self.volume} {self.size} C={self.labels} K={self.channels} | {who}"
        times = f"{number(self.warm_ms)} ms warm, {number(self.processor_ms)} of the processor"
        ratios = f"x{self.ratio:.1f} (iqr {self.ratio_iqr:.0%}), x{self.processor_ratio:.1f}"
        memory = f"{self.peak_mb:.0f} MB (x{self.peak_ratio:.2f})"
        agreement = Agreement(self.labels_agree, self.mean_dq, self.max_dq)
        return f"{what} | {times} | {ratios} | {memory} | {agreement}"


def work(path: Path, name: str, threads: int, answer: Path) -> None:
    """What a process does: print one line of JSON."""
    volume = volumes.read_volume(path)
    is_peer = name == PEER.name
    given = volumes.features(volume, PARAMETERS) if is_peer else None
    before = reset_peak()
    calls: list[tuple[float, float]] = []
    for _ in range(CALLS):
        start, cpu = time.perf_counter(), time.process_time()
        if given is not None:
            q = volumes.pydensecrf2(volume, PARAMETERS, ITERATIONS, given)
        else:
            q = volumes.crfseg(volume, PARAMETERS, ITERATIONS, "fast", threads or None)
        calls.append((time.perf_counter() - start, time.process_time() - cpu))
        if len(calls) < CALLS:
            del q  # a result that is kept would count as memory of the next call
    peak = resident("VmHWM") - before
    np.save(answer, q)
    (cold, _), (warm, processor) = calls
    found = {"cold": cold, "warm": warm, "processor": processor, "peak": peak}
    package = "pydensecrf2" if is_peer else "dense-crfseg"
    used = 1 if is_peer else threads or used_threads()
    print(json.dumps({**found, "version": metadata.version(package), "threads": used}))


def used_threads() -> int:
    """All that the library takes."""
    import crfseg

    return crfseg.get_num_threads()


def run_worker(path: Path, entry: Entry, answer: Path) -> Report:
    """Measure one contender in a process of its own."""
    words = [sys.executable, __file__, "--work", path, entry.name, entry.threads, answer]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"[bench] {entry} failed on {path.name}:\n{done.stderr}")
    report: Report = json.loads(done.stdout)
    return report


def row_of(
    path: Path, entry: Entry, runs: Sequence[Report], peers: Sequence[Report], seen: Agreement
) -> Timed:
    """The medians of a contender's rounds beside the peer's."""
    volume = volumes.read_volume(path)

    def ratio(key: str) -> list[float]:
        return [theirs[key] / ours[key] for ours, theirs in zip(runs, peers, strict=True)]

    def middle(key: str) -> float:
        return median([run[key] for run in runs])

    return Timed(
        volume=volume.name,
        size="x".join(map(str, volume.target.shape)),
        labels=len(volume.probs),
        channels=len(volume.channels),
        parameters=in_words(PARAMETERS),
        iterations=ITERATIONS,
        contender=entry.name,
        version=runs[0]["version"],
        threads=runs[0]["threads"],
        rounds=len(runs),
        cold_ms=1e3 * middle("cold"),
        warm_ms=1e3 * middle("warm"),
        warm_iqr=spread([run["warm"] for run in runs]),
        processor_ms=1e3 * middle("processor"),
        ratio=median(ratio("warm")),
        ratio_iqr=spread(ratio("warm")),
        processor_ratio=median(ratio("processor")),
        peak_mb=middle("peak") / MB,
        peak_ratio=1 / median(ratio("peak")),
        labels_agree=seen.labels,
        mean_dq=seen.mean_dq,
        max_dq=seen.max_dq,
    )


def measure(path: Path, n_rounds: int, order: random.Random) -> list[Timed]:
    """The rows of a volume, the peer's first."""
    entries = [PEER, *OURS]
    reports: dict[Entry, list[Report]] = {entry: [] for entry in entries}
    with tempfile.TemporaryDirectory(prefix="crfseg-bench-") as name:
        answers = {entry: Path(name, f"q{i}.npy") for i, entry in enumerate(entries)}
        for _ in range(n_rounds):
            for entry in order.sample(entries, len(entries)):
                reports[entry].append(run_worker(path, entry, answers[entry]))
        seen = {entry: compare(answers[entry], answers[PEER]) for entry in entries}
    return [row_of(path, entry, reports[entry], reports[PEER], seen[entry]) for entry in entries]


def faults_of(rows: Sequence[Timed]) -> list[str]:
    """What differs from the peer's answers, and what is slower than it must be."""
    found = []
    for row in rows:
        who = f"{row.volume}, {row.contender}, {row.threads} threads"
        agreement = Agreement(row.labels_agree, row.mean_dq, row.max_dq)
        if not agreement.within(WITH_PEER):
            found.append(f"{who}: agrees on {agreement}")
    best = {row.volume: max(r.ratio for r in rows if r.volume == row.volume) for row in rows}
    return found + [
        f"{volume}: x{ratio:.1f}, must be x{MUST:g}"
        for volume, ratio in best.items()
        if ratio < MUST
    ]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with brats3d/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=CSV, help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the contenders")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None and args.work is None:
        parser.error("--data is missing")
    return args


def main() -> None:
    args = read_arguments()
    if args.work:
        path, name, threads, answer = args.work
        work(Path(path), name, int(threads), Path(answer))
        return
    machine = read_machine()
    print(machine, flush=True)
    if machine.load > 0.5:
        print(f"[bench] {machine.load:.1f} other tasks are running: times will be too long")
    order = random.Random(args.seed)
    rows: list[Timed] = []
    for path in volumes.paths(args.data):
        rows += measure(path, args.rounds, order)
        print(*rows[-1 - len(OURS) :], sep="\n", flush=True)
    write_csv(args.csv, rows, machine)
    print(f"# rows written to {args.csv}")
    if wrong := faults_of(rows):
        sys.exit("\n".join(["[bench]", *wrong]))


if __name__ == "__main__":
    main()
