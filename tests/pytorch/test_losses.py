# SPDX-License-Identifier: MIT
"""The losses against the sums over pairs of pixels that they stand for."""

import numpy as np
import pytest

from native import lattice_matrix
from reference import gaussian_kernel
from reference_gradients import assert_slopes, slopes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch.nn import functional  # noqa: E402 - needs torch

from crfseg.torch import DenseCRFLoss, GatedCRFLoss  # noqa: E402

N, C, H, W = 2, 3, 6, 8
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def some_batch(rng, n_classes=C, size=(H, W)):
    """Probabilities, and images of blocks: pairs of pixels are alike or not."""
    logits = torch.tensor(rng.normal(size=(N, n_classes, *size)), dtype=torch.float32)
    probs = logits.softmax(1).requires_grad_()
    blocks = rng.integers(0, 256, (N, 3, -(-size[0] // 2), -(-size[1] // 2)))
    image = blocks.repeat(2, 2).repeat(2, 3)[:, :, : size[0], : size[1]]
    return probs, torch.tensor(image + rng.uniform(0, 5, image.shape), dtype=torch.float32)


def features(image, sigma_xy, sigma_rgb):
    _, height, width = image.shape
    y, x = np.indices((height, width)).reshape(2, -1)
    colours = image.reshape(len(image), -1).T
    return np.concatenate([np.stack([x, y], 1) / sigma_xy, colours / sigma_rgb], 1).astype("f4")


def halved(values, mode):
    align = {"align_corners": False} if mode == "bilinear" else {}
    return functional.interpolate(values, scale_factor=0.5, mode=mode, **align)


def dense(probs, kernels, inside):
    """-1/N sum_c S^T K S."""
    masked = (probs * inside).reshape(len(probs), probs.shape[1], -1)
    return -np.einsum("ncp,npq,ncq->", masked, kernels, masked) / len(probs)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("with_roi", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_the_dense_loss_is_the_sum_over_pairs(rng, scale, with_roi, n_classes):
    probs, image = some_batch(rng, n_classes)
    roi = torch.tensor(rng.integers(0, 2, (N, H, W)))
    small = image if scale == 1.0 else halved(image, "nearest")
    mask = torch.ones(N, 1, H, W) if not with_roi else roi[:, None].float()
    inside = (mask if scale == 1.0 else halved(mask, "nearest")).numpy()
    kernels = np.stack([lattice_matrix(features(i, 4.0 * scale, 30.0)) for i in small.numpy()])
    assert kernels.max() > 2 * np.abs(kernels).mean()

    def loss_of(values):
        values = torch.from_numpy(values)
        values = values if scale == 1.0 else halved(values, "bilinear")
        return 0.25 * dense(values.numpy(), kernels, inside)

    loss = DenseCRFLoss(4.0, 30.0, 0.25, scale=scale)(probs, image, roi if with_roi else None)
    loss.backward()
    given = probs.detach().double().numpy()
    assert loss.item() == pytest.approx(loss_of(given), rel=1e-5)
    assert_slopes(probs.grad.numpy(), slopes(loss_of, given))


def test_the_dense_loss_is_near_that_of_the_exact_gaussian(rng):
    probs, image = some_batch(rng, size=(24, 32))
    exact = np.stack([gaussian_kernel(features(i, 10.0, 40.0)) for i in image.numpy()])
    expected = dense(probs.detach().numpy(), exact, 1.0)
    found = DenseCRFLoss(10.0, 40.0, 1.0, scale=1.0, accuracy="fine")(probs, image).item()
    assert found == pytest.approx(expected, rel=0.2)


def averaged(values, factor):
    return functional.avg_pool2d(values, factor)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("gates", ["", "source", "destination", "both"])
def test_the_gated_loss_is_the_sum_over_gated_pairs(rng, gates, factor):
    probs, _ = some_batch(rng)
    _, image = some_batch(rng, size=(factor * H, factor * W))
    names = ("source", "destination")
    drawn = [torch.tensor(rng.random((N, factor * H, factor * W)) < 0.9) for _ in names]
    masks = [m if gates in (name, "both") else None for m, name in zip(drawn, names, strict=True)]
    given = dict(zip(names, masks, strict=True))
    small = averaged(image, factor).numpy()
    source, destination = (
        np.ones((N, H * W)) if mask is None
        else (averaged(mask[:, None].float(), factor).reshape(N, -1).numpy() == 1).astype(float)
        for mask in masks
    )  # fmt: skip
    kernels = []
    for one in small:
        matrix = lattice_matrix(features(one, 3.0, 30.0))
        kernels.append(matrix - np.diag(matrix.diagonal()))

    def loss_of(values):
        y = values.reshape(N, C, -1)
        differing = 1 - np.einsum("ncp,ncq->npq", y, y)
        total = np.einsum("np,npq,nq,npq->", destination, np.stack(kernels), source, differing)
        counted = source if masks[1] is None else destination
        return 0.3 * total / max(1.0, counted.sum())

    loss = GatedCRFLoss(3.0, 30.0, 0.3)(probs, image, **given)
    loss.backward()
    values = probs.detach().double().numpy()
    assert loss.item() == pytest.approx(loss_of(values), rel=1e-4)
    assert_slopes(probs.grad.numpy(), slopes(loss_of, values))


def test_the_self_term_may_stay(rng):
    probs, image = some_batch(rng)
    without = GatedCRFLoss(3.0, 30.0, 1.0)(probs, image)
    kept = GatedCRFLoss(3.0, 30.0, 1.0, exclude_self=False)(probs, image)
    doubt = (1 - probs.square().sum(dim=1)).mean()
    assert 0.4 * doubt < kept - without < 2 * doubt


def test_certain_segmentations_of_one_class_cost_nothing(rng):
    _, image = some_batch(rng)
    certain = torch.zeros(N, C, H, W)
    certain[:, 1] = 1.0
    assert GatedCRFLoss()(certain, image).item() == pytest.approx(0.0, abs=1e-6)


def test_items_add_up(rng):
    probs, image = some_batch(rng)
    loss = DenseCRFLoss(4.0, 30.0, 1.0)
    alone = [loss(probs[i : i + 1], image[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(loss(probs, image), sum(alone) / N)


@pytest.mark.parametrize("loss", [DenseCRFLoss(4.0, 30.0, 1.0), GatedCRFLoss(3.0, 30.0)])
def test_compiled_losses_do_the_same(rng, loss):
    torch.compiler.reset()
    probs, image = some_batch(rng)
    compiled = torch.compile(loss, fullgraph=True)
    found, expected = compiled(probs, image), loss(probs, image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    by_probs = [torch.autograd.grad(one, probs)[0] for one in (found, expected)]
    torch.testing.assert_close(*by_probs, rtol=1e-4, atol=1e-6)


def test_images_get_gradients_of_the_dense_loss(rng):
    probs, image = some_batch(rng)
    image.requires_grad_()
    DenseCRFLoss(4.0, 30.0, 1.0, scale=1.0)(probs, image).backward()
    assert image.grad.abs().sum() > 0


def test_half_precision_probabilities(rng):
    probs, image = some_batch(rng)
    half = probs.detach().bfloat16().requires_grad_()
    for loss in (DenseCRFLoss(4.0, 30.0, 1.0), GatedCRFLoss(3.0, 30.0)):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(half, image)
        value.backward()
        assert value.item() == pytest.approx(loss(half.float(), image).item(), rel=2e-2)
        assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("loss", [DenseCRFLoss(9.0, 30.0), GatedCRFLoss(exclude_self=False)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_many_pixels_are_beyond_half_precision(loss, dtype):
    """There are more of them than float16 has numbers for."""
    probs = torch.full((1, 2, 260, 260), 0.5, dtype=dtype, requires_grad=True)
    image = torch.full((1, 3, 260, 260), 7.0)
    value = loss(probs, image)
    value.backward()
    assert value.item() == pytest.approx(loss(probs.float(), image).item(), rel=1e-6)
    assert probs.grad.dtype == dtype
    assert probs.grad.isfinite().all()


def test_they_say_what_they_are():
    assert repr(DenseCRFLoss()) == (
        "DenseCRFLoss(sigma_xy=100.0, sigma_rgb=15.0, weight=1e-07, scale=0.5)"
    )
    assert repr(GatedCRFLoss()) == "GatedCRFLoss(sigma_xy=6.0, sigma_rgb=25.5, weight=0.1)"


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", ["source", "destination"])
def test_gates_are_masks(name: str, value: float) -> None:
    """A label map instead of a mask, or a gate of NaN, would train nothing and say nothing."""
    probs = torch.full((1, 2, 6, 6), 0.5)
    image = torch.zeros(1, 3, 6, 6)
    gate = torch.ones(1, 6, 6)
    gate[0, 2, 3] = value
    with pytest.raises(ValueError, match=rf"{name} has other values than 0 and 1"):
        GatedCRFLoss()(probs, image, **{name: gate})
