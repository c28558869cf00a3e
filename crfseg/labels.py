# SPDX-License-Identifier: MIT
"""Label maps before and after refinement: which labels are sure.

That a label is not, is said by a mark: 255 in the field, ``ignore_index`` here. ``refine`` takes it
(``ignore_index=``), and sets it (``min_confidence=``).
"""

from typing import TypeVar

import numpy as np

from . import _check as check
from . import _fault as fault
from ._containers import as_array, open_array

_Array = TypeVar("_Array")
_BACKGROUND = 0


def merge_confident(
    foreground: _Array,
    background: _Array,
    *,
    ignore_index: int = 255,
    contradictions: str = "foreground",
) -> _Array:
    """Keep what two label maps of one image are sure of, as IRN and PSA make their pseudo labels.

    One is made so that its foreground is sure (a high threshold of activation maps, or a small
    alpha), the other so that its background is (a low threshold, a large alpha); see
    ``crfseg.cams.with_background``. Where the first has background and the second has not, nothing
    is sure.

    Args:
        foreground: integers of any shape whose labels above 0 are trusted.
        background: integers of the same shape whose zeros are trusted.
        ignore_index: the mark of what is not sure.
        contradictions: what goes where both are sure and differ: "foreground", as in IRN, or
            "background", as in PSA.

    Returns:
        Labels in the container and dtype of ``foreground``.

    Raises:
        TypeError: if the maps are no integers.
        ValueError: if their shapes differ, or their dtype does not have the mark.
    """
    where = "labels.merge_confident"
    check.choice(where, "contradictions", contradictions, ("foreground", "background"))
    mark = check.any_integer(where, "ignore_index", ignore_index)
    high, restore = open_array(where, "foreground", foreground)
    low = as_array(where, "background", background)
    for name, labels in (("foreground", high), ("background", low)):
        if labels.dtype.kind not in "iu":
            raise fault.wrong_dtype(where, name, labels.dtype, "integer labels")
    if low.shape != high.shape:
        raise fault.wrong_shape(where, "background", low.shape, f"{high.shape}, like foreground")
    if not np.iinfo(high.dtype).min <= mark <= np.iinfo(high.dtype).max:
        raise fault.wrong_dtype(where, "foreground", high.dtype, f"integers that can be {mark}")
    is_background = low == _BACKGROUND
    if contradictions == "foreground":
        is_background &= high == _BACKGROUND
    merged = np.where(high == _BACKGROUND, high.dtype.type(mark), high)
    merged[is_background] = _BACKGROUND
    result: _Array = restore(merged)
    return result
