# SPDX-License-Identifier: MIT
"""Published parameters by name, and sets of one's own in files.

A preset is a set of keywords of ``refine``: what the model is and how far labels are trusted, not
what ``x`` holds. That it was published says nothing about other images than those it was made for.
"""

import difflib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from . import _check as check
from ._preset import Preset
from ._published import PUBLISHED

__all__ = ["Listing", "Preset", "get", "list", "load", "save"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_KEYS = ("name", "description", "source", "options")  # of a file, and fields of a Preset
_BY_NAME = {preset.name: preset for preset in PUBLISHED}


class Listing(dict[str, str]):
    """Descriptions by name; it prints as a table."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.items())


def get(preset: str | os.PathLike[str] | Preset) -> Preset:
    """Find a preset.

    Args:
        preset: a name of ``list()``; the path of a saved one, which ends in .json or is a Path; or
            a ``Preset``, which is what comes back.

    Raises:
        ValueError: if there is no such name, or the file holds no preset.
        TypeError: if it is none of these.
        OSError: if the file cannot be read.
    """
    return _find("presets.get", preset)


def save(path: str | os.PathLike[str], preset: str | os.PathLike[str] | Preset) -> None:
    """Write a preset to a JSON file, which ``get`` and ``refine(preset=...)`` read.

    Args:
        path: ends in .json.
        preset: as for ``get``.

    Raises:
        TypeError: if an option has a value that JSON has no words for.
        ValueError: if the path ends in something else.
        OSError: if the file cannot be written.
    """
    from .io import atomic_write

    where = "presets.save"
    path, found = Path(path), _find(where, preset)
    if path.suffix != ".json":
        raise check.invalid(where, f"path is {str(path)!r}; expected a name that ends in .json")
    for name, value in found.options.items():
        _in_json(where, name, value)
    fields = {key: getattr(found, key) for key in _KEYS[:3]} | {"options": dict(found.options)}
    text = json.dumps(fields, indent=2, ensure_ascii=False, default=_plain)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())


def load(path: str | os.PathLike[str]) -> Preset:
    """Read a preset that ``save`` has written.

    Raises:
        ValueError: if the file holds something else.
        OSError: if it cannot be read.
    """
    where = "presets.load"
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise check.invalid(where, f"{path}: is no JSON file ({error})") from error
    if not isinstance(fields, dict) or set(fields) != set(_KEYS):
        found = check.options(fields) if fields and isinstance(fields, dict) else "something else"
        expected = f"expected an object with {', '.join(_KEYS)}"
        raise check.invalid(where, f"{path}: holds {found}; {expected}")
    try:
        return Preset(**fields)
    except TypeError as error:
        raise check.invalid(where, f"{path}: {error}") from error


def takes_preset(function: _Function) -> _Function:
    """Give a function whose keyword ``preset`` names others of its keywords what they are.

    Keywords that the caller has given himself go first, also where they equal the default: that is
    why this happens out here.
    """

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if given.get("preset") is None:
            return function(*args, **given)
        return function(*args, **spelt_out(function.__name__, function, given))

    return cast(_Function, call)


def spelt_out(where: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a function with those of ``preset`` in its place."""
    others = {name: value for name, value in given.items() if name != "preset"}
    if given.get("preset") is None:
        return others
    parameters = inspect.signature(function).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    known.remove("preset")  # one is not made of another
    options = _options(where, given["preset"], known)
    if given.get("pairwise") is not None:  # the caller's terms, instead of the preset's
        options = {k: v for k, v in options.items() if k not in ("spatial", "bilateral")}
    return {**options, **others}


def list() -> Listing:  # noqa: A001 - crfseg.presets.list() is what it is called
    """Name all presets: a dict of descriptions by name that prints as a table."""
    return Listing({preset.name: preset.description for preset in PUBLISHED})


def _find(where: str, preset: Any) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if not isinstance(preset, str | os.PathLike):
        found = f"preset is {check.show(preset)} ({type(preset).__name__})"
        raise check.mistyped(where, f"{found}; expected a name, the path of a file or a Preset")
    if isinstance(preset, str) and preset in _BY_NAME:
        return _BY_NAME[preset]
    if not isinstance(preset, str) or preset.endswith(".json"):
        return load(preset)
    nearest = difflib.get_close_matches(preset.lower(), _BY_NAME, n=1, cutoff=0.0)[0]
    raise check.invalid(
        where,
        f"preset is {preset!r}; the nearest name is {nearest!r} (crfseg.presets.list() has all, "
        "files of your own end in .json)",
    )


def _options(where: str, preset: Any, known: Sequence[str]) -> dict[str, Any]:
    found = _find(where, preset)
    for name in found.options:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise check.invalid(
                where,
                f"preset {found.name!r} has the option {name!r}; expected keywords of {where}, of "
                f"which {nearest!r} is the nearest",
            )
    return dict(found.options)


def _in_json(where: str, name: str, value: Any) -> None:
    try:
        json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        found = f"option {name} is {check.show(value)} ({type(value).__name__})"
        expected = "finite numbers, strings, None or tuples of them"
        raise check.mistyped(
            where, f"{found}, which a file cannot hold; expected {expected}"
        ) from error


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)
