# SPDX-License-Identifier: MIT
"""Scores upsampled, labels and masks read while they are used, against full-size arrays of them."""

import sys

import numpy as np
import pytest

from crfseg import CUSTOMARY, Bilateral, DenseCRF, Gaussian, refine, unary_from_labels
from native import ISAS, instruction_set
from reference import bilinear, softmax
from subprocesses import run_script

ALIGNMENTS = ("half-pixel", "align-corners")
# Coarse and full size: strips end inside rows, single pixels, rows and columns, no whole strides.
SIZES = (
    ((1, 1), (1, 2)),
    ((1, 1), (9, 7)),
    ((1, 5), (1, 43)),
    ((6, 1), (45, 1)),
    ((4, 3), (4, 20)),
    ((5, 7), (6, 8)),
    ((12, 17), (91, 131)),
)


def scores_of(rng, n_labels, size, kind):
    logits = rng.normal(scale=3, size=(n_labels, *size)).astype(np.float32)
    return logits if kind == "logits" else softmax(logits).astype(np.float32)


def picture(rng, size):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("kind", ["probs", "logits"])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_coarse_scores_are_the_upsampled_ones(rng, small, large, kind, alignment, skip):
    for n_labels in (2, 5, 21):
        scores = scores_of(rng, n_labels, small, kind)
        full = bilinear(scores, *large, alignment).astype(np.float32)
        image = picture(rng, large)
        options = {"kind": kind, "layout": "CHW", "skip": skip, **CUSTOMARY}
        for returns in ("same", "probs"):
            found = refine(scores, image, upsample=alignment, returns=returns, **options)
            expected = refine(full, image, returns=returns, **options)
            if returns == "same" and kind == "logits":
                found, expected = np.exp(found), np.exp(expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 if skip else 2e-5)
        labels = refine(scores, image, upsample=alignment, returns="labels", **options)
        is_clear = np.diff(np.sort(found, axis=0)[-2:], axis=0)[0] > 1e-3
        np.testing.assert_array_equal(labels[is_clear], found.argmax(0)[is_clear])


def test_logits_of_any_size_are_mixed(rng):
    """Large offsets drown nothing, and numbers whose difference overflows are no NaN."""
    scores = (
        np.round(64 * scores_of(rng, 3, (4, 5), "logits")) / 64
    )  # which adding 1024 leaves as they are
    image = picture(rng, (32, 40))
    options = {"kind": "logits", "returns": "probs"}
    plain = refine(scores, image, **options)
    np.testing.assert_allclose(refine(scores + 1024, image, **options), plain, rtol=0, atol=1e-4)
    extreme = np.where(scores > 0, np.float32(3e38), np.float32(-3e38))
    assert np.isfinite(refine(extreme, image, **options)).all()


@pytest.mark.parametrize("dtype", ["=f2", "=f4", "=f8", ">f4"])
def test_other_dtypes_layouts_and_batches_are_the_same(rng, dtype):
    logits = scores_of(rng, 6, (7, 9), "logits").astype(dtype)
    image = picture(rng, (56, 72))
    options = {"kind": "logits", "returns": "probs"}
    expected = refine(logits.astype(np.float32), image, layout="CHW", **options)
    logits.flags.writeable = False
    given = {
        "CHW": logits,
        "HWC": np.ascontiguousarray(logits.transpose(1, 2, 0)),
        "NCHW": np.stack([logits, logits]),
        "NHWC": np.stack([logits, logits]).transpose(0, 2, 3, 1),
    }
    for layout, scores in given.items():
        found = refine(scores, image, layout=layout, **options)
        assert found.dtype == scores.dtype
        items = found if "N" in layout else found[np.newaxis]
        for item in items:
            planes = item if layout.endswith("CHW") else item.transpose(2, 0, 1)
            np.testing.assert_array_equal(planes, expected.astype(found.dtype))
    sliced = np.zeros((12, 14, 18), np.float32)[::2, ::2, ::2]
    sliced[:] = logits
    np.testing.assert_array_equal(refine(sliced, image, layout="CHW", **options), expected)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["probs", "logits", "labels", "mask"])
def test_threads_and_instruction_sets_do_not_matter(rng, kind, skip):
    image = picture(rng, (120, 152))
    given = {
        "labels": rng.integers(0, 9, (120, 152)),
        "mask": rng.uniform(size=(15, 19)).astype(np.float32),
    }.get(kind, scores_of(rng, 9, (15, 19), kind))
    options = {"kind": kind, "returns": "probs", "skip": skip, "iterations": 4}
    expected = refine(given, image, threads=1, **options)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(refine(given, image, threads=threads, **options), expected)
    for isa in ISAS:
        with instruction_set(isa):
            found = refine(given, image, **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if skip else 1e-5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("confidence", [0.02, 0.7, 0.999])
@pytest.mark.parametrize(("n_labels", "ignore"), [(1, None), (2, 1), (4, 9), (6, 0), (21, 255)])
def test_labels_are_their_energies(rng, n_labels, ignore, confidence, skip):
    image = picture(rng, (67, 83))
    labels = rng.integers(0, n_labels, (67, 83)).astype(np.uint8)
    if ignore is not None:
        labels[rng.uniform(size=labels.shape) < 0.2] = ignore
    options = {"n_labels": n_labels, "confidence": confidence, "ignore_index": ignore}
    energies = unary_from_labels(labels, **options)
    terms = [Gaussian(3.0, 3.0), Bilateral(image, 80.0, 13.0, 10.0)]
    expected = DenseCRF(energies, terms).infer(10, skip=skip)
    options |= {"skip": skip, **CUSTOMARY}
    found = refine(labels, image, returns="probs", **options)
    np.testing.assert_allclose(found, expected.q, rtol=0, atol=2e-4)
    if n_labels > 1 and ignore in range(n_labels):
        assert found[ignore].max() == 0
    same = refine(labels, image, **options)
    assert same.dtype == labels.dtype
    np.testing.assert_array_equal(same, refine(labels, image, returns="labels", **options))


def test_marks_beyond_the_native_integers_are_no_label(rng):
    """2**32 would be label 0 in 32 bits."""
    image = picture(rng, (20, 30))
    labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    labels[4:9] = 255
    large = labels.astype(np.uint64)
    large[4:9] = 2**32
    expected = refine(labels, image, ignore_index=255)
    np.testing.assert_array_equal(refine(large, image, ignore_index=2**32), expected)
    signed = labels.astype(np.int64)
    signed[4:9] = -7
    np.testing.assert_array_equal(refine(signed, image, ignore_index=-7), expected)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("alignment", [False, *ALIGNMENTS])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_soft_masks_are_two_labels(rng, small, large, alignment, skip):
    soft = rng.uniform(size=small if alignment else large).astype(np.float32)
    image = picture(rng, large)
    both = np.stack((1 - soft, soft))
    options = {"upsample": alignment, "skip": skip}
    expected = refine(both, image, layout="CHW", **options)
    found = refine(soft, image, kind="mask", **options)
    np.testing.assert_allclose(found, expected[1], rtol=0, atol=2e-4 if skip else 2e-5)
    hard = refine(soft, image, kind="mask", returns="labels", **options)
    assert np.mean(hard == expected.argmax(0)) > 0.999


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.5])
@pytest.mark.parametrize("kind", ["probs", "logits"])
@pytest.mark.parametrize("batch", [False, True])
def test_bad_coarse_values_are_named_as_those_of_full_size(rng, value, kind, batch):
    scores = scores_of(rng, 4, (6, 8), kind)
    scores[2, 3, 5] = value
    given = np.stack([scores_of(rng, 4, (6, 8), kind), scores]) if batch else scores
    options = {"kind": kind, "layout": "NCHW" if batch else "CHW"}
    if kind == "logits" and np.isfinite(value):
        refine(given, picture(rng, (48, 64)), **options)
        return
    with pytest.raises(ValueError, match="refine") as full:
        refine(given, picture(rng, (6, 8)), **options)
    with pytest.raises(ValueError, match="refine") as coarse:
        refine(given, picture(rng, (48, 64)), **options)
    assert str(coarse.value) == str(full.value)


@pytest.mark.parametrize("skip", [False, True])
def test_padding_of_rows_never_wins(rng, skip):
    """Messages that speak against all labels leave nothing to what is no label."""
    image = picture(rng, (40, 48))
    against_all = np.full((5, 5), 1.0) - 0.1 * np.eye(5)
    given = {
        "coarse": scores_of(rng, 5, (5, 6), "probs"),
        "full": scores_of(rng, 5, (40, 48), "probs"),
        "labels": rng.integers(0, 5, (40, 48)),
    }
    for x in given.values():
        options = {"n_labels": 5} if x.dtype.kind == "i" else {}
        q = refine(
            x,
            image,
            spatial=(3.0, 400.0),
            compatibility=against_all,
            returns="probs",
            skip=skip,
            **options,
        )
        np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)


PEAK = """
import resource
rng = np.random.default_rng(0)
height, width, n_labels = 480, 640, 150
blocks = (height // 40, width // 40)
image = rng.integers(0, 256, (*blocks, 3), np.uint8).repeat(40, 0).repeat(40, 1)
labels = rng.integers(0, n_labels, blocks).repeat(5, 0).repeat(5, 1)
scores = 12 * (np.arange(n_labels)[:, None, None] == labels).astype(np.float32)

def refined(x, **options):
    return crfseg.refine(x, image, returns="labels", threads=1, spatial=(3.0, 3.0),
                         bilateral=(80.0, 13.0, 10.0), **options)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

{warm}
before = peak()
{use}
print((peak() - before) / (4 * height * width * n_labels))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("x", "options"),
    [
        ("scores", "kind='logits', layout='CHW'"),
        ("labels.repeat(8, 0).repeat(8, 1)", "n_labels=n_labels, confidence=0.999"),
    ],
)
def test_labels_need_no_array_of_probabilities(x, options, skip):
    """What is kept of 150 labels is less than one value for every label of every pixel.

    Points that are looked at again keep rows of their own, others nothing.
    """
    small = x.replace("scores", "scores[:, :5, :80]").replace("labels", "labels[:5]")
    options = f"{options}, skip={skip}"
    warm = f"image, whole = image[:40], image; refined({small}, {options}); image = whole"
    share = float(run_script(PEAK.format(warm=warm, use=f"refined({x}, {options})")))
    assert share < 0.8
