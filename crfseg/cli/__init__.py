# SPDX-License-Identifier: MIT
"""The command ``crfseg``: refine files and data sets, measure results, describe the installation.

A failure is one sentence on stderr and exit code 1; a command line that makes no sense is exit
code 2, before any file is read. Of several images a bad one, or one without scores, is reported,
the rest are refined, and the exit code is 1. Typer is imported when the command runs, not before.
"""

import sys
from collections.abc import Sequence

from . import wording

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        from .commands import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        needed = f"the command needs {missing}; install it with: pip install 'dense-crfseg[cli]'"
        print(f"crfseg: error: {needed}", file=sys.stderr)
        return 1
    try:
        code = app(words, prog_name="crfseg", standalone_mode=False)
    except Exception as error:  # the one place where a failure becomes a sentence
        if wording.is_about_usage(error):
            wording.complain_about_usage(error)
            return 2
        wording.complain(error, "--debug" in words)
        return 1
    if code == _INTERRUPTED:  # what Typer makes of Ctrl-C
        print("crfseg: interrupted", file=sys.stderr)
    return int(code or 0)
