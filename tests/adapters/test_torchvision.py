# SPDX-License-Identifier: MIT
"""torchvision's dictionaries, with its own models and presets where it is installed."""

from collections import OrderedDict

import numpy as np
import pytest

from crfseg.adapters.torchvision import refine
from scene import SHARP, framework, full_logits, logits, normalized, photograph

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Transforms:
    """What is read of ``weights.transforms()``: a SemanticSegmentation preset of 0.28 has these."""

    mean, std = MEAN, STD


@pytest.fixture
def output(labels):
    """As a model with an auxiliary classifier returns it."""
    out = torch.from_numpy(full_logits(labels))[None]
    return OrderedDict(out=out, aux=-out)


def test_the_network_s_input_is_what_guides(labels, output):
    batch = torch.from_numpy(normalized(photograph(labels), MEAN, STD))
    refined = refine(output, batch, transforms=Transforms, **SHARP)
    assert not np.array_equal(output["out"][0].argmax(0), labels)
    np.testing.assert_array_equal(refined[0], labels)


def test_photographs_of_all_kinds_say_the_same(labels, output):
    image_module = pytest.importorskip("PIL.Image")
    photo = photograph(labels)
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    pictures = (photo, image_module.fromarray(photo), tensor, tensor[None], [photo], tensor / 255)
    for images in pictures:
        refined = refine(output, images, **SHARP)
        np.testing.assert_array_equal(refined[0], labels)


def test_logits_are_stretched_to_larger_photographs(labels):
    coarse = torch.from_numpy(logits(labels))[None]
    refined = refine(coarse, photograph(labels), **SHARP)
    np.testing.assert_array_equal(refined[0], labels)


def test_a_batch_comes_back_as_one(labels, output):
    both = [labels, labels[::-1, ::-1].copy()]
    batch = {"out": torch.cat([output["out"], output["out"].flip(2, 3)])}
    refined = refine(batch, [photograph(one) for one in both], **SHARP)
    np.testing.assert_array_equal(refined, both)


def test_what_is_asked_for_comes_back(labels, output):
    probs = refine(output, photograph(labels), returns="probs", **SHARP)
    assert probs.shape == (1, 3, *labels.shape)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(probs[0].argmax(0), labels)


def test_gradients_flow_where_they_are_asked_for(labels, output):
    out = output["out"].requires_grad_()
    refine(output, photograph(labels), returns="probs", **SHARP)[0, 1].sum().backward()
    assert out.grad.abs().max() > 0


def test_another_dictionary_is_refused(labels):
    with pytest.raises(ValueError, match=r"'masks', 'boxes'; expected 'out'"):
        refine({"masks": None, "boxes": None}, photograph(labels))


@pytest.mark.filterwarnings("ignore")
def test_a_model_and_its_preset(labels):
    framework("torchvision")
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    weights = segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    transforms = weights.transforms(resize_size=None)
    batch = transforms(torch.from_numpy(photograph(labels)).permute(2, 0, 1))[None]
    network = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    with torch.no_grad():
        found = network.eval()(batch)
    assert refine(found, batch, transforms=transforms).shape == (1, *labels.shape)
    found["out"] = torch.from_numpy(full_logits(labels))[None]
    refined = refine(found, batch, transforms=transforms, **SHARP)
    np.testing.assert_array_equal(refined[0], labels)
