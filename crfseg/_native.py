# SPDX-License-Identifier: MIT
"""The native modules: where they are, how many threads they get. Nothing else imports them."""

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import _check as check
from . import _fault as fault

try:
    from . import _core as core
except ImportError as error:
    raise ImportError(
        "you are in the checkout, whose crfseg folder has no native module and hides an installed "
        "crfseg: run from another folder, use the `crfseg` command, or install it editable (`pip "
        "install --editable .`); if nothing is installed yet, `pip install .` in the checkout"
        if (Path(__file__).parent.parent / "CMakeLists.txt").exists()
        else f"crfseg cannot load its native module ({error}): install it again"
    ) from error

_why_no_module = ""
if TYPE_CHECKING:
    from . import _cuda as cuda
else:
    try:
        cuda = importlib.import_module("._cuda", __package__)
    except ImportError as error:
        cuda = None
        _why_no_module = (
            "crfseg was built without it, as no CUDA compiler (nvcc 11.8 or newer) was found or "
            "CRFSEG_CUDA=OFF was said: docs/cuda.md"
            if isinstance(error, ModuleNotFoundError)
            else f"its module cannot be loaded ({error})"
        )

__all__ = [
    "NORMALIZATIONS",
    "core",
    "cuda",
    "get_num_threads",
    "set_num_threads",
    "threads_of_call",
    "usable_cores",
    "why_no_cuda",
]

NORMALIZATIONS: Final = {
    "symmetric": core.NORMALIZATION_SYMMETRIC,
    "after": core.NORMALIZATION_AFTER,
    "before": core.NORMALIZATION_BEFORE,
    "none": core.NORMALIZATION_NONE,
}
MOST_THREADS: Final = 1024
_VARIABLE: Final = "CRFSEG_NUM_THREADS"
_chosen: int | None = None


def why_no_cuda() -> str | None:
    """None where a CUDA device can be used, else what is missing."""
    module: Any = cuda
    if module is None:
        return _why_no_module
    n_devices, why = module.availability()
    return None if n_devices > 0 else why


def set_num_threads(threads: int | None) -> None:
    """Set how many threads every later call uses that is not given ``threads=`` of its own.

    Args:
        threads: 1 to 1024, or None to go back to the default of ``get_num_threads``.

    Raises:
        TypeError, ValueError: if ``threads`` is not such a number.
    """
    global _chosen  # noqa: PLW0603 - one setting for the whole process is what this is
    _chosen = None if threads is None else _checked("set_num_threads", "threads", threads)


def get_num_threads() -> int:
    """Return the number of threads used by default.

    What ``set_num_threads`` chose; else the environment variable ``CRFSEG_NUM_THREADS``; else 1 in
    a daemonic worker process (a ``multiprocessing.Pool`` or DataLoader worker, whose siblings keep
    the other cores busy); else the number of cores that this process may run on.

    Raises:
        ValueError: if ``CRFSEG_NUM_THREADS`` is set and is not a number from 1 to 1024.
    """
    if _chosen is not None:
        return _chosen
    setting = os.environ.get(_VARIABLE)
    if setting:
        if not setting.isdecimal() or not 1 <= int(setting) <= MOST_THREADS:
            raise fault.wrong_variable("get_num_threads", _VARIABLE, setting, 1, MOST_THREADS)
        return int(setting)
    return 1 if _is_daemon() else min(usable_cores(), MOST_THREADS)


def threads_of_call(where: str, threads: int | None) -> int:
    """The ``threads=`` argument of a public call, checked; None means the default."""
    return get_num_threads() if threads is None else _checked(where, "threads", threads)


def _checked(where: str, name: str, threads: Any) -> int:
    return check.integer(where, name, threads, at_least=1, at_most=MOST_THREADS)


def _is_daemon() -> bool:
    # A worker has loaded this module already; a process that has not is no worker.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
