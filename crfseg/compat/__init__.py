# SPDX-License-Identifier: MIT
"""Other libraries' interfaces on this library's core, for programs written against them.

``crfseg.compat.pydensecrf`` has the modules ``densecrf``, ``utils`` and ``eigen``. Change the
import, or leave the program as it is and call ``install()`` before it.
"""

import sys
from importlib import import_module

__all__ = ["install"]

_NAME = "pydensecrf"
_MODULES = ("", ".densecrf", ".eigen", ".utils")


def install() -> None:
    """Make ``import pydensecrf.densecrf`` (``.utils``, ``.eigen``) find the modules of this folder.

    In this process, for whatever imports it from now on. Calling it again changes nothing.

    Raises:
        ImportError: if another pydensecrf has been imported already: some of the program would use
            one and some the other.
    """
    ours = {_NAME + name: import_module(f"{__name__}.{_NAME}{name}") for name in _MODULES}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _NAME and module is not ours.get(name):
            origin = getattr(module, "__file__", None) or "somewhere else"
            raise ImportError(
                f"[compat.install] {name} has been imported already, from {origin}; "
                "expected install() before the first import of it"
            )
    sys.modules.update(ours)
