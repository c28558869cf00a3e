# SPDX-License-Identifier: MIT
"""What people and programs see of a run: a bar on terminals, lines of JSON in a file."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

_WIDTH: Final = 30


class Bar:
    """One line that is written over; nothing where the stream is no terminal."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream, self._total = stream, total
        self._is_shown = stream.isatty()
        self._began: tuple[float, int] | None = None

    def show(self, iteration: int, loss: float) -> None:
        """After an iteration."""
        if self._is_shown:
            full = _WIDTH * iteration // self._total
            self._write(
                f"{iteration}/{self._total} [{'=' * full:{_WIDTH}}] loss {loss:.4f}, "
                f"{_duration(self._left(iteration))} left"
            )

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._is_shown:
            self._write("")

    def _left(self, iteration: int) -> float:
        """Seconds, at the pace since the first iteration that was shown."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, iteration)
        began, first = self._began
        return (now - began) / max(iteration - first, 1) * (self._total - iteration)

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()


class Log:
    """Lines of JSON, added to what is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: Mapping[str, Any]) -> None:
        """Add a line; numbers that JSON does not have become null."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(event), allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
