# SPDX-License-Identifier: MIT
"""Programs written against pydensecrf, run with either library's modules: from inputs to Q.

A program takes ``densecrf``, ``utils`` and a problem, and gives one array (L, N). What the recorded
photographs (tests/data) hold is cut to every other pixel: enough to differ in, quick to run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from photos import DATA, Array, recorded_problem

RECORDING = DATA / "compat.npz"
EVERY = 47  # coprime to the width: the recorded sample visits all columns
NORMALIZATIONS = ("NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC")


class Problem(NamedTuple):
    image: Array  # (H, W, 3) uint8
    probs: Array  # (L, H, W) float32

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, height, labels: what DenseCRF2D takes."""
        n_labels, height, width = self.probs.shape
        return width, height, n_labels


Program = Callable[[Any, Any, Problem], Array]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


def problem(name: str = "astronaut") -> Problem:
    image, probs = recorded_problem(name)
    return Problem(np.ascontiguousarray(image[::2, ::2]), np.ascontiguousarray(probs[:, ::2, ::2]))


def crf_of(dcrf: Any, utils: Any, given: Problem) -> Any:
    crf = dcrf.DenseCRF2D(*given.size)
    crf.setUnaryEnergy(utils.unary_from_softmax(given.probs))
    return crf


def add_both(dcrf: Any, crf: Any, given: Problem, compat: Any, normalization: str) -> None:
    how = getattr(dcrf, normalization)
    crf.addPairwiseGaussian(sxy=3, compat=compat, kernel=dcrf.DIAG_KERNEL, normalization=how)
    crf.addPairwiseBilateral(sxy=40, srgb=13, rgbim=given.image, compat=compat, normalization=how)


def _of_normalization(name: str) -> Program:
    # Raw sums count every neighbour: weights that leave the unary a say are small.
    compat = 0.02 if name == "NO_NORMALIZATION" else 5

    def normalized(dcrf: Any, utils: Any, given: Problem) -> Array:
        crf = crf_of(dcrf, utils, given)
        add_both(dcrf, crf, given, compat, name)
        return np.array(crf.inference(10))

    return normalized


PROGRAMS.update({name.lower(): _of_normalization(name) for name in NORMALIZATIONS})


@program
def positional_arguments_and_one_sigma_per_feature(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    crf.addPairwiseBilateral((60, 30), (20, 7, 13), given.image, 8, dcrf.FULL_KERNEL)
    crf.addPairwiseGaussian((5, 2), 3, dcrf.CONST_KERNEL, dcrf.NORMALIZE_AFTER)
    return np.array(crf.inference(5))


@program
def vector_compat_is_a_cost(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    vector = -np.linspace(1, 6, len(given.probs)).astype(np.float32)
    vector[2] = 0.5
    add_both(dcrf, crf, given, vector, "NORMALIZE_SYMMETRIC")
    return np.array(crf.inference(8))


@program
def matrix_compat_is_a_cost_and_made_symmetric(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    n_labels = len(given.probs)
    matrix = 4 * (1 - np.eye(n_labels)) + np.triu(np.random.default_rng(1).random((n_labels,) * 2))
    add_both(dcrf, crf, given, matrix.astype(np.float32), "NORMALIZE_SYMMETRIC")
    return np.array(crf.inference(8))


@program
def vector_and_matrix_without_normalization(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    n_labels, how = len(given.probs), dcrf.NO_NORMALIZATION
    vector = np.full(n_labels, -0.05, np.float32)
    crf.addPairwiseGaussian(sxy=2, compat=vector, normalization=how)
    matrix = (0.005 * (1 - np.eye(n_labels))).astype(np.float32)
    crf.addPairwiseBilateral(40, 10, given.image, matrix, normalization=how)
    return np.array(crf.inference(5))


@program
def negative_weights_repel(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    crf.addPairwiseGaussian(sxy=2, compat=-0.5)
    crf.addPairwiseBilateral(sxy=30, srgb=15, rgbim=given.image, compat=6)
    return np.array(crf.inference(5))


@program
def features_of_utils(dcrf, utils, given):
    n_labels, height, width = given.probs.shape
    crf = dcrf.DenseCRF(height * width, n_labels)
    crf.setUnaryEnergy(utils.unary_from_softmax(given.probs, scale=0.9, clip=None))
    crf.addPairwiseEnergy(utils.create_pairwise_gaussian((2, 4), (height, width)), compat=3)
    features = utils.create_pairwise_bilateral(
        sdims=(30, 50), schan=(20, 13, 9), img=given.image, chdim=2
    )
    crf.addPairwiseEnergy(features, 8, dcrf.DIAG_KERNEL, dcrf.NORMALIZE_SYMMETRIC)
    return np.array(crf.inference(5))


@program
def grey_volume_without_normalization(dcrf, utils, given):
    volume = given.image[..., 0].reshape(4, 15, -1).astype(np.float32)
    crf = dcrf.DenseCRF(volume.size, len(given.probs))
    crf.setUnary(dcrf.ConstUnary(utils.unary_from_softmax(given.probs)))
    features = utils.create_pairwise_bilateral((2, 3, 3), 20, volume)
    crf.addPairwiseEnergy(features, compat=0.2, normalization=dcrf.NO_NORMALIZATION)
    return np.array(crf.inference(5))


@program
def hard_labels(dcrf, utils, given):
    labels = given.probs.argmax(axis=0)
    crf = dcrf.DenseCRF2D(*given.size)
    crf.setUnaryEnergy(utils.unary_from_labels(labels, len(given.probs), 0.7, zero_unsure=False))
    add_both(dcrf, crf, given, 6, "NORMALIZE_SYMMETRIC")
    return np.array(crf.inference(10))


@program
def labels_with_unsure_pixels(dcrf, utils, given):
    labels = np.where(given.probs.max(axis=0) < 0.6, 0, given.probs.argmax(axis=0) + 1)
    crf = dcrf.DenseCRF2D(*given.size)
    crf.setUnaryEnergy(utils.unary_from_labels(labels, len(given.probs), gt_prob=0.8))
    add_both(dcrf, crf, given, 4, "NORMALIZE_AFTER")
    return np.array(crf.inference(5))


@program
def two_labels(dcrf, utils, given):
    width, height, _ = given.size
    foreground = given.probs[:4].sum(axis=0)
    crf = dcrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(utils.unary_from_softmax(np.stack([1 - foreground, foreground])))
    add_both(dcrf, crf, given, 7, "NORMALIZE_SYMMETRIC")
    return np.array(crf.inference(10))


@program
def logistic_unary(dcrf, utils, given):
    features = np.ascontiguousarray(given.image.reshape(-1, 3).T / np.float32(64))
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    crf = dcrf.DenseCRF2D(*given.size[:2], 4)
    crf.setUnary(dcrf.LogisticUnary(weights, features))
    add_both(dcrf, crf, given, 2, "NORMALIZE_SYMMETRIC")
    return np.array(crf.inference(5))


@program
def step_by_step(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    add_both(dcrf, crf, given, 5, "NORMALIZE_SYMMETRIC")
    q, tmp1, tmp2 = crf.startInference()
    for _ in range(5):
        crf.stepInference(q, tmp1, tmp2)
    return np.array(q)


@program
def unary_alone(dcrf, utils, given):
    return np.array(crf_of(dcrf, utils, given).inference(10))


@program
def no_iteration(dcrf, utils, given):
    crf = crf_of(dcrf, utils, given)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    return np.array(crf.inference(-1))


def divergences(dcrf: Any, utils: Any, given: Problem) -> list[float]:
    """klDivergence on the way, with terms of every kind."""
    crf = crf_of(dcrf, utils, given)
    add_both(dcrf, crf, given, 5, "NORMALIZE_SYMMETRIC")
    add_both(dcrf, crf, given, -np.linspace(1, 2, 8).astype(np.float32), "NORMALIZE_AFTER")
    matrix = np.arange(64, dtype=np.float32).reshape(8, 8) / 2000
    add_both(dcrf, crf, given, matrix, "NO_NORMALIZATION")
    q, tmp1, tmp2 = crf.startInference()
    values = [crf.klDivergence(q)]
    for _ in range(3):
        crf.stepInference(q, tmp1, tmp2)
        values.append(crf.klDivergence(q))
    return values
