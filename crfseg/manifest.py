# SPDX-License-Identifier: MIT
"""What has been made of a data set: a list beside the results that a killed run leaves valid.

A file of lines of JSON, each about one result: its path, a key of everything that it was made of,
and its size. A line is added when the result has taken its place, in one write; what a kill cuts
off is not read. Before a result of the list is replaced, a line without key takes it off, so that a
kill in between cannot leave a new file under an old key. The last line about a name counts.
"""

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _check as check
from .io import atomic_write

NAME = "crfseg-manifest.jsonl"
COMPARE = ("time", "contents")
"""What tells that a file has changed: its size and the time of its last change, or its bytes."""

_FORMAT = 1
_DIGEST = 16  # bytes: 2^64 results before two different ones are likely to get one key
_CHUNK = 1 << 20
# Of network file systems without locks: there, users see to it themselves.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


class Manifest:
    """The list of one folder; use it inside ``opened``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries = _read(path)
        self._write_anew()  # which drops what is cut off or outdated
        self._file = path.open("ab", buffering=0)

    def holds(self, name: str, key: str, out: Path) -> bool:
        """Whether this result has been made of this, and is there as it was written."""
        if self._entries.get(name, ("", 0))[0] != key:
            return False
        try:
            return out.stat().st_size == self._entries[name][1]
        except FileNotFoundError:
            return False

    def forget(self, name: str) -> None:
        """Take a result off the list, before it is replaced."""
        with self._lock:
            if self._entries.pop(name, None) is not None:
                self._append({"name": name, "key": None})

    def add(self, name: str, key: str, out: Path) -> None:
        """Put a result that has been written on the list."""
        n_bytes = out.stat().st_size
        with self._lock:
            self._append({"name": name, "key": key, "bytes": n_bytes})
            self._entries[name] = key, n_bytes

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _write_anew(self) -> None:
        with atomic_write(self._path) as file:
            for name, (key, n_bytes) in self._entries.items():
                file.write(json.dumps({"name": name, "key": key, "bytes": n_bytes}).encode())
                file.write(b"\n")


@contextmanager
def opened(folder: Path) -> Iterator[Manifest]:
    """The manifest of a folder, which no other run may have at the same time.

    Raises:
        OSError: if the folder cannot be written to.
        RuntimeError: if another run has it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        manifest = Manifest(folder / NAME)
        try:
            yield manifest
        finally:
            manifest.close()
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Lock a folder until ``handle`` is closed, or the process ends in whatever way."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sentence = f"{folder}: another run is writing there; expected it to have ended"
        raise RuntimeError(sentence) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _read(path: Path) -> dict[str, tuple[str, int]]:
    entries: dict[str, tuple[str, int]] = {}
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            # Cut off, or somebody else's.
            with suppress(KeyError, OverflowError, RecursionError, TypeError, ValueError):
                entry = json.loads(line)
                entries.pop(entry["name"], None)
                if entry["key"] is not None:
                    entries[entry["name"]] = str(entry["key"]), int(entry["bytes"])
    return entries


# --- keys -----------------------------------------------------------------------------------------


def key_of(parameters: str, *sources: Any, compare: str) -> str:
    """What stands for a result made of these.

    Args:
        parameters: what ``describe`` makes of everything beside the inputs.
        sources: paths, or arrays, whose contents always count.
        compare: one of ``COMPARE``.

    Raises:
        OSError: if a file is not there or cannot be read.
    """
    marks = [_mark(source, compare) for source in sources]
    return _digest(json.dumps([_FORMAT, parameters, marks]).encode())


def describe(value: Any) -> str:
    """The same text for the same parameters, another one for others.

    Raises:
        TypeError: for what has no contents that could be compared.
    """
    return json.dumps(_plain(value), sort_keys=True)


def _mark(source: Any, compare: str) -> Any:
    if not isinstance(source, Path):
        return _plain(np.asarray(source))
    if compare == "time":
        status = source.stat()
        return [status.st_size, status.st_mtime_ns]
    found = hashlib.blake2b(digest_size=_DIGEST)
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        return [type(value).__name__, parts]
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise check.mistyped(
            "refine_dataset",
            f"a {type(value).__name__} among the parameters has no contents to compare; expected "
            "numbers, names, arrays, terms and solvers",
        )
    if array.ndim == 0:
        return array.item()
    return [array.dtype.str, array.shape, _digest(np.ascontiguousarray(array).view(np.uint8))]
