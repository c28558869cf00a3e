# SPDX-License-Identifier: MIT
"""What is particular to each network: pools, branches, unpooling, skips, stages, dropout."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch import nn  # noqa: E402 - needs torch
from torch.nn import functional  # noqa: E402 - needs torch

from crfseg.torch.models import deeplab_v1, fcn, segnet, unet  # noqa: E402 - needs torch
from networks import on_meta  # noqa: E402 - needs torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_largefov_is_its_table_of_layers():
    """Layer by layer, written out: kernel, stride, padding, dilation, with pool5a before fc6."""
    model = deeplab_v1(num_classes=3, width=2).eval()
    x = image = torch.randn(2, 3, 41, 49)

    def conv(x, name, part="trunk", **how):
        layer = model.get_submodule(f"{part}.{name}")
        return functional.conv2d(x, layer.weight, layer.bias, **how)

    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        dilation = 2 if block == 5 else 1
        for i in range(1, depth + 1):
            x = conv(x, f"conv{block}_{i}", padding=dilation, dilation=dilation).relu()
        x = functional.max_pool2d(x, 3, 2 if block < 4 else 1, 1)
    x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=True)
    x = conv(x, "fc6", "classifier", padding=12, dilation=12).relu()
    x = conv(x, "fc7", "classifier").relu()
    x = conv(x, "fc8", "classifier")
    torch.testing.assert_close(model(image), x)


def test_plain_deeplab_is_its_table_of_layers():
    model = deeplab_v1("4x4", num_classes=3, width=2).eval()
    x = image = torch.randn(1, 3, 66, 74)
    convs = iter(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for _ in range(depth):
            layer, dilation = next(convs), 2 if block == 5 else 1
            x = functional.conv2d(
                x, layer.weight, layer.bias, padding=dilation, dilation=dilation
            ).relu()
        kernel, stride, padding = ((2, 2, 1), (2, 1, 0), (3, 1, 1))[max(block - 3, 0)]
        x = functional.max_pool2d(x, kernel, stride, padding)
    fc6 = next(convs)
    x = functional.conv2d(x, fc6.weight, fc6.bias, padding=6, dilation=4).relu()
    x = next(convs)(x).relu()
    torch.testing.assert_close(model(image), next(convs)(x))


def test_branches_are_added_to_the_scores():
    """The sum of six score maps; with the last layers of five silenced, one remains."""
    model = deeplab_v1(msc=True, num_classes=3, width=2).eval()
    alone = deeplab_v1(num_classes=3, width=2).eval()
    alone.load_state_dict(
        {name: value for name, value in model.state_dict().items() if "branches" not in name}
    )
    image = torch.randn(1, 3, 41, 41)
    taps, x = {"data": image}, image
    for name, layer in model.trunk.named_children():
        x = taps[name] = layer(x)
    expected = alone(image) + sum(branch(taps[name]) for name, branch in model.branches.items())
    torch.testing.assert_close(model(image), expected)
    assert not torch.allclose(model(image), alone(image), atol=1e-8)
    strides = [branch[0].stride[0] for branch in model.branches.values()]
    assert strides == [8, 4, 2, 1, 1]


def test_branches_begin_small():
    model = deeplab_v1(msc=True, width=32)
    deviations = {
        name: float(parameter.detach().std())
        for name, parameter in model.branches.named_parameters()
        if name.endswith("weight")
    }
    for name, deviation in deviations.items():
        expected = 0.01 if "_ms" in name else 0.005 if "pool4_fc" in name else 0.001
        assert deviation == pytest.approx(expected, rel=0.1), name
    assert float(model.classifier.fc8.weight.detach().std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: deeplab_v1(msc=True, num_classes=2, width=4),
        lambda: fcn(8, num_classes=2, width=1),
        lambda: unet(width=4, padding=True),
    ],
)
def test_dropout_works_in_training_alone(make):
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4 and not parameter.any():
                parameter.normal_()  # scores of FCN begin with zeros
    image = torch.randn(1, 3, 33, 33)
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))
    drops = [layer for layer in model.modules() if "Drop" in type(layer).__name__]
    assert all(type(layer) is nn.Dropout and layer.p == 0.5 for layer in drops)


@pytest.mark.parametrize(
    "make",
    [
        lambda: deeplab_v1(num_classes=3, width=2),
        lambda: deeplab_v1("4x4", num_classes=3, width=2),
        lambda: deeplab_v1(msc=True, num_classes=3, width=2),
        lambda: segnet(3, width=2),
        lambda: unet(3, width=2, padding=True, dropout=0.0),
    ],
)
def test_gradients_reach_every_parameter(make):
    model = make()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.constant_(parameter, 0.1)  # no layer is dead by chance
    scores = model(torch.randn(2, 3, 73, 65))
    target = torch.randint(0, 3, (2, *scores.shape[2:]))
    functional.cross_entropy(scores, target).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    silent = [n for n, p in model.named_parameters() if n.endswith("weight") and not p.grad.any()]
    assert silent == []


def test_fcn_learns_all_but_the_last_interpolation():
    model = fcn(8, num_classes=3, width=1)
    functional.cross_entropy(
        model(torch.randn(1, 3, 40, 40)), torch.ones(1, 40, 40).long()
    ).backward()
    fixed = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert fixed == ["upscore8.weight"]
    # Scores begin with 0, so that the first gradient is theirs alone.
    assert not model(torch.randn(1, 3, 40, 40)).any()
    assert model.score_pool3.weight.grad.any()


def randomized(model):
    """All but the transposed convolutions."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "upscore" not in name:
                parameter.normal_(std=0.2)
    return model.eval()


@pytest.mark.parametrize("stride", [16, 8])
def test_a_stage_begins_where_the_coarser_one_ended(stride):
    coarser = randomized(fcn(2 * stride, num_classes=3, width=1))
    finer = fcn(stride, num_classes=3, width=1).eval()
    finer.initialize_from(coarser)
    given = coarser.state_dict()
    fresh = [name for name in finer.state_dict() if name not in given]
    pool, last = {16: ("pool4", "upscore16"), 8: ("pool3", "upscore8")}[stride]
    between = {16: "upscore2", 8: "upscore_pool4"}[stride]
    assert sorted(fresh) == sorted(
        [f"score_{pool}.weight", f"score_{pool}.bias", f"{between}.weight", f"{last}.weight"]
    )
    for name, value in finer.state_dict().items():
        assert name in fresh or torch.equal(value, given[name])
    assert not finer.get_submodule(f"score_{pool}").weight.any()
    # The new stream says nothing yet: what is new is only how scores are stretched.
    image = torch.randn(1, 3, 90, 80)
    with torch.no_grad():
        found, expected = finer(image), coarser(image)
    assert float((found - expected).abs().mean()) < 0.2 * float(expected.std())


@pytest.mark.parametrize(
    ("finer", "coarser", "sentence"),
    [
        ((8, 3), (32, 3), "coarser has stride 32; expected 16"),
        ((16, 3), (32, 4), r"coarser has classifier.score_fr.weight of shape \(4, .* \(3, "),
    ],
)
def test_a_stage_refuses_other_networks(finer, coarser, sentence):
    networks = [fcn(stride, num_classes=n, width=1) for stride, n in (finer, coarser)]
    before = networks[0].state_dict()["trunk.conv1_1.weight"].clone()
    with pytest.raises(ValueError, match=rf"\[FCN.initialize_from\] {sentence}"):
        networks[0].initialize_from(networks[1])
    assert torch.equal(networks[0].trunk.conv1_1.weight, before)


def test_branches_begin_behind_a_trained_network():
    plain, model = deeplab_v1(num_classes=3, width=2), deeplab_v1(msc=True, num_classes=3, width=2)
    branches = {k: v.clone() for k, v in model.branches.state_dict().items()}
    model.initialize_from(plain)
    given = plain.state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in given.items())
    assert all(torch.equal(model.branches.state_dict()[k], v) for k, v in branches.items())


@pytest.mark.parametrize(
    ("plain", "error", "sentence"),
    [
        (lambda: fcn(32, width=1), TypeError, "plain is a FCN; expected a DeepLabV1"),
        (lambda: deeplab_v1("4x4", width=1), ValueError, 'plain is "4x4" with msc=False and this'),
        (lambda: deeplab_v1(msc=True, width=1), ValueError, "expected the same variant, this with"),
        (lambda: deeplab_v1(num_classes=3, width=1), ValueError, r"classifier.fc8.weight of shape"),
    ],
)
def test_branches_refuse_other_networks(plain, error, sentence):
    with pytest.raises(error, match=rf"\[DeepLabV1.initialize_from\] .*{sentence}|{sentence}"):
        deeplab_v1(msc=True, width=1).initialize_from(plain())


def test_all_at_once_scales_what_the_skips_see():
    """pool4 by 0.01 and pool3 by 0.0001, which is the same as scaling their scores' weights."""
    plain = randomized(fcn(8, num_classes=3, width=2))
    scaled = fcn(8, num_classes=3, width=2, at_once=True).eval()
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.score_pool4.weight.mul_(0.01)
        plain.score_pool3.weight.mul_(0.0001)
    image = torch.randn(1, 3, 50, 40)
    torch.testing.assert_close(scaled(image), plain(image))


def test_segnet_puts_values_back_where_they_were():
    """With convolutions that pass values on, each window's maximum comes out at its own place."""
    model = segnet(1, in_channels=1, width=1).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
    image = torch.rand(1, 1, 64, 96) + 0.5
    with torch.no_grad():
        scores = model(image)
    windows = image.unfold(2, 32, 32).unfold(3, 32, 32).reshape(6, -1)
    expected = torch.zeros_like(windows).scatter(1, windows.argmax(1, True), windows.amax(1, True))
    found = scores.unfold(2, 32, 32).unfold(3, 32, 32).reshape(6, -1)
    torch.testing.assert_close(found, expected)


def test_segnet_normalizes_after_every_convolution_but_the_last():
    model = on_meta(segnet, width=1)
    kinds = [type(layer).__name__ for layer in model.modules() if not any(layer.children())]
    text = " ".join(kind for kind in kinds if "Pool" not in kind and "Unpool" not in kind)
    assert text == " ".join(["Conv2d BatchNorm2d ReLU"] * 25 + ["Conv2d"])


def test_unet_joins_what_each_level_saw():
    """With the way through the bottom silenced, scores still follow the image."""
    model = unet(width=2, padding=True, dropout=0.0).eval()
    image = torch.randn(1, 3, 64, 64)
    nn.init.zeros_(model.up[3][0].weight)
    other = image.clone()
    other[..., 40, 40] += 1.0
    changed = (model(image) != model(other)).any(1)[0].nonzero()
    # Two convolutions down, two up: four pixels to each side, and no pool between.
    assert changed.min() >= 36
    assert changed.max() <= 44
    assert len(changed) > 4


def test_unet_drops_out_at_the_end_of_the_way_down():
    model = on_meta(unet, width=1, dropout=0.25)
    drops = [name for name, layer in model.named_modules() if isinstance(layer, nn.Dropout)]
    assert drops == ["down.3.dropout", "down.4.dropout"]
    assert model.down[4].dropout.p == 0.25


def test_unet_begins_with_the_papers_deviations():
    model = unet(width=16, in_channels=1)
    assert float(model.joined[0].conv1.weight.detach().std()) == pytest.approx(
        (2 / (9 * 256)) ** 0.5, rel=0.02
    )
    up = model.up[0][0]
    assert float(up.weight.detach().std()) == pytest.approx((2 / up.in_channels) ** 0.5, rel=0.02)
    assert not up.bias.any()


@pytest.mark.parametrize("make", [deeplab_v1, lambda **k: fcn(8, **k), segnet, unet])
def test_networks_move_and_take_other_dtypes(make):
    model = make(num_classes=2, width=1).double()
    size = 188 if make is unet else 41
    assert model(torch.zeros(1, 3, size, size, dtype=torch.float64)).dtype == torch.float64
    model = make(num_classes=2, width=1).to("meta")
    assert model(torch.zeros(1, 3, size, size, device="meta")).device.type == "meta"
