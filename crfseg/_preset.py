# SPDX-License-Identifier: MIT
"""What a preset is: a named set of keywords of refine(), and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import _check as check

_TEXTS = ("name", "description", "source")


@dataclass(frozen=True)
class Preset:
    """A named set of keywords of ``refine``.

    Args:
        name: what ``refine(preset=...)`` calls it.
        description: one line: which model, for what.
        source: where the numbers stand.
        options: keywords of ``refine`` and their values.

    Raises:
        TypeError: if a text is none, or ``options`` is no mapping of names.
    """

    name: str
    description: str
    source: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        for field in _TEXTS:
            value = getattr(self, field)
            if not isinstance(value, str):
                raise check.mistyped("Preset", f"{field} is {check.show(value)}; expected a string")
        given: Any = self.options  # whatever the caller, or a file, has put there
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise check.mistyped(
                "Preset",
                f"options is {check.show(given)}; expected a mapping of keywords of refine",
            )
        options = {name: _without_lists(value) for name, value in given.items()}
        object.__setattr__(self, "options", MappingProxyType(options))

    def __reduce__(self) -> tuple[Any, ...]:
        # A view of a mapping cannot be pickled, and presets are sent to worker processes.
        return Preset, (self.name, self.description, self.source, dict(self.options))

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}: {self.description}\n  {options}\n  {self.source}"


def _without_lists(value: Any) -> Any:
    """Files have lists where Python has tuples, and a preset is not to change."""
    if isinstance(value, list | tuple):
        return tuple(_without_lists(one) for one in value)
    return value
