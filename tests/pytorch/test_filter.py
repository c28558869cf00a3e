# SPDX-License-Identifier: MIT
"""``crfseg.torch.filter``: values, adjoint and gradients by features."""

import numpy as np
import pytest

from native import lattice_matrix
from reference import NORMALIZATIONS
from reference_gradients import assert_slopes, slope

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch import filter as filter_of  # noqa: E402 - needs torch

B, C, N, D = 2, 3, 20, 2


def some_tensors(rng, n_features=B, low=-1.0):
    values = torch.tensor(rng.uniform(low, 1.0, (B, C, N)).astype(np.float32), requires_grad=True)
    features = torch.tensor(
        rng.normal(size=(n_features, N, D)).astype(np.float32), requires_grad=True
    )
    gradient = torch.tensor(rng.normal(size=(B, C, N)).astype(np.float32))
    return values, features, gradient


@pytest.mark.parametrize("n_features", [1, B])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_values_and_their_gradient_are_those_of_the_matrix(rng, normalization, n_features):
    values, features, gradient = some_tensors(rng, n_features)
    found = filter_of(values, features, normalization=normalization)
    found.backward(gradient)
    for i in range(B):
        own = features[i % n_features].detach().numpy()
        matrix = lattice_matrix(own, normalization=normalization)
        expected = values[i].detach().numpy() @ matrix.T
        np.testing.assert_allclose(found[i].detach().numpy(), expected, atol=2e-5)
        by_values = gradient[i].numpy() @ matrix
        np.testing.assert_allclose(values.grad[i].numpy(), by_values, atol=2e-5)


@pytest.mark.parametrize("low", [-1.0, 0.0])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_exact_gradients_of_features_are_difference_quotients(rng, normalization, low):
    """Along single features, by steps so small that points stay in their simplices."""
    values, features, gradient = some_tensors(rng, low=low)
    filter_of(values, features, normalization=normalization).backward(gradient)

    def loss(changed):
        found = [
            values[i].detach().numpy() @ lattice_matrix(changed[i], normalization=normalization).T
            for i in range(B)
        ]
        return float((np.stack(found) * gradient.numpy()).sum())

    at = features.detach().numpy().astype(np.float64)
    quotients = []
    for step in (1e-3, -1e-3):
        direction = step * np.eye(D)[0] * (np.arange(N) == 7)[None, :, None]
        quotients.append((loss(at + direction) - loss(at - direction)) / (2 * step))
    assert quotients[0] == pytest.approx(features.grad[:, 7, 0].sum().item(), rel=2e-2, abs=2e-2)


def exact_filter(values, features, normalization):
    apart = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernel = np.exp(-apart / 2)
    n = kernel.sum(axis=1)
    before = {"none": 1.0, "before": 1 / n, "after": 1.0, "symmetric": n**-0.5}[normalization]
    after = {"none": 1.0, "before": 1.0, "after": 1 / n, "symmetric": n**-0.5}[normalization]
    return ((values * before) @ kernel) * after


@pytest.mark.parametrize("normalization", ["none", "symmetric"])
def test_smooth_gradients_of_features_are_near_the_gaussians(rng, normalization):
    values, features, gradient = some_tensors(rng)
    filter_of(
        values, features, normalization=normalization, feature_gradient="smooth", accuracy="fine"
    ).backward(gradient)
    at = features.detach().numpy().astype(np.float64)

    def loss(changed):
        given = values.detach().numpy()
        found = [exact_filter(given[i], changed[i], normalization) for i in range(B)]
        return float((np.stack(found) * gradient.numpy()).sum())

    expected = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        direction = np.zeros(at.shape)
        direction[index] = 1.0
        expected[index] = slope(loss, at, direction)
    found = features.grad.numpy()
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.97


def test_shared_features_get_the_sum(rng):
    values, features, gradient = some_tensors(rng, 1)
    filter_of(values, features).backward(gradient)
    repeated = features.detach().expand(B, N, D).clone().requires_grad_()
    filter_of(values.detach(), repeated).backward(gradient)
    assert_slopes(features.grad[0].numpy(), repeated.grad.sum(dim=0).numpy())


def test_zeros_do_not_depend_on_where_they_are(rng):
    values, features, gradient = some_tensors(rng)
    filter_of(0 * values, features).backward(gradient)
    assert not features.grad.any()


def test_the_way_forth_is_gone_again_where_what_it_left_is_lost(rng):
    values, features, gradient = some_tensors(rng)
    expected = torch.autograd.grad(filter_of(values, features), (values, features), gradient)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        result = filter_of(values, features)
    found = torch.autograd.grad(result, (values, features), gradient)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_any_grid_and_dtype(rng):
    values, features, _ = some_tensors(rng)
    flat = filter_of(values, features)
    grid = filter_of(values.reshape(B, C, 4, 5), features)
    assert torch.equal(grid.flatten(2), flat)
    doubles = filter_of(values.double(), features)
    assert doubles.dtype == torch.float64
    assert torch.equal(doubles, flat.double())
