# SPDX-License-Identifier: MIT
"""Programs of the toolkit that watch a section: compute-sanitizer and ncu."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from gpu.sections import REPOSITORY, Context


class Watched(NamedTuple):
    """How a watched section ended; no code where it had to be killed."""

    code: int | None
    printed: str
    found: dict[str, Any]


def watch(context: Context, tool: list[str], module: str, seconds: float) -> Watched:
    """Run a module's ``run`` under a tool."""
    told = context.scratch / "sections" / f"{module}.watched.json"
    told.unlink(missing_ok=True)
    script = REPOSITORY / "benchmarks/gpu_check.py"
    words = ["--module", module, "--report", told, "--scratch", context.scratch]
    command = [*tool, sys.executable, script, *words, *["--emulated"] * context.emulated]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as hang:
        return Watched(None, (hang.stdout or b"").decode(errors="replace"), read(told))
    return Watched(done.returncode, done.stdout.decode(errors="replace"), read(told))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"checks": []}
    return found
