# SPDX-License-Identifier: MIT
"""Arguments of refine that stand for it until a network has run, and are found wrong before."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

import crfseg
from crfseg import _check as check

_GIVEN: Final = ("x", "image", "kind", "layout", "returns")  # by who calls refine
_NAMES: Final = tuple(
    name for name in inspect.signature(crfseg.refine).parameters if name not in _GIVEN
)
# What fits depends on the picture, or on the number of labels.
_LATER: Final = ("pairwise", "compatibility", "n_labels")
_PROBS: Final = np.full((2, 2, 2), 0.5, np.float32)
_PICTURE: Final = np.zeros((2, 2, 3), np.uint8)


def checked_refinement(
    where: str, name: str, given: Any, returns: str = "probs"
) -> Mapping[str, Any]:
    """A mapping of arguments of ``crfseg.refine``, which a picture of 2 x 2 is refined with.

    Raises:
        TypeError: if it is no mapping, or names something else.
        ValueError: if a value is wrong for every picture.
    """
    if not isinstance(given, Mapping):
        raise check.mistyped(
            where,
            f"{name} is {check.show(given)} ({type(given).__name__}); expected a mapping of "
            "arguments of refine",
        )
    for key in given:
        if key not in _NAMES:
            raise check.mistyped(
                where, f"{name} has {check.show(key)}; expected {check.options(_NAMES)}"
            )
    now = {key: value for key, value in given.items() if key not in _LATER}
    crfseg.refine(_PROBS, _PICTURE, kind="probs", layout="CHW", returns=returns, **now)
    return given
