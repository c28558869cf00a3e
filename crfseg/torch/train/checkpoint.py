# SPDX-License-Identifier: MIT
"""The state of a run in one file that is there as a whole or not at all.

``model`` in it is a state dict: ``crfseg.torch.models.load_weights`` reads checkpoints as they are.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from crfseg import io
from crfseg.torch.models.weights import UNREADABLE

from .options import Options

_FORMAT: Final = 1
# What may change when a run goes on; with "step", how long it takes as well.
_FREE: Final = ("workers", "device", "save_every", "validate_every")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state in the place of the one before; if that fails, that one stays."""
    with io.atomic_write(path) as file:
        torch.save({"format": _FORMAT, **state}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a run's state; no code in it is run.

    Raises:
        OSError: if there is none.
        ValueError: if it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is no file; there is no run to resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint; expected one of a run"
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path}: is no checkpoint of a run; expected one, of format {_FORMAT}")
    return state


def unit_of(path: Path) -> float:
    """The unit of levels in which weights have been learning; 1 where a file does not say.

    That other files are no weights is for who loads them to say.
    """
    try:
        options = load(path)["options"]
    except (OSError, ValueError):
        return 1.0
    unit: float = options["input_unit"]
    return unit


def check_same_run(path: Path, state: Mapping[str, Any], options: Options, n_pictures: int) -> None:
    """Refuse to go on with other options or pictures, which would be another run.

    Raises:
        ValueError: naming the first that differs.
    """
    now = {**asdict(options), "pictures": n_pictures}
    # What a run did not know of when it was saved, it did not do.
    before = {**asdict(Options()), **state["options"]}
    names = [name for name in now if name not in (*_FREE, "iterations")]
    if options.schedule != "step":
        names.append("iterations")
    for name in names:
        if now[name] != before[name]:
            raise ValueError(
                f"{path}: was trained with {name} {before[name]}, not {now[name]}; expected the "
                "same to resume it"
            )


def restore(path: Path, name: str, module: nn.Module, state: Mapping[str, Any] | None) -> None:
    """Load a module's part of a checkpoint.

    Raises:
        ValueError: if it is of another module, naming the first entry that does not fit.
    """
    wanted, given = module.state_dict(), state or {}
    for key in [*wanted, *(key for key in given if key not in wanted)]:
        found = [tuple(d[key].shape) if key in d else None for d in (given, wanted)]
        if found[0] != found[1]:
            has, expected = (
                f"of shape {shape}" if shape is not None else "absent" for shape in found
            )
            raise ValueError(
                f"{path}: is of another {name}: {key} is {has}; expected it {expected}"
            )
    module.load_state_dict(dict(given))
