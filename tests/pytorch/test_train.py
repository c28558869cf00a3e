# SPDX-License-Identifier: MIT
"""Training: schedules, rates, crops, grids of scores, and that networks learn."""

import pytest

from shapes import N_CLASSES

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch import nn  # noqa: E402 - needs torch
from torch.nn import functional  # noqa: E402

from crfseg.torch import CRF  # noqa: E402
from crfseg.torch.models import deeplab_v1, fcn, segnet, unet  # noqa: E402
from crfseg.torch.train import (  # noqa: E402
    Options,
    fit,
    parameter_groups,
    scale_first_layers,
    schedules,
    validate,
)  # fmt: skip
from crfseg.torch.train.draws import Draws, Sample, batches  # noqa: E402
from crfseg.torch.train.grids import grid  # noqa: E402
from crfseg.torch.train.loop import cross_entropy  # noqa: E402
from crfseg.torch.train.networks import network_input  # noqa: E402
from runs import options, shapes_for, small  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- schedules and rates --------------------------------------------------------------------------


def test_rates_fall_by_steps():
    chosen = Options(step=2000, gamma=0.1)
    factors = [schedules.factor(chosen, i) for i in (0, 1999, 2000, 3999, 4000, 5999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_rates_fall_as_a_polynomial():
    chosen = Options(schedule="poly", iterations=1000, power=0.9)
    factors = [schedules.factor(chosen, i) for i in (0, 250, 500, 999)]
    assert factors == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.001**0.9])


def rates_of(model, **given):
    groups = parameter_groups(model, Options(rate=0.001, **given))
    by_id = {id(p): (g["base"], g["weight_decay"]) for g in groups for p in g["params"]}
    return {name: by_id.get(id(p)) for name, p in model.named_parameters()}


def test_classifiers_learn_ten_and_twenty_times_as_fast_and_biases_do_not_decay():
    """The authors' train.prototxt: 10 and 20 for fc8, 1 and 2 for the scores of branches."""
    rates = rates_of(deeplab_v1(msc=True, width=2, num_classes=4))
    fast = {"classifier.fc8"}
    for name, rate in rates.items():
        layer, part = name.rsplit(".", 1)
        factor = (10 if layer in fast else 1) * (2 if part == "bias" else 1)
        assert rate == pytest.approx((0.001 * factor, 0 if part == "bias" else 5e-4)), name
    assert fast <= {name.rsplit(".", 1)[0] for name in rates}


@pytest.mark.parametrize(
    ("model", "fast"),
    [
        (fcn(8, width=1), {"classifier.score_fr", "score_pool4", "score_pool3"}),
        (segnet(width=1), {"decoder.4.conv1_1_D"}),
        (unet(width=1), {"score"}),
    ],
    ids=["fcn", "segnet", "unet"],
)
def test_every_network_has_a_classifier(model, fast):
    rates = rates_of(model)
    found = {name.rsplit(".", 1)[0] for name, r in rates.items() if r and r[0] > 0.005}
    assert found == fast
    # FCN's last layer is fixed: it has no rate at all.
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name for name, rate in rates.items() if rate is None} == fixed


def test_a_network_of_ones_own_names_its_classifier():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match=r"no layer .* gives scores; expected options.classifier"):
        parameter_groups(model, Options())
    with pytest.raises(ValueError, match="classifier has 'two'"):
        parameter_groups(model, Options(classifier=("two",)))
    rates = rates_of(model, classifier=("1",))
    assert (rates["0.weight"][0], rates["1.weight"][0]) == pytest.approx((0.001, 0.01))


def frozen_run(tmp_path, model, names):
    """Parameters and statistics before and after a few iterations."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, shapes_for(0, 2), options(crop=33, input_unit=1.0, frozen=names, iterations=2),
        folder=tmp_path)  # fmt: skip
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_branches_learn_behind_a_frozen_network(tmp_path):
    """As the authors' multi-scale networks were trained."""
    model = deeplab_v1(msc=True, num_classes=N_CLASSES, width=2)
    changed = frozen_run(tmp_path, model, ("trunk", "classifier"))
    assert {name for name in changed if not name.startswith("branches.")} == set()
    assert changed >= {"branches.data.data_ms.weight", "branches.pool4.pool4_ms.bias"}
    assert model.classifier.drop6.training  # as in Caffe, where layers of rate 0 keep theirs


def test_frozen_statistics_stay_as_well(tmp_path):
    changed = frozen_run(tmp_path, segnet(num_classes=N_CLASSES, width=2), ("encoder",))
    assert changed
    assert {name for name in changed if not name.startswith("decoder.")} == set()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("trnk",), "frozen has 'trnk', .*; expected 'trunk', 'classifier' or 'branches', or a"),
        (("trunk", "classifier"), "which is all of model"),
    ],
)
def test_what_cannot_be_frozen_is_named(tmp_path, names, sentence):
    with pytest.raises(ValueError, match=sentence):
        frozen_run(tmp_path, deeplab_v1(num_classes=N_CLASSES, width=1), names)


def test_the_crf_layer_learns_at_its_own_rate():
    groups = parameter_groups(small(), Options(crf_rate=0.5), CRF(N_CLASSES))
    assert (groups[-1]["base"], groups[-1]["weight_decay"]) == (0.5, 0)
    assert len(groups[-1]["params"]) == 3  # two weights, compatibility; no sigmas


def test_an_input_unit_is_the_same_as_smaller_inputs(tmp_path):
    """To the last bit, for 64 is a power of two."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = small()
            scale_first_layers(self.inside, 1 / 64)

        def forward(self, image):
            return self.inside(image / 64)

    plain, scaled = small(), Scaled()
    fit(plain, shapes_for(0, 4), options(), folder=tmp_path / "plain")
    fit(scaled, shapes_for(0, 4), options(input_unit=1.0), folder=tmp_path / "scaled")
    first = plain.down[0].conv1.weight
    assert torch.equal(64 * first, scaled.inside.down[0].conv1.weight)
    assert torch.equal(plain.score.weight, scaled.inside.score.weight)


def test_branches_begin_and_learn_for_levels():
    """Their deviation of 0.001 is the authors', whose pictures were in levels."""
    model = deeplab_v1(msc=True, width=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale_first_layers(model)
    scaled = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert scaled == {"trunk.conv1_1.weight"}
    rates = {name: rate for name, (rate, _) in rates_of(model, input_unit=64.0).items()}
    assert rates["trunk.conv1_1.weight"] == pytest.approx(0.001 / 64**2)
    assert rates["branches.data.data_conv.weight"] == 0.001


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rate": -1.0}, "rate is -1"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; expected 'step' or 'poly'"),
        ({"device": "tpu"}, "device is 'tpu'; expected 'cpu' or 'cuda'"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"frozen": "trunk"}, "frozen is 'trunk'; expected a tuple of names"),
        ({"classifier": ["fc8"]}, r"classifier is \['fc8'\]; expected a tuple of names"),
    ],
)
def test_bad_options_are_refused(given, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        Options(**given)


# --- crops ----------------------------------------------------------------------------------------


def numbered(height, width):
    """A picture whose levels tell its labels."""
    labels = torch.arange(height * width).reshape(height, width) % 200
    return Sample(labels.to(torch.uint8).expand(3, -1, -1), labels)


def test_crops_and_mirroring_keep_pixels_and_labels_together():
    draws = Draws([numbered(20, 30)], options(crop=15))
    steps = set()
    corners = set()
    for number in range(40):
        levels, labels = draws[number]
        assert labels.shape == (15, 15)
        assert torch.equal(levels[1].long(), labels)
        steps.add(int(labels[7, 8] - labels[7, 7]) % 200)
        corners.add(int(labels[0].min()))
    assert steps == {1, 199}  # as it is and mirrored
    assert len(corners) > 20
    plain = Draws([numbered(20, 30)], options(crop=15, mirror=False))
    assert {int(plain[i][1][7, 8] - plain[i][1][7, 7]) % 200 for i in range(20)} == {1}


def test_small_pictures_are_padded_with_the_mean_and_no_label():
    levels, labels = Draws([numbered(5, 9)], options(crop=12, mirror=False))[0]
    assert torch.equal(levels[0, :5, :9].long(), labels[:5, :9])
    assert set(labels[5:].flatten().tolist()) | set(labels[:, 9:].flatten().tolist()) == {255}
    assert levels[:, 11, 11].tolist() == levels[:, 0, 11].tolist() == [123, 117, 104]
    centred = network_input(deeplab_v1(width=1), levels[None])
    assert centred[0, :, 11, 11].abs().max() < 0.5


def test_an_epoch_has_every_picture_once_and_another_order_than_the_next():
    pictures = [Sample(torch.full((3, 4, 4), i), torch.full((4, 4), i)) for i in range(7)]
    draws = Draws(pictures, options(crop=4))
    epochs = [[int(draws[7 * e + i].labels[0, 0]) for i in range(7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_batches_begin_anywhere():
    source, chosen = shapes_for(0, 5), options(iterations=7)
    whole = list(batches(source, chosen, 0))
    late = list(batches(source, chosen, 4))
    assert (len(whole), len(late)) == (7, 3)
    assert all(torch.equal(a.levels, b.levels) for a, b in zip(whole[4:], late, strict=True))


LEVELS, LABELS = torch.zeros(3, 9, 12, dtype=torch.uint8), torch.zeros(9, 12, dtype=torch.long)


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        ((LEVELS.numpy(), LABELS), r"source\[0\] levels is an array .*; expected a torch tensor"),
        ((LEVELS.permute(1, 2, 0), LABELS), r"source\[0\] levels has shape \(9, 12, 3\); expected"),
        ((LEVELS, LABELS[None]), r"source\[0\] labels has shape \(1, 9, 12\); expected \(9, 12\)"),
        ((LEVELS, LABELS.float()), r"source\[0\] labels has dtype torch.float32"),
        ((LEVELS + 0.5, LABELS), "values from 0.5 to 0.5; expected levels in 0..255 .times 255"),
        ((LEVELS - 2.5, LABELS), "values from -2.5 to -2.5; expected levels in 0..255"),
        ((LEVELS, LABELS + 4), "label 4; expected 0 to 3, for the network has 4 classes, or 255"),
    ],
)
def test_sources_of_something_else_are_refused(tmp_path, sample, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        fit(small(), [sample], options(iterations=1), folder=tmp_path)


# --- where scores stand ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [41, 321])
def test_deeplab_compares_every_eighth_label(n):
    labels = torch.arange(n * n).reshape(1, n, n)
    side = (n + 7) // 8
    where = grid(torch.zeros(1, 2, side, side), labels)
    assert torch.equal(where.at_points(labels), labels[:, ::8, ::8])


def test_the_plain_networks_scores_stand_over_pixels_from_the_second_on():
    model = deeplab_v1("4x4", width=1, num_classes=2).eval()
    labels = torch.arange(306 * 306).reshape(1, 306, 306)
    with torch.no_grad():
        scores = model(torch.zeros(1, 3, 306, 306))
    where = grid(scores, labels)
    assert torch.equal(where.at_points(labels), labels[:, 1::8, 1::8])
    assert where.at_points(labels).shape[1:] == scores.shape[2:] == (39, 39)


def test_a_valid_u_nets_scores_stand_over_the_middle():
    labels = torch.arange(188 * 204).reshape(1, 188, 204)
    where = grid(torch.zeros(1, 2, 4, 20), labels, is_centred=True)
    assert torch.equal(where.at_points(labels), labels[:, 92:96, 92:112])


def test_stretched_scores_keep_their_points():
    scores, levels = torch.randn(1, 2, 6, 5), torch.randn(1, 3, 41, 33)
    where = grid(scores, levels[:, 0])
    stretched = where.stretched(scores)
    assert where.between(levels).shape[-2:] == stretched.shape[-2:] == (41, 33)
    assert stretched[..., ::8, ::8] == pytest.approx(scores, abs=1e-6)


def test_scores_that_stand_nowhere_are_refused():
    with pytest.raises(ValueError, match=r"scores has shape \(1, 2, 40, 40\).*another crop"):
        grid(torch.zeros(1, 2, 40, 40), torch.zeros(1, 320, 320))


def test_the_loss_is_the_mean_over_labelled_pixels():
    scores, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[0] = 255
    assert torch.isclose(
        cross_entropy(scores, labels, 255), functional.cross_entropy(scores[1:], labels[1:])
    )
    assert cross_entropy(scores[:1], labels[:1], 255) == 0


# --- learning -------------------------------------------------------------------------------------


def test_a_small_u_net_learns_shapes_and_the_crf_helps(tmp_path):
    torch.manual_seed(0)
    model = unet(N_CLASSES, padding=True, width=8, dropout=0.0)
    scale_first_layers(model)
    chosen = options(iterations=150, batch_size=8, crop=48, rate=0.02, schedule="poly")
    fit(model, shapes_for(0, 40), chosen, folder=tmp_path)
    scores = validate(model, shapes_for(1, 12), refine={"spatial": (3.0, 1.0), "bilateral": None})
    assert scores["network"].mean_iou() > 0.75
    assert scores["refine"].mean_iou() > scores["network"].mean_iou()
