# SPDX-License-Identifier: MIT
"""The lines of documents, which run as printed."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ROOT / "docs"


def blocks(document, language="python"):
    """What stands between fences, top to bottom."""
    text = document.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def run(block, names, document):
    """Run a block; what it prints is what stands behind its prints, which all have something."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, document, "exec"), names)
    prints = [line for line in block.splitlines() if line.lstrip().startswith("print(")]
    expected = [line.partition("  # ")[2] for line in prints]
    found = printed.getvalue().splitlines()
    assert found == expected, f"{document} prints {found}, and says {expected}"
