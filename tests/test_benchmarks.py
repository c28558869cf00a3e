# SPDX-License-Identifier: MIT
"""The benchmarks run: a small case through a worker's process, rows, CSV, and their verdicts.

Each script has a Python of its own, because benchmarks/ has file names that tests/ has too.
"""

from pathlib import Path

import pytest

from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks")

SMALL_CASE = """
from dataclasses import replace
from cases import CASES

problem = replace(CASES["msrc"], height=48, width=64, n_labels=4, n_live=3).load()
assert problem.image.shape == (48, 64, 3) and problem.image.dtype == np.uint8
assert problem.probs.shape == (4, 48, 64) and problem.probs.dtype == np.float32
np.testing.assert_allclose(problem.probs.sum(0), 1, rtol=0, atol=1e-5)
assert abs(problem.probs.max(0).mean() - CASES["msrc"].confidence) < 0.02
"""

ROUND = """
import csv
from pathlib import Path
from bench_refine import Entry, compare, run_worker
from parameters import DEFAULT, PARAMETERS
from table import Row, read_machine, write_csv

folder = Path({folder!r})
np.save(folder / "probs.npy", problem.probs)
np.save(folder / "image.npy", problem.image)
report = run_worker(folder, Entry("crfseg fast"), DEFAULT, folder / "q.npy")
assert report["name"] == "crfseg" and report["threads"] == 1
assert report["cold"] > 0 and report["warm"] > 0
spatial, bilateral = PARAMETERS[DEFAULT]
np.save(folder / "expected.npy", crfseg.refine(*problem, spatial=spatial, bilateral=bilateral))
agreement = compare(folder / "q.npy", folder / "expected.npy")
assert agreement == (1, 0, 0), agreement

row = Row.of(
    case="small", photo="coffee", size=(64, 48, 4), parameters=DEFAULT, iterations=10,
    runs=[report], peer_runs=[dict(report, cold=2 * report["cold"])], agreement=agreement,
)
machine = read_machine()
write_csv(folder / "new" / "rows.csv", [row, row], machine)
with (folder / "new" / "rows.csv").open() as file:
    first, second = csv.DictReader(file)
assert first == second and first["case"] == "small" and first["processor"] == machine.processor
assert float(first["cold_ratio"]) == 2 and float(first["warm_ratio"]) == 1
"""

VERDICTS = """
from types import SimpleNamespace
from bench_refine import PEER, Agreement, Entry, bars, disagreements

a, b = Agreement(0.9, 2e-3, 0.1), Agreement(0.9, 1e-3, 0.2)
assert a.worst(b) == b.worst(a) == (0.9, 2e-3, 0.2)
lost = Agreement(0.99, float("nan"), 0.0)
assert np.isnan(lost.worst(a).mean_dq) and np.isnan(a.worst(lost).mean_dq)

ours = Entry("crfseg fast")
for agreement, n_wrong in ((Agreement(0.9985, 1e-3, 1), 0), (Agreement(0.9984, 1e-3, 1), 1),
                           (Agreement(0.9985, 1.1e-3, 1), 1), (lost, 1)):
    assert len(disagreements("voc", "", {{PEER: agreement, ours: agreement}})) == n_wrong

def verdicts(threads, warm_ratio, peak_ratio, entry=ours):
    row = SimpleNamespace(threads=threads, warm_ratio=warm_ratio, peak_ratio=peak_ratio)
    return [met for _, met in bars([entry], [row])]

assert verdicts(1, 3.5, 0.99) == [True, True]
assert verdicts(1, 3.49, 1.0) == [False, False]
assert verdicts(2, 6.0, 0.5) == [True, True] and verdicts(2, 5.99, 0.5) == [False, True]
assert verdicts(8, 1.0, 0.5) == [True] and verdicts(8, 1.0, float("nan")) == []
assert verdicts(1, 1.0, 1.0, PEER) == []
assert verdicts(1, 1.0, 1.0, Entry("crfseg fast", 1, "baseline")) == []
"""


def run(body: str, **words: str) -> None:
    place = f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    assert run_script(place + body.format(**words) + '\nprint("ok")\n').strip() == "ok"


def test_a_small_case_goes_through_a_worker_into_a_csv(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(SMALL_CASE + ROUND, folder=str(tmp_path))


def test_verdicts_on_agreement_speed_and_memory() -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(VERDICTS)
