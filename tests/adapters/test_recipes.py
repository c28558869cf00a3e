# SPDX-License-Identifier: MIT
"""The lines of docs/frameworks.md run as printed, with the libraries that they are about."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from scene import CLASSES, framework, full_logits, logits
from snippets import DOCUMENTS, blocks, run

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")
image_module = pytest.importorskip("PIL.Image")

PAGE = DOCUMENTS / "frameworks.md"
pytestmark = pytest.mark.filterwarnings("ignore")


def run_section(title, names):
    """Run the blocks under a heading."""
    text = PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    mine = [block for block in blocks(PAGE) if block in section]
    assert mine
    for block in mine:
        run(block, names, PAGE.name)
    return names


def test_transformers(photo):
    transformers = framework("transformers")
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, decoder_hidden_size=8, num_labels=CLASSES
    )
    names = {
        "model": transformers.SegformerForSemanticSegmentation(config).eval(),
        "processor": transformers.SegformerImageProcessor(size={"height": 64, "width": 64}),
        "photos": [image_module.fromarray(one) for one in (photo, photo[:, ::-1].copy())],
    }
    assert [one.shape for one in run_section("transformers", names)["maps"]] == [
        photo.shape[:2]
    ] * 2


def test_torchvision(photo):
    framework("torchvision")
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    weights = segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    names = {
        "weights": SimpleNamespace(transforms=lambda: weights.transforms(resize_size=64)),
        "model": segmentation.lraspp_mobilenet_v3_large(weights_backbone=None).eval(),
        "photo": image_module.fromarray(photo),
    }
    assert run_section("torchvision", names)["labels"].shape == (1, 64, 96)


def test_segmentation_models_pytorch(photo):
    smp = framework("segmentation_models_pytorch")
    parameters = {"input_space": "RGB", "input_range": [0, 1], "mean": [0.5] * 3, "std": [0.2] * 3}
    given = smp.encoders.preprocess_input(photo, **parameters)
    network = smp.Unet("resnet18", encoder_weights=None, classes=CLASSES)
    names = {
        "model": network.eval(),
        "batch": torch.from_numpy(given).float().permute(2, 0, 1)[None],
        "parameters": parameters,
    }
    labels = run_section("segmentation_models_pytorch", names)["labels"]
    assert labels.shape == (1, *photo.shape[:2])


def test_mmsegmentation(labels, photo):
    structures = framework("mmseg.structures")
    pixels = framework("mmengine.structures").PixelData

    def inference_model(model, image):
        sample = structures.SegDataSample()
        sample.seg_logits = pixels(data=torch.from_numpy(full_logits(labels)))
        return sample

    blue_first = photo[..., ::-1]
    names = {"inference_model": inference_model, "model": None, "photo": blue_first}
    assert run_section("mmsegmentation", names)["labels"].shape == (1, *labels.shape)


def test_others(labels, photo):
    session = SimpleNamespace(run=lambda _, given: [logits(labels)[None]])
    names = run_section("Others", {"session": session, "given": None, "photo": photo})
    assert names["labels"].shape == labels.shape
    assert set(np.unique(names["labels"])) <= set(range(CLASSES))
