# SPDX-License-Identifier: MIT
"""Whether a picture has levels of 0..255, as networks of Caffe's time see them."""

from torch import Tensor

from crfseg import _check as check
from crfseg.torch import _arguments as arguments


def check_levels(where: str, name: str, levels: Tensor) -> None:
    """Refuse floats below 0 or above 255, and those that look like a picture in 0..1.

    These are at most 1 and not whole numbers, as levels of a black picture are. A network takes
    them for black, and says something of them all the same.

    Raises:
        ValueError: if they are no levels. Nothing is looked at while a network is being compiled.
    """
    if not (levels.is_floating_point() and levels.numel() and arguments.has_values(levels)):
        return
    values = levels.detach()
    low, high = (float(bound) for bound in values.aminmax())
    is_of_one = low >= 0.0 and high <= 1.0 and bool((values % 1 != 0).any())
    if is_of_one or not (low >= 0.0 and high <= 255.0):
        hint = " (times 255, if they are of 0..1)" if is_of_one else ""
        raise check.invalid(
            where,
            f"{name} has values from {low:.7g} to {high:.7g}; expected levels in 0..255{hint}",
        )
