# SPDX-License-Identifier: MIT
"""What the library is held to: every bar as data, and the verdicts on what was measured.

A bar has a must, which ends a run with an error where it is missed, and some an aim. Bars are for
the library as it is by default, warm, unless they say otherwise.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cases import HEADLINE, TINY
from parameters import DEFAULT
from rounds import DEFAULT_ENTRY, FULL, PEER, Agreement, Entry, Rounds
from table import Row, median
from verdict import Verdict


class Bar(NamedTuple):
    """Times as fast as the peer, at least."""

    must: float
    aim: float


# (case or set of real cases, parameters) -> threads -> bar
SPEED: dict[tuple[str, str], dict[int, Bar]] = {
    (HEADLINE, DEFAULT): {1: Bar(6, 10), 2: Bar(11, 20)},
    (HEADLINE, "3/3+50/5/10"): {1: Bar(4.5, 7), 2: Bar(8, 14)},
    (HEADLINE, "1/3+67/3/4"): {1: Bar(4.5, 7), 2: Bar(8, 14)},
    ("msrc", DEFAULT): {1: Bar(5, 9), 2: Bar(9, 18)},
    ("large", DEFAULT): {1: Bar(5, 9), 2: Bar(9, 18)},
    ("cityscapes", DEFAULT): {1: Bar(5, 9), 2: Bar(9, 18)},
    ("ade20k", DEFAULT): {1: Bar(8, 25), 2: Bar(14, 50)},
    ("binary", DEFAULT): {1: Bar(7, 10), 2: Bar(11, 20)},
    ("camvid", DEFAULT): {1: Bar(5, 8), 2: Bar(9, 16)},
    ("msrc21", DEFAULT): {1: Bar(5, 8), 2: Bar(9, 16)},
}
PEAK_MEMORY = 0.5  # of the peer's, at most, on every case
TINY_MS = 0.3  # a call on the smallest image, whatever the peer takes
SKIPPING = 0.95  # times as fast as full evaluation, at least, on every case
# On the headline with one thread:
FINE = 2.5  # accuracy="fine": times as fast as the peer
BASELINE = 2.5  # baseline instructions: times as fast as the peer
AVX2 = 0.8  # AVX2's share of AVX-512's speed

# "fine" departs from the peer on purpose; leaving labels out is held to full evaluation.
WITH_PEER = Agreement(0.9985, 1e-3, 1.0)
FINE_WITH_PEER = Agreement(0.98, 1e-2, 1.0)
WITH_FULL = Agreement(0.9999, 1e-5, 5e-4)


@dataclass(frozen=True)
class Outcome:
    """One case and parameter set, measured: a row for every contender, in their order."""

    case: str
    group: str  # the set a real case belongs to, else the case
    parameters: str
    rounds: Rounds
    rows: tuple[Row, ...]

    def row(self, entry: Entry) -> Row | None:
        """The row of ``entry`` if it ran."""
        return dict(zip(self.rounds.reports, self.rows, strict=True)).get(entry)

    def default_rows(self) -> list[Row]:
        """Of the library as it is by default, for any number of threads."""
        pairs = zip(self.rounds.reports, self.rows, strict=True)
        return [row for entry, row in pairs if is_default(entry)]


def is_default(entry: Entry) -> bool:
    """The library as it is by default, its kernels not forced."""
    return entry.name == DEFAULT_ENTRY.name and not entry.isa


def with_threads(n_threads: int) -> str:
    return f"{n_threads} thread{'s' * (n_threads != 1)}"


def speed_verdicts(outcomes: Iterable[Outcome]) -> Iterator[Verdict]:
    """Ratios to the peer; a set of real cases is judged by the median of its images."""
    ratios: dict[tuple[str, str, int], list[float]] = {}
    for outcome in outcomes:
        for row in outcome.default_rows():
            where = (outcome.group, outcome.parameters, row.threads)
            ratios.setdefault(where, []).append(row.warm_ratio)
    for (group, parameters, threads), found in ratios.items():
        if bar := SPEED.get((group, parameters), {}).get(threads):
            images = f" ({len(found)} images, {min(found):.2f} to {max(found):.2f})"
            what = f"{group} {parameters}, {with_threads(threads)}, times as fast as the peer"
            yield Verdict(what + images * (len(found) > 1), median(found), *bar)


def case_verdicts(outcome: Outcome) -> Iterator[Verdict]:
    """What every case is held to: memory where it can be measured, the cost of leaving out."""
    where = f"{outcome.case} {outcome.parameters}"
    for row in outcome.default_rows():
        threads = with_threads(row.threads)
        if outcome.case == TINY:
            yield Verdict(f"{where}, {threads}, ms", row.warm_ms, TINY_MS, at_most=True)
        elif not math.isnan(row.peak_ratio):
            what = f"{where}, {threads}, peak memory of the peer's"
            yield Verdict(what, row.peak_ratio, PEAK_MEMORY, at_most=True)
    if {DEFAULT_ENTRY, FULL} <= outcome.rounds.reports.keys():
        ratio = outcome.rounds.times_as_fast(DEFAULT_ENTRY, FULL)
        yield Verdict(f"{where}, labels left out, times as fast as without", ratio, SKIPPING)


def headline_verdicts(outcome: Outcome) -> Iterator[Verdict]:
    """Fine accuracy and forced instruction sets with one thread."""
    if row := outcome.row(Entry("crfseg fine")):
        yield Verdict('headline, accuracy="fine", times as fast as the peer', row.warm_ratio, FINE)
    if row := outcome.row(Entry(DEFAULT_ENTRY.name, 1, "baseline")):
        yield Verdict("headline, baseline, times as fast as the peer", row.warm_ratio, BASELINE)
    best, avx2 = outcome.row(DEFAULT_ENTRY), Entry(DEFAULT_ENTRY.name, 1, "avx2")
    if best and best.isa == "avx512" and avx2 in outcome.rounds.reports:
        share = outcome.rounds.times_as_fast(avx2, DEFAULT_ENTRY)
        yield Verdict("headline, AVX2's share of AVX-512's speed", share, AVX2)


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    """On every bar that something was measured for."""
    found = list(speed_verdicts(outcomes))
    for outcome in outcomes:
        found += case_verdicts(outcome)
        if (outcome.case, outcome.parameters) == (HEADLINE, DEFAULT):
            found += headline_verdicts(outcome)
    return found


def disagreements(where: str, rounds: Rounds) -> list[str]:
    """A sentence for every contender whose answer is not the peer's, or not full evaluation's."""
    held = [
        (entry, PEER, seen, FINE_WITH_PEER if "fine" in entry.name else WITH_PEER)
        for entry, seen in rounds.with_peer.items()
    ]
    held += [(entry, FULL, seen, WITH_FULL) for entry, seen in rounds.with_full.items()]
    return [
        f"{where}: {entry} agrees with {other.name} on {seen}; expected {limits}"
        for entry, other, seen, limits in held
        if not seen.within(limits)
    ]
