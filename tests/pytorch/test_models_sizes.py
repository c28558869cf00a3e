# SPDX-License-Identifier: MIT
"""Networks without values: parameters counted, sizes and receptive fields against the papers'."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch.models import (  # noqa: E402 - needs torch
    deeplab_v1,
    describe,
    fcn,
    segnet,
    unet,
    vgg16,
)
from crfseg.torch.models.describe import _run  # noqa: E402 - needs torch
from networks import columns_seen, linear, on_meta  # noqa: E402 - needs torch

# Parameters (Chen et al., table: 20.5 M, 65.1 M, 134.3 M), and the receptive field of that table.
DEEPLAB = {
    "largefov": (20_505_429, 224),
    "4x4": (65_140_565, 128),
    "7x7": (134_346_581, 224),
    "4x4-dilated": (65_140_565, 224),
}
BRANCHES = 1_206_121


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("variant", DEEPLAB)
def test_deeplab_has_the_published_parameters_and_sizes(variant):
    model = on_meta(deeplab_v1, variant)
    assert count(model) == DEEPLAB[variant][0]
    size, scores = (321, 41) if variant == "largefov" else (306, 39)
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 21, scores, scores)


@pytest.mark.parametrize("variant", DEEPLAB)
def test_branches_add_what_they_should(variant):
    model = on_meta(deeplab_v1, variant, msc=True)
    assert count(model) == DEEPLAB[variant][0] + BRANCHES
    # 3 x 3 pools in every variant: all sources meet at 41 x 41, and at 65 x 65 in tests.
    for size, scores in ((321, 41), (513, 65)):
        assert model(torch.empty(1, 3, size, size, device="meta")).shape[2:] == (scores, scores)


@pytest.mark.parametrize("variant", DEEPLAB)
def test_the_field_of_view_is_the_papers(variant):
    """The paper counts cells: (kernel - 1) dilation stride, and VGG-16's 32 for the last one."""
    model = on_meta(deeplab_v1, variant)
    row = next(row for row in describe(model, 321).layers if row.name == "classifier.fc6")
    fc6 = model.classifier.fc6
    view = (fc6.kernel_size[0] - 1) * fc6.dilation[0] * row.stride + 2**5
    assert view == DEEPLAB[variant][1]


@pytest.mark.parametrize("variant", DEEPLAB)
@pytest.mark.parametrize("msc", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (10, 17), (375, 500), (513, 514)])
def test_deeplab_scores_every_pixel_of_any_image(variant, msc, size):
    model = on_meta(deeplab_v1, variant, msc=msc, num_classes=3, width=1)
    assert model.full_scores(torch.empty(1, 3, *size, device="meta")).shape == (1, 3, *size)


def test_classes_come_second():
    assert on_meta(deeplab_v1, "4x4", 5).classifier.fc8.out_channels == 5
    assert on_meta(fcn, 8, 5).score_pool3.out_channels == 5


def test_classes_and_width_go_where_they_should():
    model = on_meta(deeplab_v1, msc=True, num_classes=5, width=2)
    assert model.classifier.fc6.weight.shape == (32, 16, 3, 3)
    assert model.classifier.fc8.weight.shape == (5, 32, 1, 1)
    assert model.branches["pool2"].pool2_conv.weight.shape == (4, 4, 3, 3)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (33, 64), (375, 500), (500, 333)])
def test_fcn_scores_every_pixel_of_any_image(stride, size):
    model = on_meta(fcn, stride, num_classes=4, width=1)
    assert model(torch.empty(2, 3, *size, device="meta")).shape == (2, 4, *size)


def test_fcn_is_vgg16_and_its_scores():
    trunk_and_fc = count(on_meta(vgg16)) - (4096 + 1) * 1000
    found = [count(on_meta(fcn, stride)) for stride in (32, 16, 8)]
    scores, taps = (4096 + 1) * 21, [(512 + 1) * 21, (256 + 1) * 21]
    kernels = {size: 21 * 21 * size * size for size in (64, 32, 16, 4)}
    assert found == [
        trunk_and_fc + scores + kernels[64],
        trunk_and_fc + scores + taps[0] + kernels[4] + kernels[32],
        trunk_and_fc + scores + sum(taps) + 2 * kernels[4] + kernels[16],
    ]


def test_vgg16_classifies_a_grid_of_windows():
    model = on_meta(vgg16)
    assert count(model) == 138_357_544  # torchvision's
    for size, scores in ((224, 1), (384, 6)):
        found = model(torch.empty(1, 3, size, size, device="meta")).shape
        assert found == (1, 1000, scores, scores)


def test_segnet_is_vgg16_and_its_mirror_image():
    model = on_meta(segnet, 11)
    assert model(torch.empty(1, 3, 360, 480, device="meta")).shape == (1, 11, 360, 480)
    assert model(torch.empty(1, 3, 37, 50, device="meta")).shape == (1, 11, 37, 50)
    convs = [layer for layer in model.encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert sum(conv.weight.numel() + conv.out_channels for conv in convs) == 14_714_688
    back = [layer for layer in model.decoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    mirrored = [(conv.out_channels, conv.in_channels) for conv in reversed(convs)]
    assert [(conv.in_channels, conv.out_channels) for conv in back[:-1]] == mirrored[:-1]
    assert (back[-1].in_channels, back[-1].out_channels) == (64, 11)


def test_unet_has_the_papers_sizes():
    model = on_meta(unet, in_channels=1)
    assert model(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    assert model(torch.empty(1, 1, 188, 204, device="meta")).shape == (1, 2, 4, 20)
    bottom = next(
        row for row in describe(model, 572, in_channels=1).layers if "4.conv2" in row.name
    )
    assert (bottom.channels, bottom.size) == (1024, (28, 28))
    padded = on_meta(unet, padding=True)
    for size in ((1, 1), (17, 31), (64, 48)):
        assert padded(torch.empty(1, 3, *size, device="meta")).shape == (1, 2, *size)


@pytest.mark.parametrize("size", [571, 573, 172, 12])
def test_a_valid_unet_refuses_sizes_that_it_cannot_halve(size):
    model = on_meta(unet, width=1)
    with pytest.raises(ValueError, match=r"\[UNet.forward\] image .* 188 .* multiples of 16"):
        model(torch.empty(1, 3, 572, size, device="meta"))


def bilinear_everywhere(make, **kwargs):
    """A network whose transposed convolutions have no zeros inside."""
    model = linear(make(**kwargs, width=1))
    for layer in model.modules():
        if isinstance(layer, torch.nn.ConvTranspose2d):
            torch.nn.init.ones_(layer.weight)
    return model


NETWORKS = {
    **{name: (lambda name=name: linear(deeplab_v1(name, width=1))) for name in DEEPLAB},
    "msc": lambda: linear(deeplab_v1("4x4", msc=True, width=1)),
    "vgg16": lambda: linear(vgg16(2, width=1)),
    "unet": lambda: bilinear_everywhere(unet, padding=True),
    "fcn": lambda: bilinear_everywhere(fcn, stride=8),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_are_what_gradients_reach(name):
    """In the middle, where nothing is cut off, and at a border."""
    model = NETWORKS[name]()
    size = ({"vgg16": 225, "fcn": 1}.get(name, 65), 500)
    field = _run(model, (3, *size))[-1].field
    n = field.shape[1]
    for point in (0, n // 2, n // 2 + 1):
        assert columns_seen(model, size, point) == tuple(field[:, point])


def test_receptive_fields_are_the_largest_anywhere():
    """Of FCN-8s: 404 of fc6, one more cell of 32 for bilinear interpolation, and then again."""
    rows = {row.name: row for row in describe(on_meta(fcn, 8), 500).layers}
    assert rows["classifier.fc6"].receptive_field == 404
    assert rows["upscore2"].receptive_field == 404 + 32
    assert rows["output"].receptive_field == 404 + 64
    assert [rows[name].stride for name in ("upscore2", "upscore_pool4", "upscore8")] == [16, 8, 1]
    assert describe(on_meta(deeplab_v1), 321).output[3:] == (435, 8, (41, 41))


def test_segnet_sees_through_its_pools():
    """212 pixels reach the bottom; the decoder widens that by what it meets at every level."""
    rows = describe(on_meta(segnet), 256).layers
    sizes = [row.receptive_field for row in rows if row.kind.startswith("max pool")]
    assert sizes == [6, 16, 44, 100, 212]
    first_up = next(row for row in rows if row.name == "decoder.0.conv5_1_D")
    assert first_up.receptive_field == 212 + 3 * 32


def test_a_description_prints_as_a_table():
    text = str(describe(on_meta(deeplab_v1), (321, 500)))
    lines = text.splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "channels",
        "receptive",
        "field",
        "stride",
        "output",
    ]
    assert any(line.split()[-6:] == ["1024", "435", "8", "41", "x", "63"] for line in lines)
    assert lines[-1] == "20,505,429 parameters"


def test_describing_leaves_a_network_as_it_was():
    model = segnet(2, width=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    describe(model, 64)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: deeplab_v1("3x3"), r"\[deeplab_v1\] variant is '3x3'; expected 'largefov'"),
        (lambda: deeplab_v1(msc=1), r"\[deeplab_v1\] msc is 1"),
        (lambda: deeplab_v1("largefov", True), r"\[deeplab_v1\] num_classes is True"),
        (lambda: deeplab_v1(num_classes=1), r"\[deeplab_v1\] num_classes is 1; .* at least 2"),
        (lambda: fcn(4), r"\[fcn\] stride is 4; expected 32, 16 or 8"),
        (lambda: segnet(0), r"\[segnet\] num_classes is 0"),
        (lambda: unet(padding="same"), r"\[unet\] padding is 'same'"),
        (lambda: vgg16(width=0), r"\[vgg16\] width is 0"),
        (lambda: describe(unet(width=1, padding=True), 0), r"\[describe\] size is 0"),
        (lambda: describe(segnet(width=1), (9,)), r"\[describe\] size has 1 entries"),
        (lambda: describe(segnet(width=1), "9"), r"\[describe\] size is '9'"),
        (lambda: describe("segnet", 9), r"\[describe\] model is 'segnet' \(str\)"),
        (lambda: describe(segnet(width=1), 9, in_channels=0), r"\[describe\] in_channels is 0"),
        (lambda: describe(vgg16(width=1), 99), r"model takes no image of shape \(1, 3, 99, 99\)"),
    ],
)
def test_wrong_arguments_are_named(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
