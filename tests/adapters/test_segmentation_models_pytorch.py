# SPDX-License-Identifier: MIT
"""Outputs of segmentation_models_pytorch, with its own models where it is installed."""

import numpy as np
import pytest

from crfseg.adapters.segmentation_models_pytorch import refine
from scene import SHARP, framework, full_logits, normalized

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

# As smp.encoders.get_preprocessing_params (0.6.0) returns them; the second is in the manner of
# Caffe's networks, with levels of 0..255 and blue first.
RGB = {
    "input_space": "RGB",
    "input_range": [0, 1],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
BGR = {
    "input_space": "BGR",
    "input_range": [0, 255],
    "mean": [104, 117, 128],
    "std": [1, 1, 1],
}


@pytest.fixture
def output(labels):
    """(1, 3, H, W) logits."""
    return torch.from_numpy(full_logits(labels))[None]


def prepared(photo, parameters):
    """As ``smp.encoders.preprocess_input`` does it."""
    photo = photo[..., ::-1] if parameters["input_space"] == "BGR" else photo
    scale = 255 / parameters["input_range"][1]
    mean = np.array(parameters["mean"]) * scale / 255
    return torch.from_numpy(normalized(photo, mean, np.array(parameters["std"]) * scale / 255))


def test_classes_that_exclude_each_other(labels, photo, output):
    np.testing.assert_array_equal(refine(output, photo, **SHARP)[0], labels)
    probs = output.softmax(1)
    np.testing.assert_array_equal(refine(probs, photo, activated=True, **SHARP)[0], labels)


@pytest.mark.parametrize("parameters", [RGB, BGR], ids=["rgb", "bgr"])
def test_preprocessing_is_undone(photo, output, parameters, rng):
    """The order of colours moves nothing but the lattice, which on noise is enough to tell."""
    noise = rng.integers(0, 256, photo.shape, dtype=np.uint8)
    asked = {"returns": "probs", "spatial": None, "bilateral": (20, 40, 10), "keep_thin": 0}
    batch = prepared(noise, parameters)
    found = refine(output, batch, preprocessing=parameters, **asked)
    expected = refine(output, noise, **asked)
    other_way = refine(output, noise[..., ::-1], **asked)
    assert (other_way - expected).abs().max() > 0.02
    np.testing.assert_allclose(found, expected, atol=2e-3)  # float32 against levels


def test_one_class_is_a_mask(labels, photo, output):
    post = output[:, 1:2]
    refined = refine(post, photo, **SHARP)
    np.testing.assert_array_equal(refined[0], labels == 1)
    probs = refine(post, photo, returns="probs", **SHARP)
    assert probs.shape == (1, 1, *labels.shape)
    np.testing.assert_array_equal(probs[0, 0] > 0.5, labels == 1)
    again = refine(post.sigmoid(), photo, activated=True, returns="probs", **SHARP)
    np.testing.assert_array_equal(again, probs)


def test_classes_that_overlap_are_masks_of_their_own(labels, photo, output):
    batch = torch.cat([output, output.flip(2)])
    batch[:, 0] = batch[:, 1:].max(1).values  # the class of what is in either of the others
    both = [labels, labels[::-1]]
    refined = refine(batch, [photo, photo[::-1]], mode="multilabel", **SHARP)
    for found, one in zip(refined, both, strict=True):
        np.testing.assert_array_equal(found, [one > 0, one == 1, one == 2])
    alone = refine(batch[:1], photo, mode="multilabel", returns="probs", **SHARP)
    assert alone.shape == (1, 3, *labels.shape)
    np.testing.assert_array_equal(alone > 0.5, refined[:1])


def test_other_shapes_are_refused(photo, output):
    with pytest.raises(ValueError, match=r"output has shape \(3, 32, 48\); expected \(N, C, H, W"):
        refine(output[0], photo)
    with pytest.raises(ValueError, match="expected one class for 'binary'"):
        refine(output, photo, mode="binary")
    with pytest.raises(ValueError, match="mode is 'softmax'; expected 'auto', 'binary'"):
        refine(output, photo, mode="softmax")


def test_probabilities_are_not_taken_for_logits(photo, output):
    with pytest.raises(ValueError, match="holds probabilities"):
        refine(output.softmax(1), photo)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parameters", [RGB, BGR], ids=["rgb", "bgr"])
def test_a_model_and_its_preprocessing(labels, photo, output, parameters):
    smp = framework("segmentation_models_pytorch")
    given = smp.encoders.preprocess_input(photo, **parameters)
    batch = torch.from_numpy(given).float().permute(2, 0, 1)[None]
    network = smp.Unet(
        "resnet18", encoder_weights=None, classes=3, encoder_depth=3, decoder_channels=(16, 8, 8)
    )
    with torch.no_grad():
        found = network.eval()(batch)
    assert found.shape == output.shape
    assert refine(found, batch, preprocessing=parameters).shape == (1, *labels.shape)
    refined = refine(output, batch, preprocessing=parameters, **SHARP)
    np.testing.assert_array_equal(refined[0], labels)
