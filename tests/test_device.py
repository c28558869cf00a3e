# SPDX-License-Identifier: MIT
"""refine() of arrays on a device gives what it gives on the CPU; the kernels are emulated."""

import numpy as np
import pytest

import crfseg
from crfseg import Bilateral, Features, Gaussian
from emulated import emulated, needs_emulation
from on_device import OnDevice, values_of

pytestmark = [needs_emulation, pytest.mark.usefixtures("emulated")]
__all__ = ["emulated"]

CLOSE = 2e-6  # of marginals
SIZE = (19, 23)


def scene(n_labels=4, size=SIZE, seed=0):
    """Scores, and an image whose colours go with their labels."""
    rng = np.random.default_rng(seed)
    labels = np.indices(size).sum(0) // 7 % n_labels
    scores = rng.random((n_labels, *size)) + 2 * (labels == np.arange(n_labels)[:, None, None])
    probs = (scores / scores.sum(0)).astype(np.float32)
    colours = rng.integers(30, 220, (n_labels, 3))
    image = colours[labels] + rng.integers(-9, 9, (*size, 3))
    return probs, image.astype(np.uint8)


def both(x, image, *, given=OnDevice, **options):
    """What the device and the CPU find; labels must agree."""
    on_device = image
    if isinstance(image, list):
        on_device = [OnDevice(one) for one in image]
    elif image is not None:
        on_device = OnDevice(image)
    found = values_of(crfseg.refine(given(x), on_device, **options))
    expected = crfseg.refine(x, image, skip=False, **options)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    return found, expected


def check(x, image, close=CLOSE, **options):
    found, expected = both(x, image, **options)
    if found.dtype.kind == "f":
        assert np.abs(found.astype(float) - expected).max() <= close
    else:
        np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1  # no constant passes for a result
    return found


def test_the_defaults():
    check(*scene())


@pytest.mark.parametrize("layout", ["CHW", "HWC", "NCHW", "NHWC"])
def test_layouts(layout):
    probs, image = scene()
    x = np.stack([probs, probs[::-1]]) if "N" in layout else probs
    if layout.endswith("C"):
        x = np.moveaxis(x, -3, -1)
    found = check(np.ascontiguousarray(x), image, layout=layout)
    assert found.shape == x.shape
    check(x, image, layout=layout, returns="labels")  # strided


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_of_scores(dtype):
    probs, image = scene()
    check(probs.astype(dtype), image, close=1e-3 if dtype == np.float16 else CLOSE)


def test_strides_that_no_view_of_points_has():
    probs, image = scene(size=(19, 46))
    check(probs[:, :, ::2], image[:, ::2])


@pytest.mark.parametrize("kind", ["logits", "scores"])
def test_kinds_of_scores(kind):
    probs, image = scene()
    x = 3 * np.log(probs) + 1 if kind == "logits" else 5 * probs
    check(x, image, kind=kind, returns="probs")
    found, expected = both(x, image, kind=kind)
    likely = expected > (np.log(1e-6) if kind == "logits" else -1)
    assert np.abs(found - expected)[likely].max() < 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.int16])
def test_labels(dtype):
    probs, image = scene()
    labels = probs.argmax(0).astype(dtype)
    check(labels, image)
    check(labels, image, returns="probs")
    labels[:4] = 99
    check(labels, image, ignore_index=99, n_labels=5)


@pytest.mark.parametrize("foreground", [True, 1, 255, 1.0])
def test_masks(foreground):
    probs, image = scene(2)
    mask = probs[1] if foreground == 1.0 and isinstance(foreground, float) else probs[1] > 0.5
    if not isinstance(foreground, bool | float):
        mask = mask.astype(np.uint8) * foreground
    check(mask, image, kind="mask")
    check(mask[np.newaxis], image, kind="mask", layout="CHW")
    check(mask, image, kind="mask", returns="labels")


@pytest.mark.parametrize("alignment", ["half-pixel", "align-corners"])
def test_upsampling(alignment):
    _, image = scene()
    probs, _ = scene(size=(5, 6))
    check(probs, image, upsample=alignment, layout="CHW")
    logits = {"kind": "logits", "returns": "probs"}
    check(np.log(probs), image, upsample=alignment, layout="CHW", **logits)
    check(probs[0], image, kind="mask", upsample=alignment)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"keep_thin": 0},
        {"keep_thin": 5},
        {"tolerance": 1e-3},
        {"solver": "damped"},
        {"accuracy": "fine"},
        {"normalization": "none", "bilateral": (4, 20, 0.1), "spatial": (2, 0.1)},
        {"normalization": "before"},
        {"normalization": "after"},
        {"spatial": None},
        {"bilateral": None},
        {"spatial": None, "bilateral": None},
        {"compatibility": [1.0, 2.0, 0.5, 1.0]},
        {"compatibility": 1.0 - np.eye(4) + np.tri(4, k=-1)},
        {"min_confidence": 0.9, "returns": "labels"},
        {"min_confidence": 0.9, "returns": "labels", "ignore_index": 1000},
        {"scale": 2.0, "spacing": (1.0, 2.0)},
        {"preset": "pydensecrf"},
    ],
    ids=str,
)
def test_options(options):
    check(*scene(), **options)


def test_terms_with_images_and_features_of_their_own():
    probs, image = scene()
    depth = np.indices(SIZE).sum(0).astype(np.float64).reshape(-1, 1)
    terms = [
        Gaussian(2, 1),
        Bilateral(image[..., 0], 10, 9, 3),
        Features(depth, 4.0, 2.0),
        Bilateral(None, 20, 12, 4, compatibility=[1, 1, 2, 1]),
    ]
    check(probs, image, pairwise=terms)
    mine = [*terms[:1], Bilateral(OnDevice(image[..., 0]), 10, 9, 3), *terms[2:]]
    found = values_of(crfseg.refine(OnDevice(probs), image, pairwise=mine))
    np.testing.assert_array_equal(found, both(probs, image, pairwise=terms)[0])


def test_a_batch_of_images():
    pairs = [scene(seed=seed) for seed in range(3)]
    probs, images = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    together = check(probs, images)
    for i, (one, image) in enumerate(pairs):
        np.testing.assert_array_equal(both(one, image)[0], together[i])
    check(probs, list(images))
    mixed = [images[0], images[1] / np.float32(255), images[2].astype(np.uint16) * 257]
    check(probs, mixed)
    np.testing.assert_array_equal(
        values_of(crfseg.refine(OnDevice(probs), images)), together
    )  # images in the host's memory


def test_an_empty_batch():
    probs, image = scene()
    found, _ = both(probs[np.newaxis][:0], image)
    assert found.shape == (0, *probs.shape)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.float16])
def test_types_of_images(dtype):
    probs, image = scene()
    levels = image / 255 if np.dtype(dtype).kind == "f" else image.astype(np.uint16) * 257
    check(probs, levels.astype(dtype))


def test_what_images_go_through():
    probs, image = scene()
    rgb = image.astype(np.float32) / 255
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    whitened = (rgb - mean) / std
    check(probs, whitened, mean=mean, std=std)
    upside = {"mean": mean[::-1], "std": std[::-1], "bgr": True}
    check(probs, whitened[..., ::-1].copy(), **upside)
    check(probs, image[..., ::-1].copy(), bgr=True)
    check(probs, np.moveaxis(image, -1, 0).copy(), image_layout="KHW")
    check(probs, image.astype(np.int16) - 20, image_range=(-20, 235))
    check(probs, image[..., 0], close=1e-5)
    ranges = [(0, 255), (-10, 300), (0, 200.0)]
    check(probs, np.minimum(image, 200).astype(np.float32), image_range=ranges)


def test_volumes():
    rng = np.random.default_rng(3)
    labels = np.indices((5, 9, 11)).sum(0) // 5 % 3
    scores = rng.random((3, 5, 9, 11)) + 2 * (labels == np.arange(3)[:, None, None, None])
    probs = (scores / scores.sum(0)).astype(np.float32)
    volume = (60 * labels + rng.integers(0, 20, labels.shape)).astype(np.uint8)
    check(probs, volume, layout="CDHW")
    check(probs[None], volume[None], layout="NCDHW", spacing=(2.0, 1.0, 1.5))
    check(labels.astype(np.uint8), volume, layout="DHW")


def test_points():
    probs, _ = scene()
    x = probs.reshape(4, -1).T.copy()
    features = np.random.default_rng(1).normal(size=(len(x), 3)).astype(np.float32)
    expected = crfseg.refine_points(x, features, sigmas=0.7, skip=False)
    for given in (features, OnDevice(features)):
        found = values_of(crfseg.refine_points(OnDevice(x), given, sigmas=0.7))
        assert np.abs(found - expected).max() <= CLOSE
    labels = x.argmax(1)
    found = values_of(crfseg.refine_points(OnDevice(labels), features, sigmas=0.7))
    np.testing.assert_array_equal(found, crfseg.refine_points(labels, features, sigmas=0.7))


@pytest.mark.parametrize("n_labels", [1, 2, 150, 300])
def test_numbers_of_labels(n_labels):
    probs, image = scene(n_labels)
    found, expected = both(probs, image, returns="labels")
    assert found.dtype == (np.uint8 if n_labels <= 256 else np.int32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (17, 16)])
def test_sizes(size):
    probs, image = scene(3, size)
    found, expected = both(probs, image)
    assert np.abs(found - expected).max() <= CLOSE


@pytest.mark.parametrize("options", [{}, {"kind": "logits"}, {"returns": "labels"}], ids=str)
def test_rows_of_halves(options):
    probs, image = scene()
    x = np.log(probs) if "kind" in options else probs
    exact = values_of(crfseg.refine(OnDevice(x), image, **{"returns": "probs", **options}))
    found = values_of(
        crfseg.refine(OnDevice(x), image, storage="float16", **{"returns": "probs", **options})
    )
    assert found.dtype == exact.dtype
    if found.dtype == np.uint8:
        assert (found != exact).mean() < 0.01
    else:
        assert 0 < np.abs(found - exact).max() < 1e-2  # it is done, and it is close


def test_halves_where_they_will_not_do(emulated, monkeypatch):
    storages = []

    def made(n_items, n_points, width, side, n_labels, storage, *place):
        storages.append(storage)
        if storage != 0:  # as of lattices of far too many points
            raise emulated.TooCoarse("a lattice of so many points needs rows of float32")
        return field(n_items, n_points, width, side, n_labels, storage, *place)

    field = emulated.MeanField
    probs, image = scene()
    expected = values_of(crfseg.refine(OnDevice(probs), image))
    monkeypatch.setattr(emulated, "MeanField", made)
    found = values_of(crfseg.refine(OnDevice(probs), image, storage="float16"))
    np.testing.assert_array_equal(found, expected)
    assert storages == [1, 0]


def test_halves_on_the_cpu():
    probs, image = scene()
    with pytest.raises(ValueError, match=r"storage='float16' is for arrays on CUDA devices"):
        crfseg.refine(probs, image, storage="float16")


def test_it_is_the_same_every_time():
    probs, image = scene()
    first = values_of(crfseg.refine(OnDevice(probs), OnDevice(image)))
    for _ in range(3):
        again = values_of(crfseg.refine(OnDevice(probs), OnDevice(image)))
        np.testing.assert_array_equal(again, first)
