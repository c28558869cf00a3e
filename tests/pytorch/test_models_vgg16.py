# SPDX-License-Identifier: MIT
"""Classifiers as convolutions, decimated layers, and dense scores by shifting."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch import nn  # noqa: E402 - needs torch
from torch.nn import functional  # noqa: E402 - needs torch

from crfseg.torch.models import (  # noqa: E402 - needs torch
    convolutional,
    decimate,
    shift_and_stitch,
    vgg16,
)
from networks import on_meta  # noqa: E402 - needs torch


def some_classifier():
    """A fully connected end for maps of 4 channels, 3 high and 5 wide."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(4 * 3 * 5, 8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 6, bias=False),
        nn.Identity(),
    ).double()


def test_a_convolutional_classifier_scores_every_window():
    """A map of 5 x 9 has 3 x 5 windows of 3 x 5; nothing is padded, so all of them agree."""
    torch.manual_seed(0)
    layers = some_classifier().eval()
    dense = convolutional(layers, (3, 5)).eval()
    maps = torch.randn(2, 4, 5, 9, dtype=torch.float64)
    scores = dense(maps)
    assert scores.shape == (2, 6, 3, 5)
    for y in range(3):
        for x in range(5):
            window = maps[:, :, y : y + 3, x : x + 5]
            torch.testing.assert_close(scores[:, :, y, x], layers(window))


def test_a_convolutional_classifier_has_weights_of_its_own():
    layers = some_classifier()
    dense = convolutional(layers, (3, 5))
    assert [type(layer).__name__ for layer in dense] == [
        "Conv2d",
        "ReLU",
        "Dropout",
        "Conv2d",
        "Identity",
    ]
    layers[1].weight.data.zero_()
    assert dense[0].weight.abs().sum() > 0
    assert dense[3].bias is None


def test_the_end_of_vgg16_becomes_fc6_fc7_and_fc8():
    """The layers of torchvision's vgg16: 224 pixels make one score, 384 make 6 x 6."""
    with torch.device("meta"):
        end = nn.Sequential(nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000))
        trunk = vgg16(width=64).trunk
    dense = convolutional(end, (7, 7))
    assert dense[0].weight.shape == (4096, 512, 7, 7)
    for size, scores in ((224, 1), (384, 6)):
        found = dense(trunk(torch.empty(1, 3, size, size, device="meta")))
        assert found.shape == (1, 1000, scores, scores)


def test_vgg16_is_its_layers_one_by_one():
    """Against torchvision's order of layers, written out, with the fully connected end flat."""
    torch.manual_seed(0)
    model = vgg16(5, width=2).eval()
    channels = [2, 2, 0, 4, 4, 0, 8, 8, 8, 0, 16, 16, 16, 0, 16, 16, 16, 0]
    convs = iter(layer for layer in model.trunk if isinstance(layer, nn.Conv2d))
    image = torch.randn(1, 3, 224, 224)
    x = image
    for wide in channels:
        conv = next(convs) if wide else None
        x = functional.max_pool2d(x, 2) if conv is None else conv(x).relu()
        assert not wide or x.shape[1] == wide
    end = model.classifier
    x = functional.linear(x.flatten(1), end.fc6.weight.flatten(1), end.fc6.bias).relu()
    x = functional.linear(x, end.fc7.weight.flatten(1), end.fc7.bias).relu()
    x = functional.linear(x, end.fc8.weight.flatten(1), end.fc8.bias)
    torch.testing.assert_close(model(image)[:, :, 0, 0], x)


@pytest.mark.parametrize(
    ("layers", "size", "error", "sentence"),
    [
        ([nn.Linear(10, 2)], (3, 3), ValueError, r"layers\[0\] has 10 inputs; .* of 3 x 3"),
        ([nn.ReLU(), nn.Softmax(1)], (1, 1), TypeError, r"layers\[1\] is Softmax.* or Flatten"),
        ([nn.Sequential(nn.ReLU())], (1, 1), TypeError, r"layers\[0\] is Sequential; expected"),
        ([nn.Linear(9, 2)], 3, TypeError, r"size is 3"),
        ([nn.Linear(9, 2)], (0, 3), ValueError, r"size is 0; expected an integer of at least 1"),
    ],
)
def test_what_cannot_become_a_convolution_is_named(layers, size, error, sentence):
    with pytest.raises(error, match=rf"\[convolutional\] {sentence}"):
        convolutional(nn.Sequential(*layers), size)


def test_decimation_takes_every_fourth_unit_and_every_third_tap():
    """The indices of the ports: weight[::4, :, ::3, ::3] for 3 x 3, ::2 for 4 x 4."""
    fc6 = torch.randn(64, 8, 7, 7)
    assert torch.equal(decimate(fc6, (16, 8, 3, 3)), fc6[::4, :, ::3, ::3])
    assert torch.equal(decimate(fc6, (64, 8, 4, 4)), fc6[:, :, ::2, ::2])
    fc7 = torch.randn(64, 64, 1, 1)
    assert torch.equal(decimate(fc7, (16, 16, 1, 1)), fc7[::4, ::4])
    assert torch.equal(decimate(fc7[:, 0, 0, 0], (16,)), fc7[::4, 0, 0, 0])
    real = torch.arange(4096)
    assert torch.equal(decimate(real, (1024,)), real[::4])


@pytest.mark.parametrize("shape", [(5, 8), (4, 8, 1), (0, 8)])
def test_decimation_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\[decimate\] shape is .*; expected at most \(4, 8\)"):
        decimate(torch.zeros(4, 8), shape)


def strided_network(dilation):
    """Valid convolutions around a pool of stride 2, or the same dilated, with equal weights."""
    torch.manual_seed(1)
    stride = 2 if dilation == 1 else 1
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2, stride),
        nn.Conv2d(3, 4, 3, dilation=dilation),
        nn.ReLU(),
        nn.Conv2d(4, 5, 2, dilation=dilation),
    ).double()


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (19, 15)])
def test_shift_and_stitch_is_dilation(size):
    image = torch.randn(2, 2, *size, dtype=torch.float64)
    strided, dilated = strided_network(1), strided_network(2)
    with torch.no_grad():
        stitched = shift_and_stitch(strided, image, 2)
        torch.testing.assert_close(stitched, dilated(image))
    assert stitched.shape[2:] == (size[0] - 9, size[1] - 9)


def test_shift_and_stitch_with_two_strides_is_dilation_by_their_product():
    torch.manual_seed(2)
    weights = [torch.randn(2, 2, 3, 3, dtype=torch.float64) for _ in range(3)]
    image = torch.randn(1, 2, 41, 38, dtype=torch.float64)

    def network(x, strides, dilations):
        for weight, stride, dilation in zip(weights, strides, dilations, strict=True):
            x = functional.conv2d(x, weight, stride=stride, dilation=dilation).tanh()
        return x

    stitched = shift_and_stitch(lambda x: network(x, (2, 3, 1), (1, 1, 1)), image, 6)
    torch.testing.assert_close(stitched, network(image, (1, 1, 1), (1, 2, 6)))


def test_shift_and_stitch_passes_gradients_and_needs_one_batch():
    image = torch.randn(1, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    shift_and_stitch(strided_network(1), image, 2).sum().backward()
    assert (image.grad != 0).double().mean() > 0.9
    with pytest.raises(ValueError, match=r"\[shift_and_stitch\] image has shape \(2, 16, 16\)"):
        shift_and_stitch(strided_network(1), image[0], 2)
    with pytest.raises(ValueError, match="which the others leave room for"):
        shift_and_stitch(lambda x: x[:, :, : 19 - x.shape[2], :1], image, 2)


def test_initial_weights_are_as_he_et_al_have_them():
    torch.manual_seed(0)
    model = vgg16(10, width=16)
    conv = model.trunk.conv4_2
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert float(model.classifier.fc8.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_fully_convolutional_dropout_takes_single_elements():
    """Caffe's does; ports that drop whole channels train otherwise."""
    model = on_meta(vgg16, width=1)
    drops = [layer for layer in model.modules() if type(layer).__name__.startswith("Drop")]
    assert [(type(layer), layer.p) for layer in drops] == [(nn.Dropout, 0.5)] * 2
