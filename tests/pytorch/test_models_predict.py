# SPDX-License-Identifier: MIT
"""predict(): from a picture to labels, against the same steps taken by hand."""

import numpy as np
import pytest

import crfseg

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch.nn import functional  # noqa: E402 - needs torch

from crfseg.torch.models import deeplab_v1, fcn  # noqa: E402 - needs torch

N_CLASSES = 4
# Sigma_xy, sigma_rgb and weight of the bilateral kernel, as published for each network; of the last
# two nothing was, they take the plain network's.
PUBLISHED = {
    ("largefov", False): (121, 5, 4),
    ("largefov", True): (83, 5, 4),
    ("4x4", False): (50, 10, 5),
    ("4x4", True): (95, 3, 3),
    ("7x7", False): (50, 10, 5),
    ("4x4-dilated", False): (50, 10, 5),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def some_network(variant="largefov", **kwargs):
    """One whose labels differ from place to place, which they hardly do to begin with."""
    model = deeplab_v1(variant, num_classes=N_CLASSES, width=4, **kwargs).eval()
    noise = torch.rand(1, 3, 97, 97) * 255
    with torch.no_grad():
        scores = model(model.preprocess(noise))[0].flatten(1)
        scale = 1 / scores.std(dim=1)
        model.classifier.fc8.weight.mul_(scale[:, None, None, None])
        model.classifier.fc8.bias.copy_(-scores.mean(dim=1) * scale)
    return model


def some_photo(rng, size=(37, 50)):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def by_hand(model, photo):
    """BGR levels less their means, padded with 0 to 8 k + 1, x 8 with corners aligned, softmax."""
    model = model.eval()
    x = torch.tensor(photo[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    x = x - torch.tensor([104.008, 116.669, 122.675])[:, None, None]
    height, width = x.shape[2:]
    k = [-(-(n - 1) // 8) for n in (height, width)]
    x = functional.pad(x, (0, 8 * k[1] + 1 - width, 0, 8 * k[0] + 1 - height))
    with torch.no_grad():
        scores = model(x)
    assert scores.shape[2:] == (k[0] + 1, k[1] + 1)
    size = x.shape[2:]
    scores = functional.interpolate(scores, size=size, mode="bilinear", align_corners=True)
    return scores[0, :, :height, :width].softmax(0).numpy()


@pytest.mark.parametrize("size", [(37, 50), (41, 33), (8, 9), (1, 3)])
def test_deeplab_predicts_what_its_steps_give(rng, size):
    model, photo = some_network(), some_photo(rng, size)
    probs = by_hand(model, photo)
    np.testing.assert_array_equal(model.predict(photo, crf=False, returns="probs"), probs)
    refined = crfseg.refine(
        probs,
        photo,
        layout="CHW",
        spatial=(3, 3),
        bilateral=(121, 5, 4),
        iterations=10,
        normalization="after",
    )
    found = model.predict(photo, returns="probs")
    np.testing.assert_array_equal(found, refined)
    assert found.dtype == np.float32
    labels = model.predict(photo)
    np.testing.assert_array_equal(labels, refined.argmax(0))
    assert labels.dtype == np.uint8
    assert labels.shape == size


@pytest.mark.parametrize(("variant", "msc"), PUBLISHED)
def test_the_crf_has_the_published_parameters(rng, monkeypatch, variant, msc):
    """As the K&K code of 2011 has it, which the authors used: normalised after filtering."""
    seen = {}

    def spy(x, image, **arguments):
        seen.update(arguments)
        return x

    monkeypatch.setattr(crfseg, "refine", spy)
    model = some_network(variant, msc=msc)
    model.predict(some_photo(rng), returns="probs")
    assert seen["bilateral"] == PUBLISHED[variant, msc]
    assert seen["spatial"] == (3, 3)
    assert seen["iterations"] == 10
    assert seen["normalization"] == "after"
    assert model.crf_parameters["bilateral"] == PUBLISHED[variant, msc]


@pytest.mark.parametrize(("variant", "msc"), PUBLISHED)
def test_every_network_predicts_at_the_size_of_the_picture(rng, variant, msc):
    model, photo = some_network(variant, msc=msc), some_photo(rng, (30, 43))
    probs = model.predict(photo, returns="probs")
    assert probs.shape == (N_CLASSES, 30, 43)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-4)
    plain = model.predict(photo, crf=False, returns="probs")
    with torch.no_grad():
        levels = torch.tensor(photo).permute(2, 0, 1)[None]
        scores = model.eval().full_scores(model.preprocess(levels))
    np.testing.assert_array_equal(plain, scores[0].softmax(0).numpy())
    np.testing.assert_array_equal(model.predict(photo, crf=False), plain.argmax(0))


def test_parameters_of_ones_own_go_before_the_published(rng):
    model, photo = some_network(), some_photo(rng)
    probs = model.predict(photo, crf=False, returns="probs")
    own = {"bilateral": (20, 10, 2), "iterations": 3}
    published = {"spatial": (3, 3), "normalization": "after"}
    expected = crfseg.refine(probs, photo, layout="CHW", **published, **own)
    np.testing.assert_array_equal(model.predict(photo, crf=own, returns="probs"), expected)
    assert np.abs(expected - model.predict(photo, returns="probs")).max() > 1e-3


def test_pictures_of_every_kind_give_the_same(rng):
    image = pytest.importorskip("PIL.Image")
    model, photo = some_network(), some_photo(rng)
    labels = model.predict(photo)
    assert len(np.unique(model.predict(photo, crf=False))) > 1
    levels = torch.tensor(photo).permute(2, 0, 1)
    np.testing.assert_array_equal(model.predict(image.fromarray(photo)), labels)
    for tensor in (levels, levels.float(), levels.double()):
        found = model.predict(tensor)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.uint8
        assert torch.equal(found, torch.tensor(labels))
    probs = model.predict(levels.float(), returns="probs")
    np.testing.assert_allclose(probs.numpy(), model.predict(photo, returns="probs"), atol=1e-5)
    np.testing.assert_array_equal(
        model.predict(photo[:, ::-1]), model.predict(photo[:, ::-1].copy())
    )


def test_predicting_leaves_the_network_in_its_mode(rng):
    model, photo = some_network(msc=True), some_photo(rng)
    labels = model.eval().predict(photo)
    model.train()
    np.testing.assert_array_equal(model.predict(photo), labels)
    assert model.training
    assert model.classifier.drop6.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_of_doubles_predicts(rng):
    photo = some_photo(rng)
    model = some_network()
    single = model.predict(photo, crf=False, returns="probs")
    double = model.double().predict(photo, crf=False, returns="probs")
    assert double.dtype == np.float32
    np.testing.assert_allclose(double, single, atol=1e-4)


def test_fcn_predicts_without_crf_unless_asked(rng):
    model, photo = fcn(8, num_classes=3, width=1), some_photo(rng)
    for name in ("classifier.score_fr", "score_pool4", "score_pool3"):
        torch.nn.init.normal_(model.get_submodule(name).weight)
    x = torch.tensor(photo[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    x = x - torch.tensor([104.00699, 116.66877, 122.67892])[:, None, None]
    with torch.no_grad():
        probs = model.eval()(x)[0].softmax(0).numpy()
    np.testing.assert_array_equal(model.predict(photo, returns="probs"), probs)
    for crf, arguments in ((True, {}), ({"iterations": 2}, {"iterations": 2})):
        expected = crfseg.refine(probs, photo, layout="CHW", **arguments)
        np.testing.assert_array_equal(model.predict(photo, crf=crf, returns="probs"), expected)


def test_more_than_256_labels_fit(rng):
    model = deeplab_v1(num_classes=300, width=1)
    model.classifier.fc8.bias.data[299] = 1000.0
    photo = some_photo(rng, (5, 6))
    for crf in (False, {"iterations": 1}):
        labels = model.predict(photo, crf=crf)
        assert labels.dtype == np.int32
        assert (labels == 299).all()


PHOTO = np.zeros((4, 6, 3), np.uint8)
LEVELS = torch.zeros(3, 4, 6)


@pytest.mark.parametrize(
    ("image", "error", "sentence"),
    [
        (None, TypeError, r"image is None \(NoneType\); expected an RGB picture"),
        ("photo.jpg", TypeError, r"image is 'photo.jpg' \(str\); expected an RGB picture"),
        ([[0, 0, 0]], TypeError, "expected an RGB picture"),
        (PHOTO.astype(np.float32), TypeError, "image has dtype float32; expected an RGB picture"),
        (PHOTO[..., 0], ValueError, r"image has shape \(4, 6\); expected \(H, W, 3\)"),
        (PHOTO[None], ValueError, r"image has shape \(1, 4, 6, 3\)"),
        (PHOTO[:0], ValueError, r"image has shape \(0, 6, 3\)"),
        (LEVELS.permute(1, 2, 0), ValueError, r"image has shape \(4, 6, 3\); expected \(3, H, W\)"),
        (LEVELS.long(), TypeError, "image has dtype torch.int64; expected uint8 or floats"),
        (LEVELS - 1, ValueError, r"image has values from -1 to -1; expected levels in 0..255$"),
        (LEVELS + 256, ValueError, "image has values from 256 to 256"),
        (LEVELS * torch.nan, ValueError, "image has values from nan to nan"),
        (LEVELS + 0.5, ValueError, r"values from 0.5 to 0.5; expected levels in 0..255 .times 255"),
    ],
)
def test_what_is_no_picture_is_refused(image, error, sentence):
    with pytest.raises(error, match=rf"^\[predict\] .*{sentence}|^\[predict\] {sentence}"):
        deeplab_v1(width=1).predict(image)


def test_pictures_of_other_modes_are_refused():
    image = pytest.importorskip("PIL.Image")
    for mode in ("L", "P", "RGBA"):
        with pytest.raises(ValueError, match=rf"\[predict\] image has mode {mode}; expected RGB"):
            deeplab_v1(width=1).predict(image.new(mode, (6, 4)))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"crf": "yes"}, TypeError, r"\[predict\] crf is 'yes' \(str\); expected True, False"),
        ({"crf": 1}, TypeError, r"\[predict\] crf is 1 \(int\)"),
        ({"returns": "scores"}, ValueError, r"\[predict\] returns is 'scores'"),
        ({"crf": {"bilateral": (1, 2)}}, ValueError, r"\[refine\] bilateral has 2 entries"),
        ({"crf": {"sigma": 3}}, TypeError, r"\[predict\] crf has 'sigma'; expected .*'spatial'"),
        ({"crf": {"returns": "probs"}}, TypeError, r"\[predict\] crf has 'returns'; expected"),
        ({"crf": {"solver": "newton"}}, ValueError, r"\[refine\] solver is 'newton'"),
    ],
)
def test_wrong_arguments_are_named_before_the_network_runs(arguments, error, sentence):
    model = deeplab_v1(width=1)
    model.trunk.conv1_1.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    with pytest.raises(error, match=sentence):
        model.predict(PHOTO, **arguments)


def test_terms_of_ones_own_take_the_place_of_the_published(rng):
    model, photo = some_network(), some_photo(rng)
    probs = model.predict(photo, crf=False, returns="probs")
    terms = [crfseg.Gaussian(3, 1), crfseg.Bilateral(photo, 20, 10, 1)]
    found = model.predict(photo, crf={"pairwise": terms}, returns="probs")
    expected = crfseg.refine(probs, photo, layout="CHW", pairwise=terms, normalization="after")
    np.testing.assert_array_equal(found, expected)


def test_a_preset_takes_the_place_of_the_published(rng):
    model, photo = some_network(), some_photo(rng)
    probs = model.predict(photo, crf=False, returns="probs")
    found = model.predict(photo, crf={"preset": "pydensecrf"}, returns="probs")
    expected = crfseg.refine(probs, photo, layout="CHW", preset="pydensecrf")
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - model.predict(photo, returns="probs")).max() > 1e-3


def test_unsure_labels_are_marked(rng):
    labels = some_network().predict(some_photo(rng), crf={"min_confidence": 0.999999})
    assert (labels == 255).any()


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (torch.rand(1, 3, 5, 6), r"levels has values .*; expected levels in 0..255 .times 255"),
        (torch.randn(1, 3, 5, 6), r"levels has values from -.*; expected levels in 0..255$"),
        (torch.rand(3, 5, 6) * 255, r"levels has shape \(3, 5, 6\); expected \(N, 3, H, W\)"),
        (PHOTO, r"levels is an array .*; expected a torch tensor"),
    ],
)
def test_preprocessing_takes_levels_alone(levels, sentence):
    with pytest.raises((TypeError, ValueError), match=rf"\[preprocess\] {sentence}"):
        deeplab_v1(width=1).preprocess(levels)


def test_black_pictures_are_levels():
    """Whole numbers, unlike pictures in 0..1."""
    model = deeplab_v1(width=1)
    dark = torch.randint(0, 2, (1, 3, 9, 9)).float()
    assert torch.equal(model.preprocess(dark), model.preprocess(dark.byte()))
    assert torch.compile(model.preprocess, backend="eager")(dark / 2).shape == dark.shape
