# SPDX-License-Identifier: MIT
"""Tables and figures of the documents, from ``benchmarks/results``: ``make tables``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` and is written by this script
alone, so that documents say what was measured; ``--check`` only says whether they do.
"""

import argparse
import re
import sys
from pathlib import Path

from figure import roofline
from results import Results
from tables import TABLES
from work import flops, flops_of_peak, streamed_bytes

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = tuple(
    ROOT / name
    for name in (
        "README.md",
        "docs/performance.md",
        "docs/quality.md",
        "docs/limits.md",
        "docs/solvers.md",
        "docs/training.md",
    )
)
FIGURE = ROOT / "docs/pictures/roofline.svg"
MEMORIES = {"L2": 512 << 10, "L3": 8 << 20, "memory": 128 << 20}  # sets that were read
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(document: str, results: Results) -> str:
    """``document`` with its tables written anew."""

    def table(block: re.Match[str]) -> str:
        lines = TABLES[block[2]](results)
        return "".join([block[1], *(f"{line}\n" for line in lines), block[3]])

    return BLOCK.sub(table, document)


def drawn(results: Results) -> str:
    """The roofline of the headline's full evaluation with one thread."""
    machine = {(m.what, m.bytes): m.value / 1e9 for m in results.machine(threads=1)}
    full = results.iterations()[0]
    peaks = {8 * width: peak for (what, width), peak in machine.items() if what == "fma"}
    return roofline(
        {f"multiply-adds, {bits} bits": peak for bits, peak in peaks.items()},
        {name: machine["read", size] for name, size in MEMORIES.items()},
        flops(full.labels) / streamed_bytes(full.labels),
        peaks[min(peaks)] * flops_of_peak(full.labels),
        {"an iteration, every pixel": flops(full.labels) / full.value / 1e9},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    results = Results.read(Path(__file__).with_name("results"))
    new = {path: filled(path.read_text(encoding="utf-8"), results) for path in DOCUMENTS}
    new[FIGURE] = drawn(results)
    stale = [
        path
        for path, text in new.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if args.check and stale:
        sys.exit(f"[tables] not what was measured: {', '.join(p.name for p in stale)}; make tables")
    for path in stale:
        path.write_text(new[path], encoding="utf-8")
        print(f"# {path.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
