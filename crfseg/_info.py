# SPDX-License-Identifier: MIT
"""What this installation is."""

from typing import Any

from ._native import core, get_num_threads, usable_cores
from .cache import holding


def info() -> dict[str, Any]:
    """Describe this installation; what a bug report should quote.

    Returns:
        A dict with ``version``; ``isa`` (the instruction set in use, forced by ``CRFSEG_ISA``) and
        ``isas`` (those this build and processor offer); ``threads`` (see ``get_num_threads``) and
        ``cores`` (those this process may use); ``cache_limit`` (see ``set_cache_limit``) and
        ``cache_bytes`` (what is kept now); ``cuda`` (whether this build can use a CUDA device);
        ``python``, ``numpy`` and ``platform``.
    """
    import platform

    import numpy as np

    from . import __version__

    kept = holding()
    return {
        "version": __version__,
        "isa": core.isa(),
        "isas": core.available_isas(),
        "threads": get_num_threads(),
        "cores": usable_cores(),
        "cache_limit": kept.limit,
        "cache_bytes": kept.held,
        "cuda": False,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
