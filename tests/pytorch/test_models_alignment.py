# SPDX-License-Identifier: MIT
"""Scores lie over the pixels that they are of: crops, zooms and offsets, on linear twins.

Of an image whose values are its columns, a network that averages symmetrically gives at every point
the column on which its receptive field is centred.
"""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch.nn import functional  # noqa: E402 - needs torch

from crfseg.torch.models import deeplab_v1, fcn, unet  # noqa: E402 - needs torch
from crfseg.torch.models.fcn import bilinear_kernel  # noqa: E402 - needs torch
from networks import linear  # noqa: E402 - needs torch

WIDTH = 1000


def centres(scores, *, axis=-1, width=WIDTH, height=9):
    """Along an axis, the mean column (or row) of what each point sees, by its weights."""
    shape = (1, 3, height, width) if axis == -1 else (1, 3, width, height)
    ones = torch.ones(shape, dtype=torch.float64)
    ramp = torch.arange(1, width + 1, dtype=torch.float64)
    ramp = ones * (ramp if axis == -1 else ramp[:, None])
    with torch.no_grad():
        found = scores(ramp)[0, 0] / scores(ones)[0, 0] - 1
    return found[found.shape[0] // 2] if axis == -1 else found[:, found.shape[1] // 2]


def middle(n, margin):
    return torch.arange(n, dtype=torch.float64)[margin:-margin]


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("axis", [-1, -2])
def test_fcn_crops_put_scores_over_their_pixels(stride, axis):
    """Each stream alone: a skip that is cropped wrongly cannot hide behind the others."""
    model = linear(fcn(stride, num_classes=2, width=1))
    layers = ["classifier.score_fr", "score_pool4", "score_pool3"][: {32: 1, 16: 2, 8: 3}[stride]]
    for alone in layers:
        for name in layers:
            model.get_submodule(name).weight.data.fill_(float(name == alone))
        found = centres(model, axis=axis)
        assert len(found) == WIDTH
        torch.testing.assert_close(found[300:-300], middle(WIDTH, 300), atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", ["largefov", "4x4", "7x7", "4x4-dilated"])
@pytest.mark.parametrize("axis", [-1, -2])
def test_deeplab_scores_lie_over_every_eighth_pixel(variant, axis):
    """Where labels are taken from: every eighth pixel, with 2 x 2 pools from the second on.

    Even windows are centred between pixels: half a pixel of the plain networks' is the authors'.
    """
    model = linear(deeplab_v1(variant, num_classes=2, width=1))
    width, first = (793, 0.0) if variant == "largefov" else (794, 0.5)
    found = centres(model, axis=axis, width=width, height=81)
    points = 8 * torch.arange(len(found), dtype=torch.float64) + first
    torch.testing.assert_close(found[35:-35], points[35:-35], atol=1e-6, rtol=0)
    assert len(found) == 100


@pytest.mark.parametrize("msc", [False, True])
@pytest.mark.parametrize("variant", ["largefov", "4x4", "7x7"])
@pytest.mark.parametrize("width", [1000, 997])
def test_deeplab_full_scores_lie_over_their_pixels(variant, msc, width):
    model = linear(deeplab_v1(variant, msc=msc, num_classes=2, width=1))
    offset = 0.0 if variant == "largefov" or msc else -0.5
    found = centres(model.full_scores, width=width, height=65)
    assert len(found) == width
    expected = middle(width, 300) + offset
    torch.testing.assert_close(found[300:-300], expected, atol=1e-6, rtol=0)


def test_every_branch_lies_over_its_pixels():
    """In training by strides, in tests by zooming what is scored everywhere."""
    model = linear(deeplab_v1(msc=True, num_classes=2, width=1))
    model.classifier.fc8.weight.data.zero_()
    for alone in model.branches:
        for name, branch in model.branches.items():
            branch[-1].weight.data.fill_(float(name == alone))
        found = centres(model, width=801)
        points = 8 * torch.arange(101, dtype=torch.float64)
        torch.testing.assert_close(found[35:-35], points[35:-35], atol=1e-6, rtol=0)
        full = centres(model.full_scores)
        torch.testing.assert_close(full[300:-300], middle(WIDTH, 300), atol=1e-6, rtol=0)


def test_full_scores_are_the_zoomed_scores():
    """Without branches, at 8 k + 1 pixels: align-corners interpolation of forward's."""
    torch.manual_seed(0)
    model = deeplab_v1(num_classes=3, width=2).eval()
    image = torch.randn(1, 3, 41, 57)
    scores = model(image)
    assert scores.shape[2:] == (6, 8)
    zoomed = functional.interpolate(scores, size=(41, 57), mode="bilinear", align_corners=True)
    assert torch.equal(model.full_scores(image), zoomed)
    assert torch.equal(zoomed[..., ::8, ::8], scores)


def test_images_of_other_sizes_are_padded_with_their_mean():
    torch.manual_seed(0)
    model = deeplab_v1(num_classes=3, width=2).eval()
    image = torch.randn(1, 3, 36, 50)
    padded = functional.pad(image, (0, 7, 0, 5))
    assert torch.equal(model.full_scores(image), model.full_scores(padded)[..., :36, :50])


def test_plain_deeplab_agrees_with_the_scores_that_it_was_trained_by():
    """Its test network reaches a row further out; inside, scores lie over pixels 8 i + 1."""
    torch.manual_seed(0)
    model = deeplab_v1("4x4", num_classes=3, width=2).eval()
    image = torch.randn(1, 3, 306, 306)
    scores, full = model(image), model.full_scores(image)
    found = full[..., 1::8, 1::8]
    assert found.shape == scores.shape
    # fc6 looks 6 points away, conv5 another 6, pool5 one.
    inner = (..., slice(13, -13), slice(13, -13))
    torch.testing.assert_close(found[inner], scores[inner])
    assert not torch.allclose(found, scores)


def zoomed(scores, factor):
    size = [(n - 1) * factor + 1 for n in scores.shape[2:]]
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=True)


def test_branches_are_stretched_one_by_one():
    """The authors' test network: no strides, zooms of 1, 2, 4, 8 and 8, then the sum."""
    torch.manual_seed(0)
    model = deeplab_v1(msc=True, num_classes=3, width=2).eval()
    taps, x = {}, torch.randn(1, 3, 41, 57)
    taps["data"] = image = x
    for name, layer in model.trunk.named_children():
        x = taps[name] = layer(x)
    expected = zoomed(model.classifier(x), 8)
    for (name, branch), factor in zip(model.branches.items(), (1, 2, 4, 8, 8), strict=True):
        conv, fc, last = branch[0], branch[3], branch[6]
        dense = functional.conv2d(taps[name], conv.weight, conv.bias, stride=1, padding=1)
        expected = expected + zoomed(last(fc(dense.relu()).relu()), factor)
    torch.testing.assert_close(model.full_scores(image), expected)


def test_plain_deeplab_reaches_out_and_is_cropped():
    """The authors' test network: pool4 is padded; 306 gives 41, 321, and 306 without 7 and 8."""
    torch.manual_seed(0)
    model = deeplab_v1("7x7", num_classes=3, width=2).eval()
    x = image = torch.randn(1, 3, 306, 306)
    for name, layer in model.trunk.named_children():
        x = functional.max_pool2d(x, 2, 1, padding=1) if name == "pool4" else layer(x)
    scores = model.classifier(x)
    assert scores.shape[2:] == (41, 41)
    torch.testing.assert_close(model.full_scores(image), zoomed(scores, 8)[..., 7:-8, 7:-8])


def test_bilinear_kernels_are_the_published_ones():
    two = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    assert torch.equal(bilinear_kernel(4), torch.outer(two, two))
    three = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
    assert torch.equal(bilinear_kernel(3), torch.outer(three, three))
    assert bilinear_kernel(64)[:, 31].argmax() == 31


def test_fcn_begins_with_one_kernel_per_class():
    model = fcn(8, num_classes=3, width=1)
    for name, size in (("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)):
        weight = model.get_submodule(name).weight
        for a in range(3):
            for b in range(3):
                expected = bilinear_kernel(size) if a == b else torch.zeros(size, size)
                torch.testing.assert_close(weight[a, b].double(), expected.double())
        assert weight.requires_grad == (name != "upscore8")


def test_a_valid_unet_scores_the_middle_of_its_image():
    model = unet(width=1, in_channels=3, dropout=0.0)
    for up in model.up:
        torch.nn.init.ones_(up[0].weight)
    found = centres(linear(model), width=556, height=188)
    assert len(found) == 556 - 184
    expected = torch.arange(92, 556 - 92, dtype=torch.float64)
    # Up-convolutions of 2 x 2 are no interpolation: points of one cell share what comes from below.
    assert (found - expected).abs().max() < 8
    assert float((found - expected).mean()) == pytest.approx(0, abs=1e-6)
