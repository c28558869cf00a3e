# SPDX-License-Identifier: MIT
"""Failures as sentences, for those who typed options and not keyword arguments."""

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any


def complain(error: Exception, debug: bool) -> None:
    """Print one sentence about ``error``, with ``debug`` its traceback as well."""
    if debug:
        traceback.print_exception(error)
    print(f"crfseg: error: {sentence_about(error)}", file=sys.stderr)


def sentence_about(error: Exception) -> str:
    """Word an error on one line."""
    if isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {error.strerror}"
    elif isinstance(
        error, (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
    ):
        sentence = str(error) or type(error).__name__
    else:
        sentence = f"{type(error).__name__}: {error} (unforeseen; --debug shows where)"
    return " ".join(sentence.split())


def is_about_usage(error: Any) -> bool:
    """Whether this is what Typer raises for a command line that makes no sense."""
    return hasattr(error, "format_message") and getattr(error, "exit_code", 0) == 2


def complain_about_usage(error: Any) -> None:
    """Print how the command is used, and what is wrong with this use."""
    context = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
    sentence = error.format_message().replace("Value error, ", "")  # a word of pydantic's
    print(f"crfseg: error: {sentence}", file=sys.stderr)


class Complaints:
    """Tells what went wrong with many files, and what many have in common once."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._alike: dict[str, list[str]] = {}

    def add(self, error: Exception, name: str) -> None:
        """Complain about a file, unless another has had the same complaint."""
        known = _common_part(error)
        if not self._alike.get(known):
            complain(error, self._debug)
        if known:
            self._alike.setdefault(known, []).append(name)

    def list_others(self) -> None:
        """Name the files that have the complaint of another."""
        for first, *others in self._alike.values():
            if others:
                more = f"{len(others)} more like {first}: {listed(others)}"
                complain(ValueError(more), debug=False)


def _common_part(error: Exception) -> str:
    """What a sentence expects, or misses, of one file and of all such; "" if that is its own."""
    sentence = sentence_about(error)
    names_option = isinstance(error, TypeError | ValueError) and re.search(r"[ (]--[a-z]", sentence)
    if names_option:
        return sentence.partition("; ")[2]
    return "".join(re.findall(r": (no .* of that name in .*)", sentence))


def listed(names: Sequence[str]) -> str:
    """A few names, and how many there are besides."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


_OF_REFINE = "ignore_index|n_labels|keep_thin|min_confidence"
_IN_OPTIONS = (
    (r"^\[refine\] (x (?=has|holds|is|ranges|sums))?", ""),
    (r"^\[[\w.]+\] ", ""),
    (r"\bx holds\b", "SCORES hold"),
    (r"\bx of shape\b", "SCORES of shape"),
    (r"\bx / 255 and ", ""),  # read as that where --kind says that it is a mask
    (r"\bx\.argmax\(0\)", "their argmax over the first axis"),
    (r"np\.moveaxis\(x, -1, 0\)", "--layout HWC"),
    (r"\b(?:Gaussian|spatial) (?=sigma|weight)", "--spatial "),
    (r"\b[Bb]ilateral (?=sigma|weight)", "--bilateral "),
    (r"(?<=--spatial )\w+|(?<=--bilateral )\w+", lambda found: found[0].upper()),
    (r"^(iterations|tolerance|confidence|threads|scale|preset|workers)\b", r"--\1"),
    (r"\b(kind|layout|upsample|ignore_index|n_labels)= *", r"--\1 "),
    (rf"(?<!-)\b({_OF_REFINE})\b", r"--\1"),
    (rf"--({_OF_REFINE})\b", lambda found: found[0].replace("_", "-")),
    (r"\breturns='labels' with it", "label PNGs with it"),
    (r"\bcrfseg\.presets\.list\(\) has all", "crfseg presets lists all"),
    # The names that an option can have are quoted in Python alone.
    (r"(--(?:kind|layout|upsample) ).*", lambda found: re.sub(r"'([\w-]+)'", r"\1", found[0])),
)


def in_options(sentence: str) -> str:
    """An error of ``refine`` as one who typed options reads it: --kind logits, --spatial WEIGHT."""
    for pattern, words in _IN_OPTIONS:
        sentence = re.sub(pattern, words, sentence)
    return sentence
