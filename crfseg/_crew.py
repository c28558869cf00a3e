# SPDX-License-Identifier: MIT
"""Several items of a batch at a time, each on a Python thread of its own.

Native code releases the GIL, and images side by side waste nothing on waiting for each other, as
threads inside an image do. Items are begun in order, so that the first of them that fails is the
one that fails alone.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
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
    crew = _Crew(n_items)
    started: list[threading.Thread] = []

    def serve() -> None:
        crew.serve(hire)

    try:
        _start(serve, n_workers - 1, started)
        serve()
        _join(started)
    except BaseException:
        crew.cancel()
        _join(started)
        raise
    if crew.failure is not None:
        raise crew.failure


def stream(items: Iterable[Item], n_workers: int, work: Callable[[Item], None]) -> None:
    """Do ``work`` on items as they come, on ``n_workers`` threads.

    Items are taken on the caller's thread, each when a worker is free for it: there are never more
    of them than workers, however many are to come.

    Args:
        items: what to work on.
        n_workers: how many threads there may be beside the caller's.
        work: does one item.

    Raises:
        Whatever the first failing item did, or ``items``. No more of them are taken then.
    """
    crew = _Crew(sys.maxsize)
    free = threading.Semaphore(n_workers)
    line: SimpleQueue[tuple[int, Item] | None] = SimpleQueue()

    def serve() -> None:
        while (taken := line.get()) is not None:
            crew.attempt(taken[0], partial(work, taken[1]))
            del taken  # an item must not outlive its turn, it may be large
            free.release()

    started: list[threading.Thread] = []
    try:
        _start(serve, n_workers, started)
        if not started:
            raise RuntimeError("the system grants no thread to work on")
        _feed(crew, items, free, line)
        _dismiss(line, started)
    except BaseException:
        crew.cancel()
        _dismiss(line, started)
        raise
    if crew.failure is not None:
        raise crew.failure


def _feed(
    crew: "_Crew",
    items: Iterable[Item],
    free: threading.Semaphore,
    line: "SimpleQueue[tuple[int, Item] | None]",
) -> None:
    iterator = iter(items)  # not enumerate(), which holds on to what it gave last
    for number in itertools.count():
        free.acquire()
        if crew.failure is not None:
            return
        try:
            line.put((number, next(iterator)))
        except StopIteration:
            return


def _dismiss(line: "SimpleQueue[tuple[int, Item] | None]", started: list[threading.Thread]) -> None:
    for _ in started:
        line.put(None)
    _join(started)


def _start(serve: Callable[[], None], n_threads: int, started: list[threading.Thread]) -> None:
    """Start threads, or as many as the system grants."""
    for _ in range(n_threads):
        thread = threading.Thread(target=serve)
        try:
            thread.start()
        except RuntimeError:
            return
        started.append(thread)


def _join(started: list[threading.Thread]) -> None:
    for thread in started:
        thread.join()


def between_iterations() -> Callable[[], None] | None:
    """What inference has to call now and then on this thread, for a crew may want it to end."""
    turn: _Turn | None = getattr(_here, "turn", None)
    return None if turn is None else turn.go_on


class _Crew:
    def __init__(self, n_items: int) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self.end = n_items  # items from here on are not wanted
        self.failure: BaseException | None = None

    def serve(self, hire: Callable[[], Work]) -> None:
        """Work until nothing is left to do."""
        work: Work | None = None

        def do(item: int) -> None:
            nonlocal work
            work = work or hire()
            work(item)

        while (item := self._take()) is not None:
            self.attempt(item, partial(do, item))

    def attempt(self, item: int, do: Callable[[], None]) -> None:
        """Do an item's work, unless it is not wanted any more."""
        if item >= self.end:
            return
        with _turn(self, item):
            try:
                do()
            except _Cancelled:
                return
            except Exception as error:
                self._fail(item, error)
            except BaseException as error:  # an exit, which would end no more than this thread
                self._fail(0, error)

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

    def _fail(self, item: int, error: BaseException) -> None:
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
