# SPDX-License-Identifier: MIT
"""The benchmark of volumes runs: a small volume through a worker, rows and verdicts."""

from pathlib import Path

import pytest

from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks")

ROUND = """
from dataclasses import replace
from pathlib import Path
import bench_volumes as bench
import volumes
from rounds import Agreement, Entry, compare
from table import read_machine, write_csv

folder = Path({folder!r}, "brats3d")
folder.mkdir()
rng = np.random.default_rng(0)
mask = np.zeros((7, 8, 9), bool)
mask[1:6, 1:7, 1:8] = True
prob = np.moveaxis(rng.dirichlet(np.ones(5), mask.shape), -1, 0)[1:]
np.savez(
    folder / "a_pat7.npz", image=rng.integers(0, 256, (2, *mask.shape), dtype=np.uint8), mask=mask,
    prob=np.round(255 * prob).astype(np.uint8),
    label=rng.integers(0, 5, mask.shape, dtype=np.uint8),
)
(path,) = volumes.paths(folder.parent)
volume = volumes.read_volume(path)
assert (volume.name, volume.probs.shape) == ("brats3d-pat7", (5, 5, 6, 7))

report = bench.run_worker(path, Entry("crfseg", 2), folder / "q.npy")
assert report["threads"] == 2 and report["warm"] > 0 and report["processor"] > 0
found = crfseg.refine(volume.probs, volume.channels, iterations=bench.ITERATIONS)
np.save(folder / "expected.npy", found)
assert compare(folder / "q.npy", folder / "expected.npy") == (1, 0, 0)

# The same model from features given row by row, as the peer is fed with them.
spatial, both = volumes.features(volume, bench.PARAMETERS)
terms = [crfseg.Features(spatial, weight=1.0), crfseg.Features(both, weight=3.0)]
model = crfseg.DenseCRF(crfseg.unary_from_probs(volume.probs), terms)
np.testing.assert_allclose(found, model.infer(bench.ITERATIONS, skip=False).q, rtol=0, atol=2e-5)

peers = [dict(report, warm=7 * report["warm"])]
row = bench.row_of(path, Entry("crfseg", 2), [report], peers, Agreement(1.0, 0.0, 0.0))
assert abs(row.ratio - 7) < 1e-9 and row.processor_ratio == 1 and row.size == "5x6x7"
assert bench.faults_of([row]) == []
slow, wrong = replace(row, ratio=5.0), replace(row, labels_agree=0.9)
assert "must be x6" in bench.faults_of([slow])[0]
assert "agrees on" in bench.faults_of([wrong])[0]
write_csv(folder / "rows.csv", [row], read_machine())
assert "brats3d-pat7,5x6x7,5,2," in (folder / "rows.csv").read_text()
"""


def test_a_small_volume_goes_through_a_worker_into_a_csv(tmp_path: Path) -> None:
    place = f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    body = ROUND.format(folder=str(tmp_path))
    assert run_script(place + body + '\nprint("ok")\n').strip() == "ok"
