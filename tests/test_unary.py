# SPDX-License-Identifier: MIT
"""Unary energies against -log p written out in float64."""

import numpy as np
import pytest

from crfseg import DenseCRF, unary_from_labels, unary_from_logits, unary_from_probs
from reference import softmax


@pytest.fixture
def probs(rng):
    return rng.dirichlet(np.full(5, 0.3), (7, 4)).transpose(2, 0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probs_become_clipped_negative_logs(probs, dtype):
    given = probs.astype(dtype)
    energies = unary_from_probs(given, clip=1e-3)
    assert energies.dtype == np.float32
    np.testing.assert_allclose(
        energies, -np.log(np.maximum(given.astype(float), 1e-3)), rtol=1e-6, atol=1e-6
    )


def test_a_probability_of_zero_has_the_energy_of_the_clip(probs):
    certain = np.zeros((3, 2, 2), np.float32)
    certain[1] = 1
    energies = unary_from_probs(certain)
    np.testing.assert_allclose(energies[0], -np.log(1e-5), rtol=1e-6)
    assert (energies[1] == 0).all()
    assert np.isfinite(unary_from_probs(certain, clip=1e-300)).all()


def test_the_input_is_left_alone(probs):
    given = probs.astype(np.float32)
    given.setflags(write=False)
    before = given.copy()
    unary_from_probs(given)
    unary_from_logits(given)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("scale", [1, 30, 3000])
def test_logits_become_negative_log_softmax(rng, scale):
    logits = rng.normal(scale=scale, size=(4, 6, 5)).astype(np.float32)
    wide = logits.astype(float)
    shifted = wide - wide.max(axis=0)
    expected = np.log(np.exp(shifted).sum(axis=0)) - shifted
    np.testing.assert_allclose(unary_from_logits(logits), expected, rtol=1e-6, atol=1e-6)


def test_logits_at_the_edge_of_float32_forbid_what_is_far_below():
    logits = np.array([[3e38], [-3e38], [3e38]], np.float32)
    expected = [[np.log(2)], [np.inf], [np.log(2)]]
    np.testing.assert_allclose(unary_from_logits(logits), expected, rtol=1e-6)


def test_log_probabilities_are_logits_too(probs):
    np.testing.assert_allclose(
        unary_from_logits(np.log(probs)), -np.log(probs), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64])
@pytest.mark.parametrize("shape", [(30,), (5, 6), (2, 3, 5)])
def test_labels_get_their_confidence(rng, dtype, shape):
    labels = rng.integers(0, 4, shape).astype(dtype)
    q = softmax(-unary_from_labels(labels, 4, 0.7).astype(float))
    expected = np.where(np.arange(4).reshape(4, *[1] * len(shape)) == labels, 0.7, 0.1)
    np.testing.assert_allclose(q, expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "mark"), [(np.uint8, 255), (np.int64, -1), (np.int16, 1000)])
def test_ignored_points_know_nothing(rng, dtype, mark):
    """-1 and 255 never wrap around to a class."""
    labels = rng.integers(0, 4, (5, 6)).astype(dtype)
    labels[1, 2:5] = mark
    energies = unary_from_labels(labels, 4, ignore_index=mark)
    assert (energies[:, 1, 2:5] == energies[0, 1, 2]).all()
    others = labels != mark
    np.testing.assert_array_equal(energies.argmin(axis=0)[others], labels[others])


def test_a_mark_among_the_labels_names_no_class(rng):
    """0 for "unsure" beside classes 1..3: no point may end up with label 0."""
    labels = rng.integers(0, 4, (5, 6))
    q = softmax(-unary_from_labels(labels, 4, 0.8, ignore_index=0).astype(float))
    assert (q[0] == 0).all()
    unsure = labels == 0
    np.testing.assert_allclose(q[1:, unsure], 1 / 3, rtol=1e-6)
    certain = np.take_along_axis(q, labels[None], axis=0)[0][~unsure]
    np.testing.assert_allclose(certain, 0.8, rtol=1e-6)


def test_one_label_is_certain():
    labels = np.zeros((3, 4), np.uint8)
    energies = unary_from_labels(labels, 1)
    assert energies.shape == (1, 3, 4)
    assert (DenseCRF(energies, []).infer(3).q == 1).all()


def test_readonly_strided_labels_are_fine(rng):
    labels = rng.integers(0, 3, (8, 10))
    view = labels[::2, ::-3]
    view.setflags(write=False)
    np.testing.assert_array_equal(unary_from_labels(view, 3), unary_from_labels(view.copy(), 3))
