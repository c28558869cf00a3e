# SPDX-License-Identifier: MIT
"""Published programs around pydensecrf, each in a line of ours, and what it computes itself.

What a program computes is written out from its source, with ``crfseg.compat.pydensecrf``, whose
results are pydensecrf's. Its mistakes are left out: tests/test_mistakes.py has them.
"""

from typing import Any

import numpy as np
import pytest

import crfseg.compat.pydensecrf.densecrf as dcrf
from crfseg import DenseCRF, Gaussian, refine, unary_from_logits
from crfseg.cams import refine_present, with_background
from crfseg.compat.pydensecrf import utils
from crfseg.labels import merge_confident
from photos import DATA, Array, recorded_problem, upsample
from reference import softmax

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
LABELS_AGREE = 0.9985
IMAGE, PROBS = recorded_problem("astronaut")
LOGITS = np.load(DATA / "astronaut.npz")["logits"].astype(np.float32)
C, H, W = PROBS.shape
LABELS = PROBS.argmax(0).astype(np.uint8)
MASK = np.equal(LABELS, LABELS[H // 2, W // 2])
# Activation maps of classes 3, 8 and 15 of 20, zeros of the others; label 0 is the background.
KEYS = np.array([0, 3, 8, 15])
CAMS = np.zeros((20, H, W), np.float32)
CAMS[KEYS[1:] - 1] = PROBS[1:4] / PROBS[1:4].max((1, 2), keepdims=True)
PRESENT_CAMS = CAMS[KEYS[1:] - 1]


def pydensecrf(
    unary: Array,
    image: Array,
    spatial: tuple[float, float] | None,
    bilateral: tuple[float, float, float],
    iterations: int,
    normalization: int = dcrf.NORMALIZE_SYMMETRIC,
) -> Array:
    """(L, H, W): what nearly all of them do, after and before everything else."""
    height, width = image.shape[:2]
    crf = dcrf.DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(unary), -1), np.float32))
    if spatial is not None:
        crf.addPairwiseGaussian(sxy=spatial[0], compat=spatial[1], normalization=normalization)
    sxy, srgb, compat = bilateral
    rgb = np.ascontiguousarray(image)
    crf.addPairwiseBilateral(
        sxy=sxy, srgb=srgb, rgbim=rgb, compat=compat, normalization=normalization
    )
    return np.array(crf.inference(iterations)).reshape(len(unary), height, width)


def of_softmax(probs: Array, image: Array, *parameters: Any) -> Array:
    return pydensecrf(utils.unary_from_softmax(probs), image, *parameters)


def of_labels(labels: Array, n_labels: int, image: Array) -> Array:
    """``crf_inference_label`` of irn and its copies."""
    unary = utils.unary_from_labels(labels, n_labels, gt_prob=0.7, zero_unsure=False)
    return pydensecrf(unary, image, (3, 3), (50, 5, 10), 10).argmax(0)


def assert_agree(found: Array, expected: Array, least: float = LABELS_AGREE) -> None:
    """Labels, or marginals (L, H, W) and their labels."""
    assert found.shape == expected.shape
    if found.dtype.kind == "f":
        assert np.abs(found - expected).mean() < (1e-3 if least == LABELS_AGREE else 0.02)
        found, expected = found.argmax(-3), expected.argmax(-3)
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() >= least


def normalized(image: Array) -> Array:
    """What a network takes, (3, H, W)."""
    return ((image / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


def unnormalized(tensor: Array) -> Array:
    """``unnorm`` and ``to_pil_image``, which cuts fractions off, and then BGR."""
    levels = (tensor.transpose(1, 2, 0) * STD + MEAN) * 255
    return levels.astype(np.uint8)[..., ::-1]


def full_probs(logits: Array, stride: int = 8) -> Array:
    height, width = logits.shape[1] * stride, logits.shape[2] * stride
    return softmax(upsample(logits.astype(np.float64), height, width)).astype(np.float32)


def test_01_deeplab_pytorch_coarse_logits():
    found = refine(LOGITS, IMAGE, kind="logits", preset="deeplab-v2", returns="probs")
    assert_agree(found, of_softmax(full_probs(LOGITS), IMAGE, (1, 3), (67, 3, 4), 10))


def stego(tensor: Array, logits: Array) -> Array:
    return of_softmax(full_probs(logits), unnormalized(tensor), (1, 3), (67, 3, 4), 10)


def test_02_stego_normalized_images():
    tensor = normalized(IMAGE)
    options: dict[str, Any] = {"kind": "logits", "preset": "stego", "returns": "probs"}
    found = refine(LOGITS, tensor, image_layout="KHW", mean=MEAN, std=STD, **options)
    assert_agree(found, stego(tensor, LOGITS), 0.98)  # they cut fractions of levels off, in BGR


def test_03_reco_batches():
    tensors = np.stack([normalized(IMAGE), normalized(IMAGE[::-1])])
    logits = np.stack([LOGITS, LOGITS[:, ::-1]])
    options: dict[str, Any] = {"kind": "logits", "preset": "stego", "returns": "probs"}
    found = refine(logits, tensors, image_layout="NKHW", mean=MEAN, std=STD, **options)
    expected = [stego(*one) for one in zip(tensors, logits, strict=True)]
    assert_agree(found, np.stack(expected), 0.98)


def cutler(image: Array, mask: Array, *parameters: Any) -> Array:
    probs = softmax(np.stack([1.0 - mask, mask]))
    return of_softmax(probs, image, *parameters).argmax(0)


def test_04_cutler_masks():
    found = refine(MASK.astype(np.uint8), IMAGE, kind="mask", preset="cutler")
    assert_agree(found, cutler(IMAGE, MASK, (3, 7), (50, 5, 10), 10))


def test_05_selfment_masks_of_255():
    found = refine(MASK * np.uint8(255), IMAGE, kind="mask", preset="selfment")
    assert_agree(found // 255, cutler(IMAGE, MASK, (2, 7), (20, 5, 10), 20))


def test_06_irn_two_thresholds():
    def ours(threshold: float) -> Array:
        labels = with_background(CAMS, threshold=threshold).argmax(0)
        return refine_present(labels, IMAGE, classes=KEYS, n_labels=21, preset="irn-labels")

    def theirs(threshold: float) -> Array:
        padded = np.pad(PRESENT_CAMS, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
        return KEYS[of_labels(padded.argmax(0), len(KEYS), IMAGE)]

    fg, bg = theirs(0.6), theirs(0.1)
    expected = fg.copy()
    expected[fg == 0] = 255
    expected[bg + fg == 0] = 0
    assert {0, 255} < set(np.unique(expected))
    assert_agree(merge_confident(ours(0.6), ours(0.1)), expected)


def psa(alpha: float, *parameters: Any) -> Array:
    background = np.power(1 - PRESENT_CAMS.max(0, keepdims=True), alpha)
    scores = np.concatenate([background, PRESENT_CAMS])
    return of_softmax(scores, IMAGE, *parameters)


def test_07_psa_two_alphas():
    def ours(alpha: float) -> Array:
        return refine_present(
            with_background(CAMS, alpha=alpha), IMAGE, kind="scores", preset="psa"
        )

    low, high = ours(4), ours(32)
    for alpha, found in ((4, low), (32, high)):
        assert_agree(found[KEYS], psa(alpha, (3, 3), (80, 13, 10), 10))
        assert found.shape == (21, H, W)
        assert not np.delete(found, KEYS, 0).any()
    expected = low.argmax(0)  # VOC12AffDataset
    expected[low.argmax(0) == 0] = 255
    expected[high.argmax(0) == 0] = 0
    merged = merge_confident(low.argmax(0), high.argmax(0), contradictions="background")
    np.testing.assert_array_equal(merged, expected)


@pytest.mark.parametrize("scale_factor", [1, 2, 12])
def test_08_to_10_afa_one_stage_wseg_slrnet(scale_factor):
    found = refine(PROBS, IMAGE, preset="psa", scale=scale_factor)
    parameters = ((3 / scale_factor, 3), (80 / scale_factor, 13, 10), 10)
    assert_agree(found, of_softmax(PROBS, IMAGE, *parameters))


def test_08_10_and_14_afa_slrnet_bestie_labels():
    found = refine(LABELS, IMAGE, n_labels=C, preset="irn-labels")
    assert_agree(found, of_labels(LABELS, C, IMAGE))


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("mctformer", ((4, 3), (83, 5, 3), 10)),  # site 11
        ("deeplab-resnet38-voc", ((1, 3), (112, 2, 3), 10)),  # 12
        ("deeplab-coco", ((1, 3), (67, 3, 4), 10)),  # 12 and 20
        ("chameleon", ((1, 15), (67, 3, 4), 10)),  # 16
        ("unet", ((20, 3), (30, 20, 10), 5)),  # 19
        ("pydensecrf", ((3, 3), (80, 13, 10), 5)),
    ],
)
def test_11_12_16_19_20_probabilities(preset, parameters):
    assert_agree(refine(PROBS, IMAGE, preset=preset), of_softmax(PROBS, IMAGE, *parameters))


def test_13_clip_es_unsure_labels_and_bgr():
    found = refine_present(
        with_background(CAMS, alpha=1),
        np.ascontiguousarray(IMAGE[..., ::-1]),  # as cv2.imread gives it
        bgr=True,
        kind="scores",
        preset="clip-es",
        returns="labels",
        min_confidence=0.95,
    )
    q = psa(1, (1, 3), (67, 3, 4), 10)
    expected = KEYS[q.argmax(0)]
    expected[q.max(0) < 0.95] = 255
    assert 0.01 < (expected == 255).mean() < 0.9
    assert_agree(found, expected)


def test_14_and_15_parameters_of_ones_own():
    """BESTIE's class, and hTorch's constants."""
    found = refine(
        PROBS, IMAGE, spatial=(2, 5), bilateral=(40, 9, 6), iterations=7, returns="labels"
    )
    assert_agree(found, of_softmax(PROBS, IMAGE, (2, 5), (40, 9, 6), 7).argmax(0))
    assert found.dtype == np.uint8


def test_17_deeplab_large_fov_batch_of_one():
    options = {"preset": "deeplab-v1-largefov", "normalization": "symmetric", "returns": "labels"}
    found = refine(PROBS[np.newaxis], IMAGE, **options)[0]
    expected = pydensecrf(-np.log(PROBS), IMAGE, (3, 3), (121, 5, 4), 10)
    assert_agree(found, expected.argmax(0))


def test_18_unet_foreground_probability():
    p = 0.9 * PROBS[LABELS[H // 2, W // 2]] + 0.05
    found = refine(p, IMAGE, kind="mask", preset="unet", returns="labels")
    expected = pydensecrf(-np.log(np.stack([1 - p, p])), IMAGE, (20, 3), (30, 20, 10), 5)
    assert_agree(found, expected.argmax(0))


def test_21_mrbrains_sigmoids():
    sigmoids = 1 / (1 + np.exp(-full_probs(LOGITS) * 8 + 4))
    channels_first = IMAGE.transpose(2, 0, 1)
    found = refine(
        sigmoids,
        channels_first,
        image_layout="KHW",
        kind="scores",
        preset="mrbrains",
        returns="labels",
    )
    turned = pydensecrf(
        utils.unary_from_softmax(sigmoids.swapaxes(1, 2)),
        channels_first.swapaxes(0, 2),
        *(None, (5, 3, 3), 50),
    )
    assert_agree(found, turned.argmax(0).swapaxes(0, 1), 0.98)  # x and y change places


def test_22_construct_batches_without_absent_classes():
    probs = np.stack([PROBS, PROBS[:, ::-1]])
    probs[0, [2, 5]] = 0
    probs[1, 1:6] = 0
    images = np.stack([IMAGE, IMAGE[::-1]])
    options: dict[str, Any] = {"kind": "scores", "preset": "construct"}
    found = refine_present(probs, images, **options)
    expected = np.zeros_like(probs)
    for q, p, image in zip(expected, probs, images, strict=True):
        present = np.flatnonzero(p.sum((1, 2)) > 0)
        q[present] = of_softmax(p[present], image, (15, 30), (10, 20, 50), 5)
    assert_agree(found, expected)
    labels = refine_present(probs, images, returns="labels", **options)
    np.testing.assert_array_equal(labels, found.argmax(1))


def test_23_manga_image_translator_crops():
    y, x = slice(20, 100), slice(30, 140)
    crop, mask = IMAGE[y, x], MASK[y, x] * np.uint8(255)
    found = refine(mask, crop, kind="mask", preset="manga-image-translator")
    assert found.dtype == np.uint8
    probs = np.stack([255 - mask, mask]).astype(np.float32) / 255
    parameters = ((1, 3), (23, 7, 20), 5, dcrf.NO_NORMALIZATION)
    assert_agree(found // 255, of_softmax(probs, crop, *parameters).argmax(0))


def test_24_doodler_unsure_pixels_and_every_other_pixel():
    image, labels = IMAGE[:, :H], LABELS[:, :H] + 1  # they swap width and height: a square
    labels[::3, ::2] = 0
    theta, mu, srgb = 20, 8, 1 + 5 * H / 300
    small = refine(
        *(labels[::2, ::2], image[::2, ::2]),
        ignore_index=0,
        confidence=0.9,
        spatial=(3, 3),
        bilateral=(theta, srgb, mu),
    )
    found = small.repeat(2, 0).repeat(2, 1)[: labels.shape[0], : labels.shape[1]]
    crf = dcrf.DenseCRF2D(H // 2, H // 2, C)
    crf.setUnaryEnergy(utils.unary_from_labels(labels[::2, ::2].astype(int), C, gt_prob=0.9))
    crf.addPairwiseGaussian(sxy=(3, 3), compat=3)
    features = utils.create_pairwise_bilateral((theta,) * 2, (srgb,) * 3, image[::2, ::2], chdim=2)
    crf.addPairwiseEnergy(features, compat=mu)
    expected = np.argmax(crf.inference(10), axis=0).reshape(H // 2, H // 2) + 1
    assert_agree(found[::2, ::2], expected, 0.98)  # their features have y before x


def test_25_deep_spectral_one_hot_through_simple_crf():
    one_hot = np.eye(C)[LABELS]
    found = refine(
        one_hot.clip(0.01, 0.99), IMAGE, kind="scores", preset="deep-spectral", returns="labels"
    )
    energies = -np.log(one_hot.clip(0.01, 0.99)).transpose(2, 0, 1)
    assert_agree(found, pydensecrf(energies, IMAGE, (3, 3), (80, 13, 10), 5).argmax(0))


def test_26_cellseg3d_volumes():
    """(K, H, W, D) probabilities and a float volume (1, H, W, D)."""
    depth, (sa, sb, sg, w1, w2) = 6, (10, 10, 1, 10, 10)
    volume = np.stack([IMAGE[:60:2, i : 80 + i : 2, 0] for i in range(depth)], -1).astype(float)
    probs = np.stack([PROBS[:3, :60:2, i : 80 + i : 2] for i in range(depth)], -1)
    probs /= probs.sum(0)
    found = refine(
        *(probs, volume[np.newaxis]),
        layout="CDHW",
        image_layout="KDHW",
        image_range=(0, 255),
        spatial=(sg, w2),
        bilateral=((1, sa, sa), sb, w1),  # of x, y, z, x the last axis: theirs leave it undivided
        iterations=5,
    )
    crf = dcrf.DenseCRF(volume.size, 3)
    crf.setUnaryEnergy(utils.unary_from_softmax(probs))
    compat = (np.ones(3, np.float32) - np.eye(3, dtype=np.float32)).astype(np.float32)
    near = utils.create_pairwise_gaussian(sdims=(sg,) * 3, shape=volume.shape)
    crf.addPairwiseEnergy(near, compat=compat * w2)
    y, x, z = np.indices(volume.shape)
    alike = np.stack([0 * y, y / sa, x / sa, z, volume / sb]).reshape(5, -1).astype(np.float32)
    crf.addPairwiseEnergy(alike, compat=compat * w1)
    expected = np.array(crf.inference(5)).reshape(3, *volume.shape)
    assert_agree(found.reshape(3, 30, -1), expected.reshape(3, 30, -1), 0.98)


def test_27_wrl_agriculture_vision_smoothness_with_spacings():
    """A Gaussian kernel alone, without the point itself, over logits; spacings differ by axis.

    The site's filter leaves the pixel's whole row and column out, which is not the Gaussian that
    its documentation describes; what it describes is the reference here.
    """
    logits, spacings, theta, weight = LOGITS[:3, :9, :12], (1.0, 2.0), 1.5, 0.3
    sigmas = tuple(theta / spacing for spacing in spacings[::-1])
    crf = DenseCRF(
        unary_from_logits(logits),
        [Gaussian(sigmas, weight)],
        normalization="none",
        exclude_self=True,
        accuracy="fine",
    )
    places = np.stack(np.indices(logits.shape[1:]), -1).reshape(-1, 2) * spacings
    kernel = np.exp(-((places[:, None] - places) ** 2).sum(-1) / (2 * theta**2))
    np.fill_diagonal(kernel, 0)
    flat = logits.reshape(3, -1).astype(float)
    q = softmax(flat)
    for _ in range(5):
        q = softmax(flat + weight * q @ kernel)
    assert np.abs(crf.infer(5).q - q.reshape(logits.shape)).max() < 0.05
