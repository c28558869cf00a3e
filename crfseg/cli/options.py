# SPDX-License-Identifier: MIT
"""Options that commands share, written once: each group is a dataclass of Typer's options.

A command has a parameter for each group, and ``spread`` makes options of the group's fields.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typer import BadParameter, Option

from crfseg import presets, refine
from crfseg.batch import Reading, check_arguments, reworded
from crfseg.solvers import SOLVERS

from .wording import complain, in_options

_DEFAULTS = inspect.signature(refine).parameters


def spread(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the fields of its dataclasses for parameters, so that Typer sees options."""
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hints[name] for name in parameters if is_dataclass(hints[name])}
    shown: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        shown += _fields(groups[name]) if name in groups else [parameter]

    @functools.wraps(command)
    def called(**given: Any) -> int:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        return command(**given)

    del called.__dict__["__wrapped__"]
    called.__dict__["__signature__"] = inspect.Signature(shown)
    called.__annotations__ = {one.name: one.annotation for one in shown}
    return called


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=hints[one.name],
        )
        for one in fields(group)
    ]


def _of_refine(name: str, text: str, *words: str, **details: Any) -> Any:
    """An option for an argument of ``refine``; what is not given is left to its default."""
    default = _DEFAULTS[name].default
    if default is not None and not words:
        parts = default if isinstance(default, tuple) else (default,)
        text += f" (default {' '.join(map(str, parts))})"
    return Option(*words, help=text, rich_help_panel="Arguments of crfseg.refine", **details)


def _presets() -> list[str]:
    return list(presets.list())


def _solvers() -> list[str]:
    return list(SOLVERS)


@dataclass(frozen=True, kw_only=True)
class Model:
    """The arguments of ``crfseg.refine``."""

    preset: Annotated[
        str | None,
        _of_refine(
            "preset",
            "published parameters (crfseg presets), or a .json file; other options go before",
            metavar="NAME|FILE",
            autocompletion=_presets,
        ),
    ] = None
    kind: Annotated[
        Literal["auto", "probs", "logits", "scores", "labels", "mask"] | None,
        _of_refine("kind", "what SCORES hold"),
    ] = None
    layout: Annotated[
        Literal["CHW", "HWC", "HW"] | None, _of_refine("layout", "axes of SCORES")
    ] = None
    spatial: Annotated[
        tuple[float, float] | None,
        _of_refine("spatial", "Gaussian term", metavar="SIGMA_XY WEIGHT"),
    ] = None
    no_spatial: Annotated[bool, _of_refine("spatial", "no Gaussian term", "--no-spatial")] = False
    bilateral: Annotated[
        tuple[float, float, float] | None,
        _of_refine("bilateral", "bilateral term", metavar="SIGMA_XY SIGMA_RGB WEIGHT"),
    ] = None
    no_bilateral: Annotated[
        bool, _of_refine("bilateral", "no bilateral term", "--no-bilateral")
    ] = False
    keep_thin: Annotated[
        int | None,
        _of_refine(
            "keep_thin", "side of a square: regions that hold none are kept", metavar="SIDE"
        ),
    ] = None
    iterations: Annotated[int | None, _of_refine("iterations", "steps", metavar="N")] = None
    solver: Annotated[
        str | None,
        _of_refine("solver", "of the model's energy", metavar="NAME", autocompletion=_solvers),
    ] = None
    tolerance: Annotated[
        float | None,
        _of_refine("tolerance", "stop when no probability changes more", metavar="CHANGE"),
    ] = None
    no_skip: Annotated[
        bool,
        _of_refine(
            "skip", "evaluate every label in every iteration, however improbable", "--no-skip"
        ),
    ] = False
    normalization: Annotated[
        Literal["symmetric", "after", "before", "none"] | None,
        _of_refine("normalization", "of the kernels"),
    ] = None
    accuracy: Annotated[Literal["fast", "fine"] | None, _of_refine("accuracy", "of the filter")] = (
        None
    )
    upsample: Annotated[
        Literal["auto", "half-pixel", "align-corners", "none"] | None,
        _of_refine("upsample", "of coarse scores"),
    ] = None
    confidence: Annotated[
        float | None, _of_refine("confidence", "in label maps and masks", metavar="P")
    ] = None
    ignore_index: Annotated[
        int | None, _of_refine("ignore_index", "label of unlabelled pixels", metavar="LABEL")
    ] = None
    n_labels: Annotated[
        int | None, _of_refine("n_labels", "labels there are in label maps", metavar="N")
    ] = None
    min_confidence: Annotated[
        float | None,
        _of_refine(
            "min_confidence",
            "labels of less become --ignore-index, or 255 without it",
            metavar="P",
        ),
    ] = None
    scale: Annotated[
        float | None, _of_refine("scale", "what SIGMA_XY are divided by", metavar="FACTOR")
    ] = None
    threads: Annotated[int | None, _of_refine("threads", "threads to use", metavar="N")] = None

    def __post_init__(self) -> None:
        for name in ("spatial", "bilateral"):
            if getattr(self, f"no_{name}") and getattr(self, name) is not None:
                raise BadParameter(f"--{name} and --no-{name} exclude each other")

    def is_sound(self, returns: str, *, debug: bool) -> bool:
        """Whether they make sense for any image; says so if they do not."""
        try:
            check_arguments({**self.arguments(), "returns": returns}, in_options)
        except (OSError, TypeError, ValueError) as error:
            complain(error, debug)
            return False
        return True

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of ``refine`` that the command line and its preset give.

        But for ``returns``: the files to write say that.
        """
        try:
            options = presets.spelt_out("refine", refine, self._given())
        except (TypeError, ValueError) as error:
            raise reworded(error, in_options(str(error))) from error
        options.pop("returns", None)
        return options

    def _given(self) -> dict[str, Any]:
        """Those of the command line."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        chosen = {
            name: value
            for name, value in given.items()
            if value is not None and not name.startswith("no_")
        }
        for name in ("spatial", "bilateral"):
            if given[f"no_{name}"]:
                chosen[name] = None
        if self.no_skip:
            chosen["skip"] = False
        if self.upsample == "none":
            chosen["upsample"] = False
        return chosen


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files are read."""

    array: Annotated[str | None, Option(metavar="NAME", help="array to read from .npz files")] = (
        None
    )
    exif: Annotated[
        Literal["apply", "ignore"] | None,
        Option(help="whether SCORES belong to the image as its EXIF orientation turns it"),
    ] = None

    def reading(self) -> Reading:
        """The same for ``crfseg.batch``."""
        return Reading(self.array, self.exif)


Listing = Annotated[
    Path | None,
    Option("--list", metavar="FILE", help="names of the images that count, one in each line"),
]


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What is printed."""

    quiet: Annotated[bool, Option("--quiet", help="print errors only")] = False
    debug: Annotated[bool, Option("--debug", help="show the traceback of a failure")] = False

    def say(self, line: str) -> None:
        """Print a line at once, so that a log or a pipe shows how far the work is."""
        if not self.quiet:
            encoding = sys.stdout.encoding or "utf-8"
            # Names of files may be of no encoding; a line about one must not end the others.
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
