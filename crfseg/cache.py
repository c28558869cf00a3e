# SPDX-License-Identifier: MIT
"""Memory kept for later calls: buffers in the native core, and lattices of grids here.

Off unless asked for. A Gaussian term's lattice depends on the size of the grid and its sigmas
alone, so that images of one size share it. Both kinds together stay within one limit, of which
lattices get up to half.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from . import _check as check
from . import _fault as fault
from ._native import core

__all__ = ["Holding", "clear_cache", "follow_environment", "holding", "set_cache_limit", "shared"]

_VARIABLE: Final = "CRFSEG_CACHE"
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_MOST_BYTES: Final = 2**62

_lock = threading.Lock()
_lattices: "OrderedDict[Hashable, core.Lattice]" = OrderedDict()  # the latest used last
_limit = 0
_setting = ""  # the environment variable as it was last followed
_is_chosen = False  # and whether it counts at all


def _begin_as_child() -> None:
    """A lattice may be locked by a thread that the child does not have."""
    _lattices.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):  # lest a child is born with a lock that nobody will open
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_as_child
    )


class Holding(NamedTuple):
    """What the cache may hold and what it does."""

    limit: int
    held: int


def set_cache_limit(n_bytes: int | None) -> None:
    """Keep memory for later calls, up to ``n_bytes`` of it.

    Memory that a call has used is not given back to the system but used by the next one, which
    saves the time of touching it for the first time; and calls on images of one size share the
    lattice of their ``Gaussian`` term. Results are the same. The environment variable
    ``CRFSEG_CACHE`` (bytes, or "256M") sets the limit where this is not called.

    Args:
        n_bytes: the most to keep between calls; 0 or None, as at first, keeps none.

    Raises:
        TypeError, ValueError: if ``n_bytes`` is not such a number.
    """
    global _is_chosen  # noqa: PLW0603 - one setting for the whole process is what this is
    wanted = 0
    if n_bytes is not None:
        wanted = check.integer("set_cache_limit", "n_bytes", n_bytes, at_most=_MOST_BYTES)
    _is_chosen = True
    _set(wanted)


def clear_cache() -> None:
    """Give back to the system everything that is kept; the limit stays."""
    with _lock:
        _lattices.clear()
        core.clear_cache()
        core.set_cache_limit(_limit)


@contextmanager
def at_least(n_bytes: int) -> Iterator[None]:
    """Keep that much inside the block, where nothing is said about how much to keep."""
    follow_environment("set_cache_limit")
    is_silent = not _is_chosen and not _setting
    if is_silent:
        _set(n_bytes)
    try:
        yield
    finally:
        if is_silent and not _is_chosen:
            _set(0)


def follow_environment(where: str) -> None:
    """Let ``CRFSEG_CACHE`` set the limit, unless ``set_cache_limit`` has.

    Raises:
        ValueError: if it is set to something else than a number of bytes.
    """
    global _setting  # noqa: PLW0603
    setting = os.environ.get(_VARIABLE, "")
    if _is_chosen or setting == _setting:
        return
    _set(_bytes_of(where, setting))
    _setting = setting


def holding() -> Holding:
    """The limit in force and the bytes that are kept."""
    follow_environment("info")
    with _lock:
        return Holding(_limit, _lattice_bytes() + core.cached_bytes())


def shared(key: Hashable, build: Callable[[], core.Lattice]) -> core.Lattice:
    """The lattice of this key: one that is kept, or a new one, kept if there is room."""
    if _limit == 0:
        return build()
    with _lock:
        found = _lattices.get(key)
        if found is not None:
            _lattices.move_to_end(key)
            return found
    built = build()  # others need not wait; should they build the same, the first one is kept
    with _lock:
        lattice = _lattices.setdefault(key, built)
        _share_out()
    return lattice


def _set(n_bytes: int) -> None:
    global _limit  # noqa: PLW0603
    with _lock:
        _limit = n_bytes
        _share_out()


def _share_out() -> None:
    """Drop the lattices that are too many, and leave the rest of the limit to buffers.

    Lattices grow when they are used, by up to two numbers per point of their normaliser: there is
    to be room for that.
    """
    while _lattices and _reserved_bytes() > _limit // 2:
        _lattices.popitem(last=False)
    core.set_cache_limit(_limit - _reserved_bytes())


def _reserved_bytes() -> int:
    return sum(lattice.nbytes + 8 * lattice.n_points for lattice in _lattices.values())


def _lattice_bytes() -> int:
    return sum(lattice.nbytes for lattice in _lattices.values())


def _bytes_of(where: str, setting: Any) -> int:
    parts = re.fullmatch(r"([0-9]{1,18})([KMG]?)", setting) if setting else None
    if setting and parts is None:
        raise fault.wrong_size_variable(where, _VARIABLE, setting)
    return 0 if parts is None else min(int(parts[1]) * _UNITS[parts[2]], _MOST_BYTES)
