# SPDX-License-Identifier: MIT
"""Shapes of refine()'s x and image that do not go together: the error says what they look like."""

import numpy as np
import pytest

from bad_input import assert_named, case, giant
from crfseg import refine, unary_from_logits

C, H, W = 5, 24, 32
RNG = np.random.default_rng(11)
IMAGE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
PROBS = RNG.dirichlet(np.ones(C), (H, W)).transpose(2, 0, 1).astype(np.float32)
LABELS = PROBS.argmax(0)
LAST = PROBS.transpose(1, 2, 0)
BIG = giant((8 * H, 8 * W, 3), 7, np.uint8)
UNEVEN = BIG[:-3]  # no whole stride leads there


def of_shape(*shape):
    """Probabilities, or anything, that no test gets as far as reading."""
    return giant(shape, 0.2)


ONE_LABEL = [
    case("logits", lambda: refine(PROBS[:1], IMAGE, kind="logits"), ValueError,
         "[refine] x has one label (shape (1, 24, 32))", "always 1", "kind='mask'"),
    case("logits, label axis last", lambda: refine(LAST[..., :1], IMAGE, kind="logits"), ValueError,
         "[refine] x has one label (shape (24, 32, 1))", "kind='mask'"),
    case("batch of logits", lambda: refine(PROBS[None, :1], IMAGE, kind="logits"), ValueError,
         "[refine] x has one label (shape (1, 1, 24, 32))"),
    case("coarse logits", lambda: refine(PROBS[:1], BIG, kind="logits"), ValueError,
         "[refine] x has one label"),
    case("sigmoid", lambda: refine(of_shape(1, H, W), IMAGE), ValueError,
         "[refine] x sums to 0.2 over its one label at row 0, column 0", "always 1", "kind='mask'"),
    case("negative logits of unknown kind", lambda: refine(-PROBS[None, :1], IMAGE), ValueError,
         "[refine] x[0] sums to -", "over its one label", "kind='mask'"),
    case("unary", lambda: unary_from_logits(PROBS[:1]), ValueError,
         "[unary_from_logits] logits has one label (shape (1, 24, 32))", "np.stack([1 - p, p])"),
]  # fmt: skip

MASKS = [
    case("probabilities of all labels", lambda: refine(PROBS, IMAGE, kind="mask", layout="CHW"),
         ValueError, "[refine] x has shape (5, 24, 32) and kind 'mask'; expected (1, H, W)"),
    case("a batch of them", lambda: refine(PROBS[None], IMAGE, kind="mask"), ValueError,
         "x has shape (1, 5, 24, 32) and kind 'mask'", "(N, 1, H, W) or (N, H, W, 1)"),
    case("NaN beside a label axis",
         lambda: refine(np.full((H, W, 1), np.nan), IMAGE, kind="mask"), ValueError,
         "[refine] x has nan at row 0, column 0, label 0"),
    case("hard mask to stretch", lambda: refine(LABELS == 1, BIG), ValueError,
         "kind 'mask' but image is 192 x 256", "hard masks are not upsampled",
         "only float foreground probabilities are"),
    case("labels to stretch", lambda: refine(LABELS, BIG, upsample="half-pixel"), ValueError,
         "kind 'labels' but image is 192 x 256", "labels are not upsampled, only scores are"),
    case("soft mask without stride", lambda: refine(PROBS[0], UNEVEN, kind="mask"), ValueError,
         "x has shape (24, 32) and image is 189 x 256: no whole stride", "upsample='half-pixel'"),
]  # fmt: skip


def channels_first(name, x, image, found, **options):
    """The image's last axes fit, so it has its channels in front."""
    return case(f"channels first: {name}", lambda: refine(x, image, **options), ValueError,
                f"{found} and looks channels-first; expected (H, W, channels), here ")  # fmt: skip


FIRST = IMAGE.transpose(2, 0, 1)
BIG_FIRST = BIG.transpose(2, 0, 1)
CHANNELS_FIRST = [
    channels_first("full size", PROBS, FIRST, "image has shape (3, 24, 32)"),
    channels_first("as many labels as channels", PROBS[:3], FIRST, "image has shape (3, 24, 32)"),
    channels_first("label axis last", LAST, FIRST, "image has shape (3, 24, 32)"),
    channels_first("labels", LABELS, FIRST, "image has shape (3, 24, 32)"),
    channels_first("soft mask", PROBS[0], FIRST, "image has shape (3, 24, 32)", kind="mask"),
    channels_first("four channels", PROBS, giant((4, H, W), 7, np.uint8), "shape (4, 24, 32)"),
    channels_first("one channel", PROBS, FIRST[:1], "image has shape (1, 24, 32)"),
    channels_first("coarse", PROBS, BIG_FIRST, "image has shape (3, 192, 256)"),
    channels_first("coarse labels", LABELS, BIG_FIRST, "image has shape (3, 192, 256)"),
    channels_first("no stride", PROBS, UNEVEN.transpose(2, 0, 1), "shape (3, 189, 256)"),
    channels_first("upsample named", PROBS, BIG_FIRST, "shape (3, 192, 256)",
                   upsample="half-pixel"),
    channels_first("stride of another layout", of_shape(2, 33, 33), giant((3, 65, 65), 7),
                   "image has shape (3, 65, 65)"),
    channels_first("a batch", PROBS[None], BIG_FIRST[None], "image has shape (3, 192, 256)"),
    channels_first("a list", np.stack([PROBS] * 2), [FIRST] * 2, "image[0] has shape (3, 24, 32)"),
]  # fmt: skip

GREY = np.stack([IMAGE[..., 0]] * 2)
ONE_HOT = np.eye(3, dtype=np.int64)[LABELS % 3]
CHANNELS = [
    case("grey batch", lambda: refine(np.stack([PROBS] * 2), GREY), ValueError,
         "[refine] x has shape (2, 5, 24, 32) and image has shape (2, 24, 32), like a batch of "
         "grey images", "expected shape (2, 24, 32, 1): image[..., None]"),
    case("large grey batch", lambda: refine(of_shape(20, C, H, W), giant((20, H, W), 7, np.uint8)),
         ValueError, "expected shape (20, 24, 32, 1): image[..., None]"),
    case("labels and grey images", lambda: refine(np.stack([LABELS] * 2), GREY), ValueError,
         "expected shape (2, 24, 32, 1): image[..., None]"),
    case("one-hot labels", lambda: refine(ONE_HOT, IMAGE), ValueError,
         "[refine] x has shape (24, 32, 3), like one-hot labels (H, W, C); expected labels of "
         "shape (H, W), here (24, 32): x.argmax(-1)"),
    case("one-hot labels of a low image", lambda: refine(ONE_HOT[:6], IMAGE[:6]), ValueError,
         "expected labels of shape (H, W), here (6, 32): x.argmax(-1)"),
    case("bytes that are not one-hot", lambda: refine(ONE_HOT.astype(np.uint8) + 1, IMAGE),
         ValueError, "[refine] x has shape (24, 32, 3) and dtype uint8, like a picture in colours; "
         "expected the numbers of labels, of shape (24, 32), or scores as floats"),
    case("a mask in colours", lambda: refine(IMAGE, IMAGE, kind="mask"), ValueError,
         "like a picture in colours; expected a mask, of shape (24, 32)"),
    case("scores in bytes, label axis last", lambda: refine((LAST * 255).astype(np.uint8), IMAGE),
         ValueError, "[refine] x has shape (24, 32, 5) and dtype uint8, like scores (H, W, C) in "
         "integers; expected floats"),
    case("labels with an axis of length 1", lambda: refine(LABELS[..., None], IMAGE), ValueError,
         "expected labels of shape (H, W), here (24, 32): x[..., 0]"),
]  # fmt: skip

COARSE = [
    case("stride and layout are both unknown", lambda: refine(PROBS, UNEVEN), ValueError,
         "x has shape (5, 24, 32) and image is 189 x 256: no whole stride",
         "upsample='half-pixel'", "'align-corners'", "and layout='CHW' or 'HWC'"),
    case("both layouts fit in both ways", lambda: refine(of_shape(3, 3, 3), giant((9, 9, 3))),
         ValueError, "both alignments fit", "upsample='half-pixel'", "layout='CHW' or 'HWC'"),
    case("swapped by a stride", lambda: refine(PROBS, BIG.transpose(1, 0, 2)), ValueError,
         "x has shape (5, 24, 32) but image is 256 x 192; expected (5, 32, 24)",
         "height and width look swapped"),
    case("swapped, corners aligned", lambda: refine(of_shape(2, 4, 7), giant((49, 25, 3))),
         ValueError, "expected (2, 7, 4)", "height and width look swapped"),
    case("swapped label axis last", lambda: refine(LAST, BIG.transpose(1, 0, 2)), ValueError,
         "expected (32, 24, 5)", "height and width look swapped"),
    case("the likeliest layout is too large",
         lambda: refine(of_shape(21, 500, 375), giant((366, 500, 3)), upsample="half-pixel"),
         ValueError, "expected an image of shape (500, 375, 3)"),
]  # fmt: skip

LAYOUTS = [
    case("last, full size", lambda: refine(LAST, IMAGE, layout="CHW"), ValueError,
         "[refine] x has shape (24, 32, 5), layout is 'CHW' and image is 24 x 32; "
         "expected layout='HWC' (the label axis seems to be last)"),
    case("last, whatever upsample says",
         lambda: refine(LAST, IMAGE, layout="CHW", upsample="half-pixel"), ValueError,
         "expected layout='HWC'"),
    case("last, coarse", lambda: refine(LAST, BIG, layout="CHW"), ValueError,
         "expected layout='HWC' (the label axis seems to be last)"),
    case("first", lambda: refine(PROBS, IMAGE, layout="HWC"), ValueError,
         "expected layout='CHW' (the label axis seems to be before H and W)"),
    case("batch", lambda: refine(PROBS[None], IMAGE, layout="NHWC"), ValueError,
         "expected layout='NCHW' (the label axis seems to be before H and W)"),
    case("mask", lambda: refine(LAST[..., :1], IMAGE, kind="mask", layout="NHW"), ValueError,
         "x has shape (24, 32, 1), layout is 'NHW'", "expected layout='HWC'"),
]  # fmt: skip


FLOATS = IMAGE / np.float32(255)
MANY = RNG.dirichlet(np.ones(21), (H, W)).transpose(2, 0, 1).astype(np.float32)


def swapped(name, x, image, **options):
    """The photograph came first."""
    return case(f"swapped: {name}", lambda: refine(x, image, **options), ValueError,
                f"[refine] x is {x.dtype} of shape {x.shape}, like a picture",
                "x and image look swapped; expected refine(x, image)")  # fmt: skip


SWAPPED = [
    swapped("probs", IMAGE, PROBS),
    swapped("kind given", IMAGE, PROBS, kind="probs"),
    swapped("logits", IMAGE, np.log(PROBS), kind="logits"),
    swapped("label axis last", IMAGE, LAST),
    swapped("coarse", BIG, PROBS),
    swapped("batch", IMAGE[None], PROBS[None]),
    swapped("foreground probability", IMAGE, PROBS[0], kind="mask"),
    swapped("alpha", np.dstack([IMAGE, IMAGE[..., :1]]), PROBS),
    swapped("16 bits", IMAGE.astype(np.uint16), PROBS),
    swapped("labels", IMAGE, LABELS),
    swapped("floats", FLOATS, PROBS),
    swapped("floats, many labels", FLOATS, MANY),
    swapped("floats, many labels, label axis last", FLOATS, MANY.transpose(1, 2, 0)),
    swapped(
        "floats, as many labels as colours", FLOATS, LAST[..., :3] / LAST[..., :3].sum(2)[..., None]
    ),
    swapped("floats, channels first", FLOATS.transpose(2, 0, 1), PROBS),
    swapped("floats, label axis last", FLOATS, LAST),
    swapped("floats, kind given", FLOATS, PROBS, kind="probs"),
    swapped("floats, logits", FLOATS, np.log(MANY), kind="logits"),
    swapped("floats, logits and no kind", FLOATS, np.log(MANY)),
    swapped("floats, batch", np.stack([FLOATS] * 2), np.stack([MANY] * 2)),
    swapped(
        "floats, batch of tensors", np.stack([FLOATS.transpose(2, 0, 1)] * 2), np.stack([MANY] * 2)
    ),
    swapped("floats, coarse", np.full((8 * H, 8 * W, 3), 0.2), PROBS),
]


@pytest.mark.parametrize(
    ("call", "error", "fragments"),
    [*ONE_LABEL, *MASKS, *CHANNELS_FIRST, *CHANNELS, *COARSE, *LAYOUTS, *SWAPPED],
)
def test_shapes_that_do_not_fit_are_explained(call, error, fragments):
    assert_named(call, error, fragments)


@pytest.mark.parametrize(("kind", "factor"), [("auto", 1), ("logits", 4), ("scores", 4)])
def test_scores_of_three_labels_beside_floats_are_not_swapped(kind, factor):
    """Not even where the image's channels sum to 1, or it has more than colours."""
    x = LAST[..., :3] / LAST[..., :3].sum(2, keepdims=True)
    for image in (x, FLOATS, LAST, np.eye(3, dtype=np.float32)[LABELS % 3]):
        assert refine(factor * x, image, kind=kind).shape == x.shape
    assert refine(np.log(x), x, kind="logits").shape == x.shape
    assert refine(4 * x, x, kind="logits").shape == x.shape
    bands = LAST - 0.5
    assert refine(4 * x, bands, kind="logits", image_range=(-1, 1)).shape == x.shape


def test_narrow_label_maps_are_no_picture():
    """Eight-bit labels (N, H, 3) and a float image that has their size."""
    labels = RNG.integers(0, 3, (6, 9, 3), dtype=np.uint8)
    image = RNG.random((9, 3, 9)).astype(np.float32)
    assert refine(labels, image, kind="labels").shape == labels.shape


def test_low_images_with_many_channels_are_not_channels_first():
    """Five rows, 32 columns and 20 bands that no term looks at."""
    image = giant((5, W, 20), 7, np.uint8)
    probs = RNG.dirichlet(np.ones(C), (5, W)).astype(np.float32)
    assert refine(probs, image, bilateral=None).shape == probs.shape
