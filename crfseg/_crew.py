# SPDX-License-Identifier: MIT
"""Several items of a batch at a time, each on a Python thread of its own.

Native code releases the GIL, and images side by side waste nothing on waiting for each other, as
threads inside an image do. Items are begun in order, so that the first of them that fails is the
one that fails alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = Callable[[int], None]

_here = threading.local()


class _Cancelled(BaseException):
    """Another item of the crew has failed, or Ctrl-C was pressed."""


def n_side_by_side(n_items: int, threads: int) -> int:
    """How many of the items to share out one per thread; the rest get all threads, one by one.

    What is left after whole rounds goes on only if it keeps more than half of the threads busy.
    """
    rest = n_items % threads
    if threads == 1 or n_items < 2:
        return 0
    return n_items if 2 * rest > threads else n_items - rest


def share_out(n_items: int, n_workers: int, hire: Callable[[], Work]) -> None:
    """Do items 0 .. ``n_items`` - 1 on ``n_workers`` threads, the caller's being one of them.

    Args:
        n_items: how many there are.
        n_workers: how many threads there may be.
        hire: makes what does one item; called once per thread, and on that thread.

    Raises:
        Whatever the first failing item did. Items after it may have been done or not.
    """
    crew = _Crew(n_items, hire)
    others = [threading.Thread(target=crew.serve) for _ in range(n_workers - 1)]
    started = []
    try:
        for thread in others:
            try:
                thread.start()
            except RuntimeError:  # the system grants no more: go on with those there are
                break
            started.append(thread)
        crew.serve()
        for thread in started:
            thread.join()
    except BaseException:
        crew.cancel()
        for thread in started:
            thread.join()
        raise
    if crew.failure is not None:
        raise crew.failure


def between_iterations() -> Callable[[], None] | None:
    """What inference has to call now and then on this thread, for a crew may want it to end."""
    turn: _Turn | None = getattr(_here, "turn", None)
    return None if turn is None else turn.go_on


class _Crew:
    def __init__(self, n_items: int, hire: Callable[[], Work]) -> None:
        self._hire = hire
        self._lock = threading.Lock()
        self._next = 0
        self.end = n_items  # items from here on are not wanted
        self.failure: Exception | None = None

    def serve(self) -> None:
        """Work until nothing is left to do."""
        work: Work | None = None
        while (item := self._take()) is not None:
            with _turn(self, item):
                try:
                    work = work or self._hire()
                    work(item)
                except _Cancelled:
                    return
                except Exception as error:
                    self._fail(item, error)

    def cancel(self) -> None:
        """Let every thread come to an end soon."""
        with self._lock:
            self.end = 0

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self.end:
                return None
            self._next += 1
            return self._next - 1

    def _fail(self, item: int, error: Exception) -> None:
        with self._lock:
            if item < self.end:
                self.end, self.failure = item, error


class _Turn:
    """One item at work."""

    def __init__(self, crew: _Crew, item: int) -> None:
        self._crew, self._item = crew, item

    def go_on(self) -> None:
        """Raise where this item is not wanted any more."""
        if self._item >= self._crew.end:
            raise _Cancelled


@contextmanager
def _turn(crew: _Crew, item: int) -> Iterator[None]:
    outer = getattr(_here, "turn", None)
    _here.turn = _Turn(crew, item)
    try:
        yield
    finally:
        _here.turn = outer
