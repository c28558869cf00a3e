# SPDX-License-Identifier: MIT
"""Memory kept between calls: off at first, within its limit, given back, never seen in results."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import crfseg
from crfseg import Bilateral, DenseCRF, Gaussian, Lattice, cache, refine, unary_from_probs
from crfseg._native import core
from photos import recorded_problem
from subprocesses import run_script

MIB = 2**20


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    crfseg.set_cache_limit(0)
    yield
    crfseg.set_cache_limit(0)


def held() -> int:
    n_bytes: int = crfseg.info()["cache_bytes"]
    return n_bytes


def test_nothing_is_kept_unless_asked_for() -> None:
    image, probs = recorded_problem("astronaut")
    refine(probs, image)
    assert crfseg.info()["cache_limit"] == 0
    assert held() == 0


@pytest.mark.parametrize("off", [0, None])
def test_a_limit_keeps_memory_until_it_is_cleared_or_taken_away(off: Any) -> None:
    image, probs = recorded_problem("astronaut")
    crfseg.set_cache_limit(256 * MIB)
    for clear in (crfseg.clear_cache, lambda: crfseg.set_cache_limit(off)):
        refine(probs, image)
        assert MIB < held() <= 256 * MIB
        clear()
        assert held() == 0
    refine(probs, image)
    assert held() == 0


def test_results_are_the_same_to_the_bit() -> None:
    image, probs = recorded_problem("coffee")
    batch, images = np.stack([probs, probs[::-1]]), [image, image[::-1]]
    calls: list[Any] = [
        lambda: refine(probs, image),
        lambda: refine(probs, image, returns="labels"),
        lambda: refine(probs[:, :50, :70], image[:50, :70], accuracy="fine"),
        lambda: refine(probs, image, spatial=((2.0, 5.0), 3.0), bilateral=None),
        lambda: refine(batch, images, layout="NCHW", threads=2),
        lambda: DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)]).infer(5).q,
        lambda: Lattice(image.reshape(-1, 3) / 20.0, normalization="after").filter(
            probs[0].ravel()
        ),
    ]
    expected = [call() for call in calls]
    crfseg.set_cache_limit(256 * MIB)
    for _ in range(3):
        for call, result in zip(calls, expected, strict=True):
            np.testing.assert_array_equal(call(), result)


@pytest.mark.parametrize("limit", [1, 100_000, MIB, 8 * MIB])
def test_what_is_kept_stays_within_the_limit(limit: int) -> None:
    image, probs = recorded_problem("astronaut")
    crfseg.set_cache_limit(limit)
    for rows in (120, 90, 60, 30, 120):
        refine(probs[:, :rows], image[:rows])
        assert held() <= limit


def lattices_built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The dimensions of the lattices of grids that are built from now on, one after the other."""
    built = []
    of_pixels = core.Lattice.of_pixels

    class Watched(core.Lattice):  # type: ignore[misc]
        @staticmethod
        def of_pixels(*arguments: Any) -> Any:
            built.append(len(arguments[2]))
            return of_pixels(*arguments)

    monkeypatch.setattr(core, "Lattice", Watched)
    return built


def test_images_of_one_size_share_the_lattice_of_a_gaussian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, probs = recorded_problem("astronaut")
    built = lattices_built(monkeypatch)

    def new(**options: Any) -> list[int]:
        built.clear()
        refine(probs, image, **options)
        return list(built)

    assert new() == new() == [2, 5]
    crfseg.set_cache_limit(64 * MIB)
    assert new() == [2, 5]
    assert new() == [5]
    assert new(spatial=(4.0, 3.0)) == [2, 5]  # another sigma is another lattice
    assert new(accuracy="fine") == [2, 5]
    assert new(spatial=(3.0, 7.0), normalization="after") == [5]  # weights are not in it
    DenseCRF(unary_from_probs(probs), [Gaussian(3.0)])
    assert new() == [5]
    crfseg.clear_cache()
    assert new() == [2, 5]


def test_the_lattice_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    image, probs = recorded_problem("astronaut")
    built = lattices_built(monkeypatch)
    one = crfseg.DenseCRF(unary_from_probs(probs), [Gaussian(3.0)])
    del one
    lattice = core.Lattice.of_pixels((120, 160), None, np.full(2, 1 / 3, np.float32), (), 1, 1, 0)
    crfseg.set_cache_limit(5 * (lattice.nbytes + 8 * lattice.n_points))  # half of it holds two
    for sigma in (3.0, 3.1, 3.0, 3.2):
        refine(probs, image, spatial=(sigma, 3.0), bilateral=None)
    built.clear()
    for sigma in (3.2, 3.0, 3.1):
        refine(probs, image, spatial=(sigma, 3.0), bilateral=None)
    assert built == [2]


def test_eight_python_threads_and_one_that_clears() -> None:
    image, probs = recorded_problem("astronaut")
    crops = [(probs[:, i : i + 90], image[i : i + 90]) for i in range(8)]
    alone = [refine(p, i) for p, i in crops]
    crfseg.set_cache_limit(32 * MIB)

    def use(i: int) -> Any:
        if i % 9 == 8:
            crfseg.clear_cache()
            crfseg.set_cache_limit((16 + i) * MIB)
        return refine(*crops[i % 8])

    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(use, range(64))):
            np.testing.assert_array_equal(found, alone[i % 8])
    assert held() <= 80 * MIB


@pytest.mark.parametrize("bad", [-1, 1.5, "256M", True, 2**63])
def test_a_bad_limit_is_named(bad: Any) -> None:
    crfseg.set_cache_limit(MIB)
    with pytest.raises((TypeError, ValueError), match=r"^\[set_cache_limit\] n_bytes is "):
        crfseg.set_cache_limit(bad)
    assert crfseg.info()["cache_limit"] == MIB


@pytest.mark.parametrize(
    ("setting", "limit"),
    [("256M", 256 * MIB), ("1G", 2**30), ("64K", 65536), ("1000000", 10**6), ("0", 0), ("", 0)],
)
def test_the_environment_sets_the_limit(
    setting: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRFSEG_CACHE", setting)
    script = """
    probs, image = problem()
    crfseg.refine(probs, image)
    told = crfseg.info()
    crfseg.set_cache_limit(5)
    print(told["cache_limit"], told["cache_bytes"] > 0, crfseg.info()["cache_limit"])
    """
    assert run_script(script).split() == [str(limit), str(limit > 0), "5"]


@pytest.mark.parametrize("setting", ["lots", "-1", "1.5G", "256 M", "1T"])
def test_a_bad_environment_is_named_by_the_first_call(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the second: it does not go away."""
    monkeypatch.setattr(cache, "_is_chosen", False)
    monkeypatch.setenv("CRFSEG_CACHE", setting)
    image, probs = recorded_problem("astronaut")
    sentence = rf"CRFSEG_CACHE is '{setting}'; expected a number of bytes"
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^\[refine\] environment variable {sentence}"):
            refine(probs, image)
    with pytest.raises(ValueError, match=rf"^\[Lattice\] environment variable {sentence}"):
        Lattice(image.reshape(-1, 3))
    with pytest.raises(ValueError, match=rf"^\[info\] environment variable {sentence}"):
        crfseg.info()


FORK = """
crfseg.set_cache_limit(2**26)
probs, image = problem()
expected = crfseg.refine(probs, image)
def work():
    crfseg.refine(probs, image)
    crfseg.clear_cache()
fork_during(work, lambda: np.array_equal(crfseg.refine(probs, image), expected))
print("ok")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_while_another_thread_uses_the_cache() -> None:
    assert run_script(FORK).strip() == "ok"
