# SPDX-License-Identifier: MIT
"""The library under test as dense matrices, for comparison with ``reference``."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from crfseg import DenseCRF, Features, Lattice, _core
from reference import Term, compatibility_matrix, normalize, without_self
from reference_lattice import Fill, ReferenceLattice, clear_of_ties
from strategies import Problem

Array = np.ndarray[Any, Any]
ISAS = _core.available_isas()


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Puts the instruction set back that was in use."""
    before = _core.isa()
    _core.set_isa(name)
    try:
        yield
    finally:
        _core.set_isa(before)


def lattice_matrix(features: Array, **options: Any) -> Array:
    """(N, N) float64 filter matrix: the lattice applied to the identity."""
    lattice = Lattice(features, **options)
    return lattice.filter(np.eye(len(features), dtype=np.float32)).astype(np.float64)


@lru_cache
def calibration(dim: int, fill: Fill, passes: int) -> float:
    """What "none" divides the reference's filter by, read off a fixed cloud of points."""
    cloud = np.random.default_rng(dim).normal(size=(12, dim)).astype(np.float32)
    cloud = clear_of_ties(cloud, passes)
    reference = ReferenceLattice(cloud, fill=fill, passes=passes).matrix()
    return float(reference.sum() / lattice_matrix(cloud, fill=fill, passes=passes).sum())


def crf_of(problem: Problem, **options: Any) -> DenseCRF:
    """The problem in the library's words."""
    terms = [
        Features(features, weight=weight, compatibility=compatibility)
        for features, weight, compatibility in zip(
            problem.features, problem.weights, problem.compatibilities, strict=True
        )
    ]
    return DenseCRF(
        problem.unary,
        terms,
        normalization=problem.normalization,
        exclude_self=problem.exclude_self,
        **options,
    )


def terms_of(problem: Problem, **lattice_options: Any) -> list[Term]:
    """The problem's terms over the matrices of the library's own lattices."""
    terms = []
    for features, weight, compatibility in zip(
        problem.features, problem.weights, problem.compatibilities, strict=True
    ):
        kernel = normalize(lattice_matrix(features, **lattice_options), problem.normalization)
        kernel = without_self(kernel) if problem.exclude_self else kernel
        terms.append(Term(kernel, weight, compatibility_matrix(compatibility, problem.n_labels)))
    return terms
