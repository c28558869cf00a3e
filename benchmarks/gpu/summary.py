# SPDX-License-Identifier: MIT
"""The table of a run: what is wrong, what was measured, sections and bars."""

import math
from typing import Any

from gpu.held import verdicts
from gpu.runner import Outcome
from table import number

MOST_FAILURES = 8  # of a section that are written out; all are in the JSON file


def table(outcomes: list[Outcome], *, is_rehearsal: bool = False) -> str:
    """A rehearsal, without a GPU, is not held to bars."""
    lines = []
    for outcome in outcomes:
        lines += wrong_lines(outcome) + found_lines(outcome)
    bars = ["a rehearsal on the host: times say nothing"] if is_rehearsal else bar_lines(outcomes)
    return "\n".join([*lines, *share_lines(outcomes), "", *section_lines(outcomes), "", *bars])


def wrong_lines(outcome: Outcome) -> list[str]:
    """Checks that failed, and the last words of what did not end well."""
    failures = outcome.failures
    lines = [f"{outcome.name}: FAILED: {in_words(one)}" for one in failures[:MOST_FAILURES]]
    if len(failures) > MOST_FAILURES:
        lines.append(f"{outcome.name}: and {len(failures) - MOST_FAILURES} more")
    if outcome.is_wrong and not failures:
        last = [line for line in outcome.said.splitlines() if line.strip()][-2:]
        lines.append(f"{outcome.name}: {outcome.status}: {' | '.join(last)}")
    return lines


def in_words(check: dict[str, Any]) -> str:
    if "limit" in check:
        value = check["value"]
        found = "not a number" if value is None else f"{value:.2g}"
        return f"{check['what']}: {found}, at most {check['limit']:g}"
    detail = check.get("detail", "")
    return check["what"] + (f": {detail}" if detail else "")


def found_lines(outcome: Outcome) -> list[str]:
    lines = []
    for name, one in outcome.measured.items():
        value = one["value"]
        shown = number(value) if isinstance(value, float) else str(value)
        lines.append(f"{outcome.name}: {name}: {shown} {one['unit']}".rstrip())
    return lines + [f"{outcome.name}: {note}" for note in outcome.notes]


def share_lines(outcomes: list[Outcome]) -> list[str]:
    """The counted bytes of an iteration against what was measured of the device."""
    by_name = {one.name: one for one in outcomes}
    if not {"stages", "ceilings"} <= by_name.keys():
        return []
    rate = by_name["stages"].value("iteration, GB/s")
    lines = []
    for ceiling in ("read of 20 MB, GB/s", "copy, GB/s"):
        most = by_name["ceilings"].value(ceiling)
        if rate > 0 and most > 0:
            lines.append(f"an iteration's counted bytes go at {rate / most:.0%} of: {ceiling}")
    return lines


def section_lines(outcomes: list[Outcome]) -> list[str]:
    lines = [f"{'section':<12}{'result':<12}{'checks':>8}{'failed':>8}{'seconds':>9}"]
    for one in outcomes:
        counts = f"{len(one.checks):>8}{len(one.failures):>8}{one.seconds:>9.1f}"
        lines.append(f"{one.name:<12}{one.status:<12}{counts}  {one.left_out}".rstrip())
    return lines


def bar_lines(outcomes: list[Outcome]) -> list[str]:
    """Of the sections that were run: the others have nothing to be judged by."""
    ran = {one.name for one in outcomes}
    lines = []
    for verdict in verdicts(outcomes):
        if verdict.what.split(":")[0] not in ran:
            continue
        is_known = not math.isnan(verdict.value)
        lines.append(str(verdict) if is_known else f"bar: {verdict.what}: NOT MEASURED")
    return lines or ["no bar was judged: none of their sections ran"]
