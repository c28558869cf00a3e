# SPDX-License-Identifier: MIT
"""What a section finds: checks, measurements, notes, in a file that is written after each of them.

A section that hangs or crashes loses what it was at, not what it had found.
"""

import json
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LeftOut(Exception):  # noqa: N818 - nothing is wrong
    """A section, or a part of one, that cannot be run here, and why."""


class Report:
    """Checks (what, whether it passed, value and limit), measurements (value, unit), notes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, Any] = {"checks": [], "measured": {}, "notes": [], "left_out": ""}
        self._save()

    def near(self, what: str, value: float, limit: float) -> None:
        """A difference that may be ``limit`` at most; NaN is too large."""
        self._check(what, value <= limit, value=float(value), limit=limit)

    def holds(self, what: str, passed: bool, detail: str = "") -> None:
        self._check(what, passed, detail=detail)

    def measured(self, name: str, value: float, unit: str) -> None:
        self.found["measured"][name] = {"value": float(value), "unit": unit}
        self._save()

    def fact(self, name: str, value: Any) -> None:
        """A measurement that is no number."""
        self.found["measured"][name] = {"value": value, "unit": ""}
        self._save()

    def note(self, text: str) -> None:
        self.found["notes"].append(text)
        self._save()

    def left_out(self, why: str) -> None:
        self.found["left_out"] = why
        self._save()

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """What fails in here is a check that failed; the section goes on."""
        try:
            yield
        except LeftOut as why:
            self.note(f"{what} was left out: {why}")
        except Exception as error:
            traceback.print_exc()
            self.holds(what, False, f"{type(error).__name__}: {error}"[:500])

    def _check(self, what: str, passed: bool, **more: Any) -> None:
        self.found["checks"].append({"what": what, "passed": bool(passed), **more})
        self._save()

    def _save(self) -> None:
        write_json(self._path, self.found)


def write_json(path: Path, found: Any) -> None:
    """All of it or nothing; numbers that are none become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half_done = path.with_suffix(".part")
    half_done.write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    half_done.replace(path)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
