# SPDX-License-Identifier: MIT
"""The plain PyTorch lattice that the CUDA half is compared with is the same filter and model.

In a Python of its own, because benchmarks/ has file names that tests/ has too.
"""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (make torch)")

from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks")

BEGIN = f"""
sys.path.insert(0, {str(BENCHMARKS)!r})
import torch
torch.set_num_threads(1)
from torch_lattice import Kernel, TorchLattice, features_of, refine
from gpu import scenes
"""
FILTER = """
for dim, spread in ((1, 3.0), (2, 9.0), (5, 2.0), (7, 1.0)):
    rng = np.random.default_rng(dim)
    features = (spread * rng.normal(size=(300, dim))).astype(np.float32)
    values = rng.normal(size=(300, 4)).astype(np.float32)
    theirs = crfseg.Lattice(features, normalization="symmetric")
    lattice = TorchLattice(torch.from_numpy(features)[None])
    assert lattice.n_vertices == theirs.n_vertices, (dim, lattice.n_vertices)
    found = Kernel(lattice).filter(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found, theirs.filter(values), rtol=0, atol=3e-6)

# Vertices: whole numbers that add up to 0, congruent modulo d + 1, each once.
vertices = lattice.coordinates().numpy()
assert not vertices.sum(1).any() and len(np.unique(vertices, axis=0)) == len(vertices)
assert not ((vertices - vertices[:, :1]) % (dim + 1)).any()
# Weights of a point's corners add up to 1, and none is negative.
assert lattice.weight.min() >= -1e-6
np.testing.assert_allclose(lattice.weight.sum(1), 1, rtol=0, atol=1e-6)
try:
    TorchLattice(torch.tensor([[[0.0] * 7], [[3e3] * 7]]))
except ValueError as error:
    assert "63 bits" in str(error)
else:
    raise AssertionError("keys wrapped")
"""
BATCH = """
images = torch.from_numpy(scenes.blocks(3, 17, 23))
values = torch.from_numpy(np.random.default_rng(0).normal(size=(3 * 17 * 23, 2))).float()
together = TorchLattice(features_of(images, 20.0, 13.0)).filter(values)
each = [TorchLattice(features_of(image[None], 20.0, 13.0)) for image in images]
alone = torch.cat([one.filter(v) for one, v in zip(each, values.chunk(3))])
torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
places = TorchLattice(features_of(images, 3.0, None))
shared = places.repeated(3).filter(values)
torch.testing.assert_close(shared, torch.cat([places.filter(v) for v in values.chunk(3)]))
"""
REFINE = """
logits, images = scenes.logits(2, 5, 30, 41), scenes.blocks(2, 30, 41)
model = dict(spatial=(3.0, 3.0), bilateral=(60.0, 10.0, 8.0), iterations=10)
found = refine(torch.from_numpy(logits), torch.from_numpy(images), **model).numpy()
expected = crfseg.refine(
    logits, images, kind="logits", layout="NCHW", returns="probs", keep_thin=0, skip=False, **model
)
assert np.abs(found - expected).max() < 1e-5, np.abs(found - expected).max()
start = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
assert np.abs(found - start).max() > 0.1
"""


SECTIONS = """
import importlib, warnings
from pathlib import Path
from gpu.report import LeftOut, Report
from gpu.sections import Context

warnings.simplefilter("ignore")
found = {}
for name in ("lattice", "refined", "ops", "speed", "kernels", "training", "rivals"):
    report = Report(Path(FOLDER) / f"{name}.json")
    try:
        importlib.import_module("gpu." + name).run(Context(report, Path(FOLDER), True, True))
    except LeftOut as why:
        assert "make emulated" in str(why)
    checks, measured = report.found["checks"], report.found["measured"]
    assert all(check["passed"] for check in checks), [one for one in checks if not one["passed"]]
    found[name] = len(checks)
    for what in {
        "speed": ["80/13, batch 1, float32, ms", "121/5, batch 2, float16, images/s"],
        "kernels": ["80/13, batch 1, all kernels, us"],
        "training": ["backward, forward passes"],
        "rivals": ["batch 1, times as fast as the plain torch lattice", "CPU twin, 1 threads, ms"],
    }.get(name, []):
        assert measured[what]["value"] > 0
    if name == "lattice" and checks:
        assert sum("keys, in their order" in check["what"] for check in checks) == 10
assert found["refined"] >= 20 and found["ops"] >= 30 and found["speed"] == found["rivals"] == 2
"""


def test_the_plain_lattice() -> None:
    run_script(BEGIN + FILTER + BATCH + REFINE)


def test_sections_that_need_torch_rehearse(tmp_path: Path) -> None:
    """What ``gpu_check.py`` asks of tensors, asked of the CPU's; keys equal the plain lattice's."""
    run_script(BEGIN + f"FOLDER = {str(tmp_path)!r}" + SECTIONS, timeout=200)
