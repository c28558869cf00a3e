# SPDX-License-Identifier: MIT
"""What the layer is for, on generated textured shapes: training with it, and fitting it."""

import numpy as np
import pytest

from shapes import N_CLASSES, some_shapes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch import nn  # noqa: E402 - needs torch
from torch.nn import functional  # noqa: E402

from crfseg.torch import CRF, DenseCRFLoss, GatedCRFLoss  # noqa: E402

SIZE = 48


def shapes_for(seed, n):
    return tuple(map(torch.from_numpy, some_shapes(np.random.default_rng(seed), n, SIZE)))


def head():
    """A linear classifier of colours."""
    torch.manual_seed(0)
    return nn.Conv2d(3, N_CLASSES, 1)


def colours(image):
    return (image - 115) / 40


def mean_iou(logits, labels):
    pairs = torch.bincount(
        (labels * N_CLASSES + logits.argmax(1)).flatten(), minlength=N_CLASSES**2
    )
    pairs = pairs.reshape(N_CLASSES, N_CLASSES)
    both = pairs.diagonal()
    return float((both / (pairs.sum(0) + pairs.sum(1) - both)).mean())


def train(modules, loss, steps, rate=0.1):
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def best_post_processed(logits, image, labels):
    """Of a grid of parameters, chosen on the very images that are judged."""
    found = []
    for sigma in (1.0, 3.0):
        for smooth in (0.3, 1.0, 3.0):
            for alike in (0.0, 0.3, 1.0):
                crf = CRF(N_CLASSES, spatial=(sigma, smooth), bilateral=(8.0, 60.0, alike)).eval()
                found.append(mean_iou(crf(logits, image), labels))
    return max(found)


@pytest.mark.parametrize("seed", [0, 1])
def test_training_through_the_layer_beats_post_processing(seed):
    image, labels = shapes_for(seed, 8)
    other_image, other_labels = shapes_for(100 + seed, 8)
    alone, joint = head(), head()
    crf = CRF(N_CLASSES, spatial=(2.0, 1.0), bilateral=(8.0, 60.0, 1.0))
    train([alone], lambda: functional.cross_entropy(alone(colours(image)), labels), 60)
    train(
        [joint, crf],
        lambda: functional.cross_entropy(crf(joint(colours(image)), image), labels),
        60,
    )
    crf.eval()
    with torch.no_grad():
        logits = alone(colours(other_image))
        raw = mean_iou(logits, other_labels)
        post_processed = best_post_processed(logits, other_image, other_labels)
        trained = mean_iou(crf(joint(colours(other_image)), other_image), other_labels)
    assert post_processed > raw + 0.02
    assert trained > post_processed + 0.1


@pytest.mark.parametrize(
    ("learn", "share"), [(("weights", "compatibility", "sigmas"), 0.6), (("sigmas",), 0.9)]
)
def test_weights_and_bandwidths_are_fitted_on_ten_images(learn, share):
    """Scores stay as they are; the loss on other images falls with that on the ten."""
    rng = np.random.default_rng(7)

    def scored(seed, n):
        image, labels = shapes_for(seed, n)
        noise = torch.tensor(rng.normal(size=(n, N_CLASSES, SIZE, SIZE)), dtype=torch.float32)
        return torch.eye(N_CLASSES)[labels].permute(0, 3, 1, 2) + 1.5 * noise, image, labels

    (logits, image, labels), (others, other_image, other_labels) = scored(3, 10), scored(4, 6)
    # The texture is 22 levels wide: a sigma of 10 tells most neighbours apart.
    crf = CRF(N_CLASSES, spatial=(3.0, 1.0), bilateral=(15.0, 10.0, 3.0), learn=learn)

    def other_loss():
        with torch.no_grad():
            return functional.cross_entropy(crf(others, other_image), other_labels).item()

    before = other_loss()
    losses = train([crf], lambda: functional.cross_entropy(crf(logits, image), labels), 25)
    assert losses[-1] < share * losses[0]
    assert other_loss() < share * before
    assert crf.bilateral_log_sigmas[1].exp() > 10.5


@pytest.mark.parametrize(
    "energy",
    [DenseCRFLoss(15.0, 40.0, weight=7e-7, scale=1.0), GatedCRFLoss(6.0, 40.0, weight=0.1)],
    ids=["dense", "gated"],
)
def test_losses_pull_alike_neighbours_together(energy):
    """Noisy scores, moved downhill of the energy while held to what they were."""
    image, labels = shapes_for(5, 2)
    noise = torch.randn(2, N_CLASSES, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    given = torch.eye(N_CLASSES)[labels].permute(0, 3, 1, 2) + noise
    scores = nn.Parameter(given.clone())
    holder = nn.ParameterList([scores])

    def loss():
        held = functional.cross_entropy(scores, given.softmax(1))
        return held + energy(scores.softmax(1), image)

    losses = train([holder], loss, 20, 0.3)
    assert losses[-1] < losses[0]
    assert mean_iou(scores, labels) > mean_iou(given, labels) + 0.05
