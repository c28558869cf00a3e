# SPDX-License-Identifier: MIT
"""Threads: the same bits for any number of them, many Python threads at once, fork, Ctrl-C."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import crfseg
from crfseg import Bilateral, DenseCRF, Features, Gaussian, Lattice
from native import ISAS, instruction_set
from photos import recorded_problem
from subprocesses import run_script

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="fork is what Linux workers use")


def photo_crf(threads: int | None, **options: object) -> DenseCRF:
    image, probs = recorded_problem("astronaut")
    return DenseCRF(
        crfseg.unary_from_probs(probs),
        [Gaussian(3.0, 3.0), Bilateral(image, 60.0, 8.0, 8.0)],
        threads=threads,
        **options,
    )


@pytest.mark.parametrize("accuracy", ["fast", "fine"])
def test_number_of_threads_does_not_change_a_bit(accuracy: str) -> None:
    """19,200 points are cut into more chunks than one; sums run over chunks in a fixed order."""
    results = []
    for threads in (1, 2, 3, 5, 8):
        crf = photo_crf(threads, accuracy=accuracy)
        found = crf.infer(5, trace=True)
        labels = found.q.argmax(axis=0)
        results.append((found.q, found.trace, crf.free_energy(found.q), crf.energy(labels)))
    for q, trace, free_energy, energy in results[1:]:
        np.testing.assert_array_equal(q, results[0][0])
        assert list(trace) == list(results[0][1])
        assert (free_energy, energy) == results[0][2:]


def test_number_of_threads_does_not_change_a_bit_of_the_filter() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(scale=3, size=(30000, 4)).astype(np.float32)
    values = rng.normal(size=(30000, 5)).astype(np.float32)
    for fill, passes in ((0, 1), ((1, 4), 2)):
        one = Lattice(features, fill=fill, passes=passes, normalization="symmetric", threads=1)
        expected, adjoint = one.filter(values), one.filter_transpose(values)
        for threads in (2, 3, 7):
            many = Lattice(
                features, fill=fill, passes=passes, normalization="symmetric", threads=threads
            )
            assert many.n_vertices == one.n_vertices
            np.testing.assert_array_equal(many.filter(values), expected)
            np.testing.assert_array_equal(many.filter_transpose(values), adjoint)


def test_runs_repeat_to_the_bit() -> None:
    image, probs = recorded_problem("coffee")
    first = crfseg.refine(probs, image)
    for _ in range(5):
        np.testing.assert_array_equal(crfseg.refine(probs, image), first)


@pytest.mark.parametrize("name", ISAS)
def test_instruction_sets_agree(name: str) -> None:
    """The same lattice, and 1e-5 in every Q: on random kernels with a full matrix, on a photograph.

    They differ in the order of summation and in fused multiply-adds alone, below 1e-6 in Q.
    """
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2000, 3)).astype(np.float32)
    unary = rng.normal(size=(11, 2000)).astype(np.float32)
    mu = rng.normal(size=(11, 11))
    results = []
    for isa in (ISAS[0], name):
        with instruction_set(isa):
            assert crfseg.info()["isa"] == isa
            terms = [Features(features, weight=2.0), Features(features / 3, compatibility=mu)]
            q = DenseCRF(unary, terms).infer(5).q
            results.append((q, photo_crf(2).infer(10).q, Lattice(features).n_vertices))
    (q, photo, vertices), (other_q, other_photo, other_vertices) = results
    assert vertices == other_vertices
    np.testing.assert_allclose(other_q, q, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other_photo, photo, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ISAS)
def test_environment_chooses_the_instruction_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRFSEG_ISA", name)
    assert run_script("print(crfseg.info()['isa'])").strip() == name


def test_eight_python_threads_at_once() -> None:
    """Each with its own problem, and every result as it is alone."""
    image, probs = recorded_problem("astronaut")
    crops = [(probs[:, i : i + 90, : 100 + i], image[i : i + 90, : 100 + i]) for i in range(8)]
    alone = [crfseg.refine(p, i) for p, i in crops]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda crop: crfseg.refine(*crop), crops))
            for expected, found in zip(alone, together, strict=True):
                np.testing.assert_array_equal(found, expected)


def test_eight_python_threads_share_one_lattice_and_one_crf() -> None:
    lattice = Lattice(np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32))
    values = np.random.default_rng(1).normal(size=(8, 5000, 4)).astype(np.float32)
    crf = photo_crf(2)
    filtered = [lattice.filter(v) for v in values]
    inferred = [crf.infer(i).q for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(filtered, pool.map(lattice.filter, values), strict=True):
            np.testing.assert_array_equal(found, expected)
        for expected, found in zip(inferred, pool.map(crf.infer, range(8)), strict=True):
            np.testing.assert_array_equal(found.q, expected)


def test_other_python_threads_run_during_inference() -> None:
    """The GIL is released: a thread that wants to count can count."""
    crf = photo_crf(1)
    done = threading.Event()

    def infer() -> None:
        crf.infer(150)
        done.set()

    worker = threading.Thread(target=infer)
    worker.start()
    ticks = 0
    while not done.wait(0.002):
        ticks += 1
    worker.join()
    assert ticks > 10


def test_set_num_threads_is_what_get_num_threads_says() -> None:
    before = crfseg.get_num_threads()
    try:
        for threads in (1, 3):
            crfseg.set_num_threads(threads)
            assert crfseg.get_num_threads() == threads
            assert crfseg.info()["threads"] == threads
    finally:
        crfseg.set_num_threads(None)
    assert crfseg.get_num_threads() == before


FORK = """
crfseg.set_num_threads(3)
probs, image = problem()
expected = crfseg.refine(probs, image)          # the parent's threads exist now
child = os.fork()
if child == 0:
    same = np.array_equal(crfseg.refine(probs, image), expected)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if np.array_equal(crfseg.refine(probs, image), expected) else 3)
    same = same and os.waitpid(grandchild, 0)[1] == 0
    os._exit(0 if same else 4)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(crfseg.refine(probs, image), expected)
print("ok")
"""

FORK_DURING_WORK = """
crfseg.set_num_threads(2)
probs, image = problem()
expected = crfseg.refine(probs, image)
refine = lambda: crfseg.refine(probs, image)     # keeps the pool busy
fork_during(refine, lambda: np.array_equal(refine(), expected))
print("ok")
"""

WORKERS = """
import multiprocessing
crfseg.set_num_threads(None)
context = multiprocessing.get_context("fork")

def serve(jobs, results):
    default = crfseg.get_num_threads()
    for seed in iter(jobs.get, None):
        results.put((seed, default, crfseg.refine(*problem(seed))))

expected = {seed: crfseg.refine(*problem(seed)) for seed in range(6)}
jobs, results = context.SimpleQueue(), context.SimpleQueue()
workers = [context.Process(target=serve, args=(jobs, results), daemon=True) for _ in range(2)]
for worker in workers:
    worker.start()
for seed in range(6):
    jobs.put(seed)
for _ in range(6):
    seed, default, q = results.get()
    assert default == 1, f"{default} threads in a daemonic worker"
    assert np.array_equal(q, expected[seed])
for _ in workers:
    jobs.put(None)
for worker in workers:
    worker.join(30)
    assert worker.exitcode == 0
print("ok")
"""

INTERRUPT = """
probs, image = problem()
crf = crfseg.DenseCRF(
    crfseg.unary_from_probs(probs), [crfseg.Gaussian(3, 3), crfseg.Bilateral(image, 60, 10, 10)],
    threads={threads},
)
expected = crf.infer(3).q
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    crf.infer(1_000_000)
    print("never interrupted")
except KeyboardInterrupt:
    assert np.array_equal(crf.infer(3).q, expected)   # and everything still works
    print("ok")
"""


@needs_fork
@pytest.mark.parametrize(
    "script", [FORK, FORK_DURING_WORK, WORKERS], ids=["fork", "busy", "workers"]
)
def test_fork_after_use(script: str) -> None:
    """A private thread pool is dropped in the child; a data loader's worker uses one thread."""
    assert run_script(script).strip() == "ok"


@pytest.mark.parametrize("threads", [1, 2])
def test_control_c_ends_a_long_inference(threads: int) -> None:
    """Between iterations; a million of them would take hours."""
    assert run_script(INTERRUPT.format(threads=threads)).strip() == "ok"


def test_a_data_loader_s_workers_refine() -> None:
    """PyTorch forks its workers, here from a process whose thread pool is up."""
    data = pytest.importorskip("torch.utils.data")
    rng = np.random.default_rng(9)
    image = rng.integers(0, 256, (120, 160, 3), np.uint8)
    probs = rng.dirichlet(np.ones(4), (120, 160)).transpose(2, 0, 1).astype(np.float32)
    expected = crfseg.refine(probs, image, threads=2)

    class Refined(data.Dataset):  # type: ignore[name-defined, misc]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Any:
            return crfseg.refine(probs, image)

    found = list(data.DataLoader(Refined(), num_workers=2, timeout=60))
    assert len(found) == 4
    for item in found:
        np.testing.assert_array_equal(item[0].numpy(), expected)
