# SPDX-License-Identifier: MIT
"""CUDA graphs: room for what refine() cannot count while a graph is captured.

room = crfseg.graphs.Room(max_vertices=200_000)
with torch.cuda.graph(graph), room.held():
    refined = crfseg.refine(probs, image)
graph.replay()
room.check()
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import _check as check
from ._fault_device import NoRoomError

_here = threading.local()


class Room:
    """How large lattices of the calls inside ``held`` may become; those calls wait for nothing.

    They find out neither whether there was room nor whether scores and images are sound: ``check``
    does, after any of them and after any replay of a graph made of them. A room is for one graph.

    Args:
        max_vertices: of each lattice: of a bilateral kernel's, all images of the batch together.
        max_rows: of each lattice: vertices that tiles of 16 x 16 pixels touch, added up over the
            tiles, which are 2 to 8 times as many as vertices. None is room for any number, 24 bytes
            per pixel and label for a kernel of positions and three colours.

    Raises:
        TypeError, ValueError: if an argument is not a positive number.
    """

    def __init__(self, max_vertices: int, max_rows: int | None = None) -> None:
        where = "graphs.Room"
        self.max_vertices = check.integer(where, "max_vertices", max_vertices, at_least=1)
        self.max_rows = (
            None if max_rows is None else check.integer(where, "max_rows", max_rows, at_least=1)
        )
        self._checks: list[Callable[[], None]] = []

    @contextmanager
    def held(self) -> Iterator["Room"]:
        """Use this room in all calls on this thread; what it was used for before is forgotten."""
        outer = current_room()
        if outer is not self:
            self._checks.clear()
        _here.room = self
        try:
            yield self
        finally:
            _here.room = outer

    def watch(self, one: Callable[[], None]) -> None:
        """Do this too when everything is checked."""
        self._checks.append(one)

    def check(self) -> None:
        """Wait for the last run of everything that used this room, and say what was wrong with it.

        Raises:
            CudaError: if a lattice had no room, or values were none that ``refine`` would have
                taken; the results are then worthless.
        """
        lacking = [found for one in self._checks if (found := _shortage(one)) is not None]
        if lacking:
            raise max(lacking, key=lambda error: error.lacking)


def _shortage(check_one: Callable[[], None]) -> NoRoomError | None:
    try:
        check_one()
    except NoRoomError as error:
        return error
    return None


def current_room() -> Room | None:
    """The room that this thread holds."""
    return getattr(_here, "room", None)
