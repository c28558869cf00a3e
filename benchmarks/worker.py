# SPDX-License-Identifier: MIT
"""One contender, one case, one process: what ``bench_refine.py`` starts for every measurement.

Reads the contender's inputs from the folder it is given and prints one line of JSON:
seconds of the first call (cold) and of those after it (warm), and the peak of resident memory above
what was resident once the libraries and the inputs were loaded.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from parameters import PARAMETERS
from peers import contender

# At least one warm call and up to five; more of them while they are short.
WARM_SECONDS, SHORT_SECONDS = 1.0, 0.1
WARM_CALLS = 5


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` or its peak ``VmHWM`` of this process; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def reset_peak() -> int:
    """Start the memory peak anew where that is allowed; what it then is."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmHWM")


def enough(warm: list[float]) -> bool:
    """Whether these calls after the first are a sample."""
    spent = sum(warm)
    return bool(warm) and (
        spent > WARM_SECONDS or (len(warm) >= WARM_CALLS and spent > SHORT_SECONDS)
    )


def main() -> None:
    folder, name, parameters, threads, isa, answer = sys.argv[1:]
    who = contender(name, int(threads), isa or None)
    x, image = (np.load(Path(folder, f"{what}.npy")) for what in (who.takes, "image"))
    before = reset_peak()

    seconds: list[float] = []
    while True:
        start = time.perf_counter()
        q = who.refine(x, image, PARAMETERS[parameters])
        seconds.append(time.perf_counter() - start)
        if enough(seconds[1:]):
            break
        del q  # a result that is kept would count as memory of the next call
    peak = resident("VmHWM") - before

    np.save(answer, q)
    warm = float(np.median(seconds[1:]))
    what = {"name": who.name, "version": who.version, "isa": who.isa, "threads": who.threads}
    print(json.dumps({**what, "cold": seconds[0], "warm": warm, "peak": peak}))


if __name__ == "__main__":
    main()
