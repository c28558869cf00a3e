# SPDX-License-Identifier: MIT
"""Presets and what networks hold, of tensors: with and without gradients."""

import numpy as np
import pytest

from crfseg import refine, refine_dataset
from crfseg.cams import refine_present, with_background
from crfseg.io import read_labels
from crfseg.labels import merge_confident

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

N, C, H, W = 2, 3, 10, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def logits(rng):
    return torch.tensor(rng.normal(size=(N, C, H, W)), dtype=torch.float32)


@pytest.fixture
def images(rng):
    return torch.tensor(rng.integers(0, 256, (N, H, W, 3)), dtype=torch.uint8)


def check(x, image, **options):
    """As without a gradient, and with one that is not 0."""
    expected = refine(x, image, **options)
    given = x.clone().requires_grad_()
    found = refine(given, image, **options)
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=2e-3)
    found.square().sum().backward()
    assert given.grad.abs().max() > 1e-4
    return expected


@pytest.mark.parametrize("name", ["deeplab-v1-largefov", "crf-rnn", "psa", "mrbrains", "cutler"])
def test_presets_of_tensors(name, logits, images):
    options = {"kind": "logits", "returns": "probs", "preset": name}
    found = check(logits, images, **options)
    expected = refine(logits.numpy(), images.numpy(), **options)
    np.testing.assert_array_equal(found.numpy(), expected)
    check(logits, images, iterations=2, scale=2, **options)


def test_scores_of_tensors(logits, images):
    scores = 3 * logits.sigmoid()
    check(scores, images, kind="scores", preset="pydensecrf")
    with pytest.raises(
        ValueError, match=r"^\[refine\] x\[0\] has -.*; expected scores of at least 0"
    ):
        refine(logits.requires_grad_(), images, kind="scores")
    softmax = logits.softmax(1)
    with pytest.raises(ValueError, match=r"^\[refine\] x\[0\] holds probabilities"):
        refine(softmax, images, kind="logits")


def test_normalized_images_of_tensors(logits, images):
    levels = images.float() / 255
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    options = {"kind": "logits", "returns": "probs", "preset": "stego"}
    given = ((levels - mean) / std).flip(-1)
    found = check(logits, given, mean=mean.flip(0), std=std.flip(0), bgr=True, **options)
    expected = refine(logits, levels, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    half = given.to(torch.bfloat16)
    found = refine(logits, half, mean=mean.flip(0), std=std.flip(0), bgr=True, **options)
    assert (found - expected).abs().mean() < 0.05


def test_activation_maps_of_tensors(logits, images):
    cams = logits.sigmoid()
    scores = with_background(cams, alpha=4)
    assert isinstance(scores, torch.Tensor)
    np.testing.assert_array_equal(scores.numpy(), with_background(cams.numpy(), alpha=4))
    scores[:, 2] = 0
    options = {"kind": "scores", "preset": "psa"}
    found = refine_present(scores, images, **options)
    expected = refine_present(scores.numpy(), images.numpy(), **options)
    np.testing.assert_array_equal(found.numpy(), expected)
    labels = refine_present(scores, images, returns="labels", min_confidence=0.9, **options)
    assert labels.dtype == torch.uint8
    merged = merge_confident(labels, labels * 0)
    assert isinstance(merged, torch.Tensor)
    for call in (lambda x: with_background(x, alpha=1), lambda x: refine_present(x, images)):
        with pytest.raises(ValueError, match="requires a gradient, which it does not get here"):
            call(cams.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_data_sets_take_tensors_of_every_kind(logits, images, dtype, tmp_path):
    """What they are made of is compared by contents, which numpy has no dtype for."""
    scores = logits.softmax(1).to(dtype).requires_grad_()
    triples = [(str(i), images[i], scores[i]) for i in range(N)]
    assert refine_dataset(triples, out=tmp_path).refined == N
    assert refine_dataset(triples, out=tmp_path, resume=True).unchanged == N
    changed = [(name, image, one.detach().flip(0)) for name, image, one in triples]
    assert refine_dataset(changed, out=tmp_path, resume=True).refined == N
    expected = refine(scores[0].detach().flip(0), images[0], returns="labels")
    assert (read_labels(tmp_path / "0.png").labels == expected.numpy()).all()
