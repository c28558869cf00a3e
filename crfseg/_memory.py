# SPDX-License-Identifier: MIT
"""Says no to a job that cannot fit, if possible before a byte of its input has been touched."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import _fault as fault

_SMALL = 2**28  # below this no machine is asked: it would cost more than it tells
_HELD = 32  # labels of which an inference holds unaries of its own (csrc/cpu/slab_supply.cpp)
PEAK = 3  # times mean_field_bytes is about what an inference takes at its peak
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),  # version 2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # version 1
)
_MEMINFO = Path("/proc/meminfo")


def require(where: str, what: str, n_bytes: int) -> None:
    """Raise MemoryError if ``n_bytes`` are more than this machine can give."""
    if not fits(n_bytes):
        raise fault.too_big(where, what, n_bytes, available())


def fits(n_bytes: int) -> bool:
    """Whether this machine can give ``n_bytes``."""
    return n_bytes <= _SMALL or n_bytes <= available()


@contextmanager
def explained(where: str, what: str) -> Iterator[None]:
    """Turn the bare MemoryError of native code and of numpy into a sentence."""
    try:
        yield
    except MemoryError as error:
        if str(error).startswith("["):  # it is one already
            raise
        raise fault.out_of_memory(where, what) from error


def available() -> int:
    """Bytes that can be had: the least of physical memory, this container's limit and what is free.

    Swap counts as memory. Where the system says nothing, there is no limit.
    """
    limits = [_physical(), _free(), *(_number(_read(path)) for path in _CGROUP_LIMITS)]
    return min((limit for limit in limits if limit is not None), default=2**63)


def mean_field_bytes(n_points: int, n_labels: int, dims: Sequence[int]) -> int:
    """Bytes that one inference needs at least, input and output aside.

    The unary of the labels that are held, padded; per kernel d + 1 vertex indices and weights of
    every point, and as many vertices; and the features (N, d) of the kernel that is being built.
    """
    held = _row_bytes(min(n_labels, _HELD))
    vertices = sum(dim + 1 for dim in dims) * _row_bytes(n_labels)
    return vertices + n_points * (held + sum(map(lattice_bytes, dims)) + 4 * max(dims, default=0))


def unary_bytes(n_points: int, n_labels: int) -> int:
    """Bytes of a unary that is kept, whatever the caller does with his."""
    return n_points * _row_bytes(n_labels)


def lattice_bytes(dim: int) -> int:
    """Bytes of one point in a lattice over ``dim`` features."""
    return 8 * (dim + 1)


def vertex_bytes(n_vertices: int, n_labels: int) -> int:
    """Bytes of the values at lattice vertices.

    Blurs read one copy and write another; points add to rows of their own strip, of which there are
    about as many again.
    """
    return 3 * n_vertices * _row_bytes(n_labels)


def _row_bytes(n_labels: int) -> int:
    """Bytes of one row of labels, padded to 4 or a multiple of 8."""
    return 4 * (4 if n_labels <= 4 else -(-n_labels // 8) * 8)


def _physical() -> int | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return pages + _meminfo().get("SwapTotal", 0) if pages > 0 else None


def _free() -> int | None:
    meminfo = _meminfo()
    if "MemAvailable" not in meminfo:
        return None
    return meminfo["MemAvailable"] + meminfo.get("SwapFree", 0)


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in (_read(_MEMINFO) or "").splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
