# SPDX-License-Identifier: MIT
"""Threads and memory for images that are refined side by side: what has no room waits."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from . import _memory as memory
from ._crew import stream

Item = TypeVar("Item")
_AHEAD = 2  # images that may be read or written while others are refined


class Room:
    """How many images may be in work at a time, with how many threads each.

    Args:
        threads: how many there are for all images.
        workers: how many images may be refined at a time.
        n_items: how many images there are; None if that is not known.
    """

    def __init__(self, threads: int, workers: int, n_items: int | None = None) -> None:
        self._threads, self._workers = threads, workers
        self._left = n_items
        self._limit = memory.available() // 2
        self._bytes = self._at_work = self._threads_used = self._inputs = 0
        self._changed = threading.Condition()

    @contextmanager
    def keep(self, n_bytes: int) -> Iterator[None]:
        """Wait until there is room to read that much; it is kept till the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inputs or self._has(n_bytes))
            self._inputs += 1
            self._bytes += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._inputs -= 1
                self._bytes -= n_bytes
                self._left = None if self._left is None else self._left - 1
                self._changed.notify_all()

    @contextmanager
    def refine(self, n_bytes: int) -> Iterator[int]:
        """Wait for a turn; how many threads to use: all, where no other image fits beside."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work or self._has_turn(n_bytes))
            threads = self._share(n_bytes)
            self._at_work += 1
            self._bytes += n_bytes
            self._threads_used += threads
        try:
            yield threads
        finally:
            with self._changed:
                self._at_work -= 1
                self._bytes -= n_bytes
                self._threads_used -= threads
                self._changed.notify_all()

    def _has(self, n_bytes: int) -> bool:
        return self._bytes + n_bytes <= self._limit

    def _has_turn(self, n_bytes: int) -> bool:
        return self._at_work < self._workers and self._has(n_bytes)

    def _share(self, n_bytes: int) -> int:
        if n_bytes > self._limit:
            return self._threads
        images = self._workers if self._left is None else min(self._workers, self._left)
        free = self._threads - self._threads_used
        return max(1, min(free, self._threads // max(1, images)))


def side_by_side(
    items: Iterable[Item],
    n_items: int | None,
    work: Callable[[Item, Room], None],
    *,
    threads: int,
    workers: int,
) -> None:
    """Work on many images, so many at a time; one thread beside those reads or writes ahead.

    Args:
        items: the images, taken when their time has come.
        n_items: how many there are; None if that is not known.
        work: does one image; it is given the room that all of them share.
        threads: how many there are for all images together.
        workers: how many images are refined at a time.
    """
    room = Room(threads, workers, n_items)
    n_threads = workers + _AHEAD
    if n_items is not None:
        n_threads = max(1, min(n_threads, n_items))
    stream(items, n_threads, lambda item: work(item, room))
