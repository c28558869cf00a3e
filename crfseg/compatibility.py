# SPDX-License-Identifier: MIT
"""Label compatibility mu(a, b): what it costs that one point has label a and its neighbour b.

Krähenbühl & Koltun, NIPS 2011, section 2.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from ._containers import as_array, float32


@dataclass(frozen=True)
class Potts:
    """The Potts model: mu(a, b) = weight where a and b differ, 0 where they agree.

    Args:
        weight: at least 0; it multiplies the weight of the pairwise term.

    Raises:
        TypeError, ValueError: if ``weight`` is not such a number.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", check.non_negative("Potts", "weight", self.weight))


Compatibility: TypeAlias = Potts | ArrayLike | None
"""``Potts``, a (C,) vector, a (C, C) matrix mu(a, b), or None for the default."""


def resolve(
    where: str, compatibility: Compatibility, n_labels: int
) -> tuple[float, NDArray[np.float32] | None]:
    """Give a compatibility the form that the native core takes.

    Args:
        where: the public name that errors speak for.
        compatibility: ``Potts`` (None is ``Potts(1)``); a (C,) vector v, mu = -diag(v): that two
            points agree on label a lowers the energy by v_a; or a (C, C) matrix mu(a, b), a being a
            point's own label. It need not be symmetric.
        n_labels: C.

    Returns:
        A factor for the weight of the term, and None (Potts), v or mu.

    Raises:
        TypeError, ValueError: if it is none of these, of another length, or not finite.
    """
    if compatibility is None:
        return 1.0, None
    if isinstance(compatibility, Potts):
        return compatibility.weight, None
    try:
        is_one = np.ndim(compatibility) == 0
    except ValueError as error:  # numpy's sentence speaks of its own insides
        found = f"is {check.show(compatibility)}, whose rows differ in length"
        raise fault.wrong_compatibility(where, found, n_labels) from error
    if is_one or isinstance(compatibility, str):
        raise fault.wrong_compatibility(where, f"is {check.show(compatibility)}", n_labels)
    given = as_array(where, "compatibility", compatibility)
    if given.shape not in ((n_labels,), (n_labels, n_labels)):
        raise fault.wrong_compatibility(where, f"has shape {given.shape}", n_labels)
    values = np.ascontiguousarray(float32(given))
    if not np.isfinite(values).all():
        raise explain.non_finite(where, "compatibility", given)
    return 1.0, values
