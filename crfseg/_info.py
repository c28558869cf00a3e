# SPDX-License-Identifier: MIT
"""What this installation is."""

from typing import Any

from ._native import core, get_num_threads, usable_cores, why_no_cuda
from .cache import holding


def info() -> dict[str, Any]:
    """Describe this installation; what a bug report should quote.

    Returns:
        A dict with ``version``; ``isa`` (the instruction set in use, forced by ``CRFSEG_ISA``) and
        ``isas`` (those this build and processor offer); ``threads`` (see ``get_num_threads``) and
        ``cores`` (those this process may use); ``cache_limit`` (see ``set_cache_limit``) and
        ``cache_bytes`` (what is kept now); ``cuda`` (whether CUDA devices can be used here) and
        ``why_no_cuda`` (None, or what is missing); ``python``, ``numpy`` and ``platform``.
    """
    import platform

    import numpy as np

    from . import __version__

    kept, why_not = holding(), why_no_cuda()
    return {
        "version": __version__,
        "isa": core.isa(),
        "isas": core.available_isas(),
        "threads": get_num_threads(),
        "cores": usable_cores(),
        "cache_limit": kept.limit,
        "cache_bytes": kept.held,
        "cuda": why_not is None,
        "why_no_cuda": why_not,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
