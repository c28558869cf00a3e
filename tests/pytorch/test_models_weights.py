# SPDX-License-Identifier: MIT
"""Weights from files, under every name that they are public by, and what does not fit."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch import nn  # noqa: E402 - needs torch

from crfseg.torch.models import (  # noqa: E402 - needs torch
    deeplab_v1,
    fcn,
    load_imagenet_weights,
    load_weights,
    segnet,
    to_caffe_input,
    unet,
    vgg16,
)

WIDTH = 4
CONVS = [f"conv{b}_{i}" for b, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
# Written out here once more: a mistake in the library's table must not be repeated by the test.
PLACES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
NAMINGS = {
    "caffe": {"fc6": "fc6", "fc7": "fc7", "fc8": "fc8_voc12"},
    "plain caffe": {"fc8": "fc8_pascal"},
    "one sequence": {
        **{name: f"features.{i}" for name, i in zip(CONVS, PLACES, strict=True)},
        "fc6": "features.32",
        "fc7": "features.35",
        "fc8": "features.38",
    },
    "blocks": {
        **{name: f"block_{name[4]}.conv{name[6]}" for name in CONVS},
        "fc6": "conv6",
        "fc7": "conv7",
        "fc8": "conv8",
    },
    "torchvision": {
        **{name: f"features.{i}" for name, i in zip(CONVS, PLACES, strict=True)},
        "fc6": "classifier.0",
        "fc7": "classifier.3",
        "fc8": "classifier.6",
    },
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def renamed(model, naming):
    """The state dict of a network under other names."""
    table = NAMINGS[naming]
    found = {}
    for name, value in model.state_dict().items():
        layer, part = name.split(".")[-2:]
        found[f"{table.get(layer, layer)}.{part}"] = value
    return found


def saved(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def assert_same(found, expected):
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("naming", ["caffe", "plain caffe", "one sequence", "blocks"])
def test_deeplab_under_every_name(tmp_path, naming):
    given = deeplab_v1(num_classes=3, width=WIDTH)
    model = deeplab_v1(num_classes=3, width=WIDTH)
    load_weights(model, saved(tmp_path, renamed(given, naming)))
    assert_same(model, given)
    image = torch.randn(1, 3, 33, 41)
    assert torch.equal(model.eval()(image), given.eval()(image))


def test_branches_and_variants_under_caffes_names(tmp_path):
    for variant in ("4x4", "7x7"):
        given, model = (deeplab_v1(variant, msc=True, num_classes=3, width=2) for _ in range(2))
        state = renamed(given, "caffe")
        assert {"data_conv.weight", "pool4_ms.bias"} <= state.keys()
        load_weights(model, saved(tmp_path, state))
        assert_same(model, given)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_fcn_under_its_published_names(tmp_path, stride):
    given, model = (fcn(stride, num_classes=3, width=1) for _ in range(2))
    nn.init.normal_(given.classifier.score_fr.weight)
    state = renamed(given, "caffe")
    last = {32: "upscore", 16: "upscore16", 8: "upscore8"}[stride]
    assert {"conv1_1.weight", "score_fr.bias", f"{last}.weight"} <= state.keys()
    load_weights(model, saved(tmp_path, state))
    assert_same(model, given)


def test_fcn_trained_at_once_under_its_published_names(tmp_path):
    """The authors' network scales pool4 and pool3 by layers whose weights are in the file."""
    given, model = (fcn(8, num_classes=3, width=1, at_once=True) for _ in range(2))
    state = renamed(given, "caffe")
    state["scale_pool4.weight"] = torch.full((8,), 0.01)
    state["scale_pool3.weight"] = torch.full((4,), 0.0001)
    path = saved(tmp_path, state)
    load_weights(model, path)
    assert_same(model, given)
    with pytest.raises(ValueError, match=r"has scale_pool\d.weight .* which no layer of the net"):
        load_weights(fcn(8, num_classes=3, width=1), path)
    state["scale_pool3.weight"][2] = 0.001
    sentence = r"has scale_pool3.weight from 0.0001 to 0.001; expected 0.0001 everywhere"
    refused(tmp_path, state, sentence, model)


def test_torchvisions_vgg16(tmp_path):
    """Its fully connected layers are matrices."""
    given, model = (vgg16(10, width=WIDTH) for _ in range(2))
    state = renamed(given, "torchvision")
    state = {name: v.flatten(1) if "classifier" in name and v.ndim == 4 else v
             for name, v in state.items()}  # fmt: skip
    assert state["classifier.0.weight"].shape == (64 * WIDTH, 8 * WIDTH * 49)
    load_weights(model, saved(tmp_path, state))
    assert_same(model, given)


@pytest.mark.parametrize("make", [lambda: segnet(3, width=1), lambda: unet(3, width=1)])
@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_state_dicts_of_any_network_itself(tmp_path, make, wrapper, container):
    given, model = make(), make()
    state = {wrapper + name: value for name, value in given.state_dict().items()}
    load_weights(model, saved(tmp_path, {container: state, "epoch": 3} if container else state))
    assert_same(model, given)


def test_arrays_of_numpy(tmp_path):
    given, model = (deeplab_v1(num_classes=3, width=2) for _ in range(2))
    arrays = {name: value.numpy() for name, value in renamed(given, "caffe").items()}
    arrays["fc8_voc12.bias"] = arrays["fc8_voc12.bias"].reshape(1, 1, 1, 3)  # as old Caffe has it
    np.savez(tmp_path / "weights.npz", **arrays)
    load_weights(model, tmp_path / "weights.npz")
    assert_same(model, given)


# --- beginning with ImageNet ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "taps", "units"), [("largefov", 3, 4), ("4x4", 2, 1), ("7x7", 1, 1)]
)
def test_deeplab_begins_with_decimated_vgg16(tmp_path, variant, taps, units):
    """Taps 0, 3, 6 of every fourth unit for LargeFOV; 0, 2, 4, 6 of all of them for 4 x 4."""
    given = vgg16(10, width=WIDTH)
    state = {name: v.flatten(1) if "classifier" in name and v.ndim == 4 else v
             for name, v in renamed(given, "torchvision").items()}  # fmt: skip
    model = deeplab_v1(variant, num_classes=3, width=WIDTH)
    scores = model.classifier.fc8.weight.clone()
    load_imagenet_weights(model, saved(tmp_path, state))
    fc6, fc7 = given.classifier.fc6, given.classifier.fc7
    assert torch.equal(model.classifier.fc6.weight, fc6.weight[::units, :, ::taps, ::taps])
    assert torch.equal(model.classifier.fc6.bias, fc6.bias[::units])
    assert torch.equal(model.classifier.fc7.weight, fc7.weight[::units, ::units])
    assert torch.equal(model.trunk.conv5_3.weight, given.trunk.conv5_3.weight)
    assert torch.equal(model.classifier.fc8.weight, scores)


def test_deeplab_begins_with_vgg16_of_20_million(tmp_path):
    """Already decimated, under Caffe's names, without scores."""
    given = deeplab_v1(num_classes=3, width=WIDTH)
    state = {name: v for name, v in renamed(given, "caffe").items() if "fc8" not in name}
    model = deeplab_v1(num_classes=7, msc=True, width=WIDTH)
    load_imagenet_weights(model, saved(tmp_path, state))
    for name, value in given.state_dict().items():
        assert "fc8" in name or torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("make", [lambda: fcn(16, width=WIDTH), lambda: segnet(width=WIDTH)])
def test_other_networks_begin_with_vgg16(tmp_path, make):
    given, model = vgg16(10, width=WIDTH), make()
    load_imagenet_weights(model, saved(tmp_path, renamed(given, "torchvision")))
    found = {".".join(name.split(".")[-2:]): v for name, v in model.state_dict().items()}
    for name in [f"{conv}.weight" for conv in CONVS]:
        assert torch.equal(found[name], given.state_dict()[f"trunk.{name}"])


def test_torchvisions_preprocessing_is_folded_into_the_first_layer(tmp_path):
    """The changed layer sees of Caffe's input what the original sees of torchvision's."""
    given, model = (vgg16(10, width=WIDTH).double() for _ in range(2))
    nn.init.normal_(given.trunk.conv1_1.bias)
    state = renamed(given, "torchvision")
    load_imagenet_weights(model, saved(tmp_path, state), preprocessing="torchvision")
    levels = torch.rand(1, 3, 12, 14, dtype=torch.float64) * 255
    m = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    s = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    means = torch.tensor([104.008, 116.669, 122.675], dtype=torch.float64)[:, None, None]
    expected = given.trunk.conv1_1((levels / 255 - m) / s)
    found = model.trunk.conv1_1(levels.flip(1) - means)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inner], expected[inner])
    # At the border padding means another grey: a bit of a level.
    assert not torch.allclose(found, expected)
    assert (found - expected).abs().max() < 0.05 * expected.std() * 9
    assert torch.equal(model.trunk.conv1_2.weight, given.trunk.conv1_2.weight)


def test_trained_weights_can_have_torchvisions_preprocessing_too(tmp_path):
    given, model = (deeplab_v1(msc=True, num_classes=3, width=2) for _ in range(2))
    path = saved(tmp_path, renamed(given, "caffe"))
    load_weights(model, path, preprocessing="torchvision")
    for name in ("trunk.conv1_1", "branches.data.data_conv"):
        layer = given.get_submodule(name)
        weight, bias = to_caffe_input(layer.weight, layer.bias)
        assert torch.equal(model.get_submodule(name).weight, weight)
        assert torch.equal(model.get_submodule(name).bias, bias)


# --- what does not fit ----------------------------------------------------------------------------


def refused(tmp_path, content, sentence, model=None, load=load_weights):
    """Refused in this sentence, and the network is as it was."""
    model = model or deeplab_v1(num_classes=3, width=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load(model, path)
    assert str(caught.value).startswith(f"[{load.__name__}] {path} ")
    assert "\n" not in str(caught.value)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_first_entry_that_does_not_fit_is_named(tmp_path):
    state = renamed(deeplab_v1(num_classes=3, width=2), "one sequence")
    state["features.32.weight"] = torch.zeros(32, 16, 3, 4)
    state["features.38.bias"] = torch.zeros(4)
    sentence = r"has features.32.weight \(which is fc6.weight\) of shape \(32, 16, 3, 4\); expected"
    refused(tmp_path, state, rf"{sentence} \(32, 16, 3, 3\)$")


def test_a_missing_entry_is_named(tmp_path):
    state = renamed(deeplab_v1(num_classes=3, width=2), "caffe")
    del state["conv3_2.bias"], state["fc7.bias"]
    refused(tmp_path, state, r"has no conv3_2.bias; expected one of shape \(8,\)$")


def test_an_entry_too_many_is_named(tmp_path):
    state = renamed(deeplab_v1(num_classes=3, msc=True, width=2), "caffe")
    refused(tmp_path, state, r"has data_conv.weight of shape \(4, 3, 3, 3\), which no layer of the")


def test_networks_of_another_size_are_refused(tmp_path):
    sentence = r"has fc8_voc12.weight \(which is fc8.weight\) of shape \(4, .*; expected \(3, "
    refused(tmp_path, renamed(deeplab_v1(num_classes=4, width=2), "caffe"), sentence)
    sentence = r"has fc6.weight of shape \(128, 16, 7, 7\); expected \(32, 16, 3, 3\)"
    refused(tmp_path, renamed(deeplab_v1("7x7", num_classes=3, width=2), "caffe"), sentence)


def test_imagenet_weights_of_another_size_are_refused(tmp_path):
    load = load_imagenet_weights
    state = renamed(vgg16(10, width=1), "torchvision")
    sentence = r"has features.0.weight \(which is conv1_1.weight\) of shape \(1, .*; expected \(2"
    refused(tmp_path, state, sentence, load=load)
    small = renamed(deeplab_v1(num_classes=3, width=2), "caffe")
    sentence = r"has fc6.weight of shape \(32, 16, 3, 3\); expected \(128, 16, 7, 7\)"
    refused(tmp_path, small, sentence, deeplab_v1("7x7", num_classes=3, width=2), load)
    with pytest.raises(ValueError, match=r"\[load_imagenet_weights\] model has no layer of VGG-16"):
        load(unet(width=1), saved(tmp_path, state))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], r"holds \[1, 2\]; expected a state dict"),
        ({}, "holds {}; expected a state dict"),
        ({"conv1_1.weight": 3}, "has 3 at 'conv1_1.weight'; expected names and tensors"),
        ({"conv1_1.weight": torch.zeros(1), "module.conv1_1.weight": torch.zeros(1)}, "has both"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, sentence):
    refused(tmp_path, content, sentence)


class Intruder:
    """What a pickle could run."""

    def __reduce__(self):
        return print, ("run by a file of weights",)


def test_nothing_of_a_file_is_run(tmp_path, capsys):
    refused(tmp_path, {"conv1_1.weight": Intruder()}, "cannot be read as weights alone")
    np.savez(tmp_path / "bad.npz", **{"conv1_1.weight": np.array([Intruder()], dtype=object)})
    with pytest.raises(ValueError, match="cannot be read as weights alone"):
        load_weights(deeplab_v1(width=1), tmp_path / "bad.npz")
    assert capsys.readouterr().out == ""


def test_what_no_loader_expects_is_refused_too(tmp_path):
    """A memo that a pickle asks for and never wrote: torch raises IndexError or the like."""
    for i, content in enumerate((b"\x80\x02h\x05.", b"\x80\x020.", b"\x80\x02q\x01.", b"junk")):
        path = tmp_path / f"{i}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as weights alone"):
            load_weights(deeplab_v1(width=1), path)


@pytest.mark.parametrize("name", ["noise.pth", "noise.npz"])
def test_files_that_are_no_archives_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x93no weights at all")
    with pytest.raises(ValueError, match=re.escape(name) + " cannot be read as weights alone"):
        load_weights(deeplab_v1(width=1), tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_weights(deeplab_v1(width=1), tmp_path / "none.pth")


def test_what_is_to_be_saved_is_said_where_a_pickled_model_was(tmp_path):
    model = deeplab_v1(width=1)
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=re.escape("torch.save(model.state_dict(), path)")):
        load_weights(model, tmp_path / "whole.pth")
    with pytest.raises(TypeError, match=r"OrderedDict.*load_state_dict"):
        load_weights(model, model.state_dict())


@pytest.mark.parametrize(
    ("weight", "bias", "sentence"),
    [
        ((4, 1, 3, 3), (4,), r"weight has shape \(4, 1, 3, 3\); expected \(n, 3, height, width\)"),
        ((4, 3, 3, 3), (3,), r"bias has shape \(3,\); expected \(4,\)"),
    ],
)
def test_layers_that_see_no_picture_have_no_other_input(weight, bias, sentence):
    with pytest.raises(ValueError, match=rf"\[to_caffe_input\] {sentence}"):
        to_caffe_input(torch.zeros(weight), torch.zeros(bias))


def test_models_and_files_in_the_wrong_order_are_named(tmp_path):
    for load in (load_weights, load_imagenet_weights):
        with pytest.raises(TypeError, match=rf"\[{load.__name__}\] model is .*a torch.nn.Module"):
            load(str(tmp_path / "weights.pth"), vgg16(width=1))


def test_other_preprocessing_is_refused(tmp_path):
    for load in (load_weights, load_imagenet_weights):
        with pytest.raises(ValueError, match=rf"\[{load.__name__}\] preprocessing is 'rgb'"):
            load(vgg16(width=1), tmp_path / "none.pth", preprocessing="rgb")
