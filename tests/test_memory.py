# SPDX-License-Identifier: MIT
"""Memory: repeated use gives back what it takes."""

import sys

import pytest

from subprocesses import run_script

REPEAT = """
import gc
probs, image = problem()
rng = np.random.default_rng(0)
features = rng.normal(size=(5000, 5)).astype(np.float32)
values = rng.normal(size=(5000, 4)).astype(np.float32)

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def use(i):
    {use}

for i in range(30):                 # caches, thread pool and allocator reach their size
    use(i)
before = resident()
for i in range(200):
    use(i)
print(resident() - before)
"""

USES = {
    "refine": "crfseg.refine(probs, image)",
    "refine other sizes": "crfseg.refine(probs[:, : 60 + i % 20], image[: 60 + i % 20])",
    "fine": "crfseg.refine(probs[:, :20, :24], image[:20, :24], accuracy='fine')",
    "lattice": "crfseg.Lattice(features, fill=i % 2, normalization='symmetric').filter(values)",
    "trace": "crfseg.DenseCRF(crfseg.unary_from_probs(probs), [crfseg.Bilateral(image)])"
    ".infer(2, trace=True, solver=('damped', 'euclidean-frank-wolfe')[i % 2])",
    "errors": """
    try:
        crfseg.refine(probs[:, 1:], image)
    except ValueError:
        pass
    bad = features.copy(); bad[7, 3] = np.nan
    try:
        crfseg.Lattice(bad)
    except ValueError:
        pass
    else:
        raise AssertionError
    """,
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("use", USES)
def test_200_calls_do_not_grow(use: str) -> None:
    """One leaked copy of the smallest array per call would be 15 MiB or more after 200 calls.

    The allowance of 4 MiB is for an allocator that splits its arenas differently from run to run.
    """
    grown = int(run_script(REPEAT.format(use=USES[use]), timeout=120))
    assert grown < 4 * 2**20, f"{grown / 2**20:.1f} MiB more after 200 calls"


CACHE = """
from crfseg import _core

probs, image = problem(height=360, width=480)
expected = crfseg.refine(probs, image)
assert _core.cached_bytes() == 0
_core.set_cache_limit(50_000_000)
for _ in range(3):
    assert (crfseg.refine(probs, image) == expected).all()
    print(_core.cached_bytes())
_core.clear_cache()
print(_core.cached_bytes())
crfseg.refine(probs, image)
_core.set_cache_limit(0)
print(_core.cached_bytes())
"""


def test_cache_keeps_memory_up_to_its_limit() -> None:
    *kept, cleared, off = map(int, run_script(CACHE).split())
    assert all(1_000_000 < held <= 50_000_000 for held in kept)
    assert cleared == off == 0


PEAK = """
from pathlib import Path

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

probs, image = problem(height=360, width=480, n_labels={n_labels})
image = image[::6, ::6].repeat(6, 0).repeat(6, 1)  # noise would make a vertex of every corner
crfseg.refine(probs[:, :60, :60], image[:60, :60], threads=2)  # code, and threads with their stacks
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
for _ in range(3):
    result = crfseg.refine(probs, image, bilateral={bilateral}, threads={threads})
    result = None
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("n_labels", "bilateral", "most"),
    [(2, (80, 13, 10), 92), (21, (80, 13, 10), 226), (21, (10, 1, 10), 215)],
    ids=["two labels", "many labels", "many vertices"],
)
def test_peak_of_a_call(
    n_labels: int, bilateral: tuple[int, int, int], most: int, threads: int
) -> None:
    """Bytes per pixel that a call holds at most, its result included and its inputs not.

    With 21 labels the result and the unary take 180, and where pixels lie in two lattices another
    54. Vertices that take more than half of the result have to be gone before it is there.
    """
    script = PEAK.format(n_labels=n_labels, bilateral=bilateral, threads=threads)
    peak = int(run_script(script, timeout=120)) / (360 * 480)
    assert peak < most, f"{peak:.0f} bytes per pixel, at most {most} expected"
