# SPDX-License-Identifier: MIT
"""Volumes and points as tensors that require gradients: the same values, and slopes."""

import numpy as np
import pytest

from crfseg import Features, refine, refine_points

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

C, D, H, W = 3, 3, 6, 8
WEAK = {"spatial": (2.0, 0.5), "bilateral": (6.0, (30.0, 80.0), 1.0), "spacing": (3.0, 1.0, 1.0)}


@pytest.fixture
def volume(rng):
    """(K, D, H, W), as medical images have it."""
    return rng.integers(0, 256, (2, D, H, W), dtype=np.uint8)


@pytest.fixture
def logits(rng):
    return torch.tensor(rng.normal(size=(C, D, H, W)), dtype=torch.float32)


def check(rng, x, call):
    """``call`` gives the same with a gradient as without, and the gradient is the slope."""
    expected = call(x)
    given = x.clone().requires_grad_()
    found = call(given)
    assert (found.requires_grad, found.shape, found.dtype) == (True, expected.shape, x.dtype)
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-4)
    found.square().sum().backward()
    assert given.grad.shape == x.shape
    direction = torch.tensor(rng.normal(size=x.shape), dtype=torch.float32)
    up, down = (call(x + s * direction).double().square().sum() for s in (1e-2, -1e-2))
    slope = float((given.grad * direction).sum())
    assert slope == pytest.approx(float(up - down) / 2e-2, rel=3e-2, abs=1e-2)


def test_volumes(rng, logits, volume):
    options = {"kind": "logits", "returns": "probs", **WEAK}
    check(rng, logits, lambda x: refine(x, volume, **options))
    last = logits.movedim(0, 3).contiguous()
    check(rng, last, lambda x: refine(x, volume, **options))
    both = torch.stack([logits, -logits])
    images = np.stack([volume, 255 - volume])
    check(rng, both, lambda x: refine(x, images, image_layout="NKDHW", **options))
    scaled = volume * np.array([4.0, 0.1])[:, None, None, None]
    ranges = [(0, 1020), (0, 25.5)]
    check(rng, logits, lambda x: refine(x, scaled, image_range=ranges, **options))


def test_foreground_of_volumes(rng, logits, volume):
    mask = logits[0].sigmoid()
    check(rng, mask, lambda x: refine(x, volume, kind="mask", layout="DHW", **WEAK))


def test_points(rng, logits):
    points = rng.normal(size=(40, 3))
    x = logits.reshape(C, -1)[:, :40].T.contiguous()
    options = {"kind": "logits", "returns": "probs"}
    check(rng, x, lambda x: refine_points(x, points, sigmas=(0.5, 1.0, 2.0), **options))
    terms = [Features(points, 0.5, 0.5), Features(points[:, :1], 2.0, 0.3)]
    check(rng, x, lambda x: refine_points(x, terms, **options))
    check(rng, x[:, 0].sigmoid(), lambda x: refine_points(x, terms, kind="mask"))


def test_tensors_come_back_as_tensors(logits, volume):
    probs = logits.softmax(0)
    found = refine(probs, torch.from_numpy(volume), **WEAK)
    np.testing.assert_array_equal(found.numpy(), refine(probs.numpy(), volume, **WEAK))
    labels = refine(probs, volume, returns="labels")
    assert (labels.dtype, tuple(labels.shape)) == (torch.uint8, (D, H, W))
