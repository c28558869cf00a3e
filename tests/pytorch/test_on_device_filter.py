# SPDX-License-Identifier: MIT
"""The filter by the kernels for CUDA devices, over the emulation, and what is made of it."""

import numpy as np
import pytest

import crfseg
from device_ops import assert_same, on_device
from emulated import emulated, needs_emulation
from reference import NORMALIZATIONS

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg import _device_arrays, _job  # noqa: E402 - needs torch
from crfseg.torch import DenseCRFLoss, GatedCRFLoss, _device_filters, infer  # noqa: E402
from crfseg.torch import filter as filter_of  # noqa: E402

__all__ = ["emulated", "on_device"]
pytestmark = needs_emulation

B, C, H, W, D = 3, 4, 6, 10, 3


def some_tensors(rng, n_features=B, low=-1.0, n_items=B):
    values = torch.tensor(rng.uniform(low, 1.0, (n_items, C, H, W)), dtype=torch.float32)
    features = torch.tensor(rng.normal(size=(n_features, H * W, D)), dtype=torch.float32)
    gradient = torch.tensor(rng.normal(size=values.shape), dtype=torch.float32)
    return values.requires_grad_(), features.requires_grad_(), gradient


def results(values, features, gradient, **options):
    found = filter_of(values, features, **options)
    given = [values, features] if features.requires_grad else [values]
    return [found.detach(), *torch.autograd.grad((found * gradient).sum(), given)]


@pytest.mark.parametrize("n_features", [1, B])
@pytest.mark.parametrize("form", ["exact", "smooth"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_results_and_gradients_are_those_of_the_cpu(
    rng, on_device, normalization, form, n_features
):
    given = some_tensors(rng, n_features)
    options = {"normalization": normalization, "feature_gradient": form}
    expected = results(*given, **options)
    with on_device():
        found = results(*given, **options)
    assert_same(found, expected)


@pytest.mark.parametrize("n_features", [1, B])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_points_are_left_out_of_their_own_sums(rng, on_device, normalization, n_features):
    values, features, gradient = some_tensors(rng, n_features)
    options = {"normalization": normalization, "exclude_self": True}
    expected = results(values, features.detach(), gradient, **options)
    with on_device():
        found = results(values, features.detach(), gradient, **options)
    assert_same(found, expected)


def test_fine_lattices_are_those_of_the_cpu(rng, on_device):
    given = some_tensors(rng, low=0.0)
    expected = results(*given, accuracy="fine")
    with on_device():
        assert_same(results(*given, accuracy="fine"), expected)


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_channels_go_in_turn_where_there_are_many(rng, on_device, monkeypatch, low):
    given = some_tensors(rng, low=low)
    with on_device() as module:
        expected = results(*given)
        monkeypatch.setattr(module, "MOST_LABELS", 5)  # two at once, or all four
        assert_same(results(*given), expected, rtol=1e-5)


def test_items_differ_in_size_without_harm(rng, on_device):
    """Every item's values are taken for shares of its own sum."""
    values, features, gradient = some_tensors(rng)
    with torch.no_grad():
        values *= torch.tensor([1e-12, 0.0, 1e6])[:, None, None, None]
    _, _, by_features = results(values, features, gradient)
    with on_device():
        _, _, found = results(values, features, gradient)
    assert not found[1].any()
    for one, other in zip(found, by_features, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


def test_results_are_the_same_in_every_run(rng, on_device):
    given = some_tensors(rng, n_features=1)
    with on_device():
        first, second = results(*given), results(*given)
    assert all(torch.equal(*both) for both in zip(first, second, strict=True))


def test_a_batch_of_none_has_gradients_of_nothing(rng, on_device):
    for n_features in (0, 1):
        given = some_tensors(rng, n_features, n_items=0)
        with on_device():
            found, by_values, by_features = results(*given)
        assert found.shape == by_values.shape == (0, C, H, W)
        assert by_features.shape == (n_features, H * W, D)
        assert not by_features.any()


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_faults_are_told_as_on_the_cpu(rng, on_device, value):
    values, features, _ = some_tensors(rng)
    with torch.no_grad():
        features[1, 3, 2] = value
    with pytest.raises(ValueError, match=r"^\[filter\] features") as expected:
        filter_of(values, features)
    with on_device(), pytest.raises(ValueError, match=r"^\[filter\]") as found:
        filter_of(values, features)
    assert str(found.value) == str(expected.value)


def test_gradients_by_features_need_finite_values(rng, on_device):
    values, features, _ = some_tensors(rng)
    with torch.no_grad():
        values[1, 2, 0, 3] = torch.nan
    with on_device():
        filtered = filter_of(values, features)
        with pytest.raises(ValueError, match=r"^\[filter\] values has nan"):
            filtered.sum().backward()


def test_lattices_are_built_once(rng, on_device, monkeypatch):
    built = []
    init = _device_filters.Lattices.__init__

    def noted(lattices, *arguments):
        built.append(arguments[4])
        init(lattices, *arguments)

    monkeypatch.setattr(_device_filters.Lattices, "__init__", noted)
    with on_device():
        results(*some_tensors(rng))
    assert built == [W]


LAYERS = {
    "dense loss": lambda logits, image: DenseCRFLoss(weight=1.0)(logits.softmax(1), image),
    "gated loss": lambda logits, image: GatedCRFLoss()(
        logits.softmax(1), image, source=image[:, 0] > 90
    ),
    "damped": lambda logits, image: solved(logits, image, "damped"),
    "frank-wolfe": lambda logits, image: solved(logits, image, "frank-wolfe"),
}


def solved(logits, image, solver):
    features = image.flatten(2).mT
    sigmas = torch.tensor([40.0])
    coupling = 0.5 * torch.eye(C)
    return infer(logits, [features], [coupling], 3, sigmas=[sigmas], solver=solver).square().sum()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_go_through_the_filter(rng, on_device, name):
    logits = torch.tensor(rng.normal(size=(2, C, H, W)), dtype=torch.float32, requires_grad=True)
    image = torch.tensor(rng.uniform(0, 255, (2, 3, H, W)), dtype=torch.float32)

    def found():
        loss = LAYERS[name](logits, image)
        return loss.detach(), *torch.autograd.grad(loss, [logits])

    expected_loss, expected = found()
    with on_device():
        loss, by_logits = found()
    torch.testing.assert_close(loss, expected_loss)
    largest = float(expected.abs().max())
    torch.testing.assert_close(by_logits, expected, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("keep_thin", [0, 2])
def test_refined_tensors_get_their_gradients_where_they_are(rng, on_device, monkeypatch, keep_thin):
    probs = torch.tensor(rng.dirichlet(np.ones(C), (2, H, W)), dtype=torch.float32)
    probs = probs.movedim(-1, 1).contiguous().requires_grad_()
    images = torch.tensor(rng.integers(0, 256, (2, H, W, 3)), dtype=torch.uint8)

    def found():
        refined = crfseg.refine(probs, images, keep_thin=keep_thin, iterations=2)
        return [refined.detach(), *torch.autograd.grad(refined.square().sum(), [probs])]

    expected = found()
    for module in (_job, _device_arrays):
        monkeypatch.setattr(module, "is_on_device", lambda value: isinstance(value, torch.Tensor))
    with on_device():
        assert_same(found(), expected)
