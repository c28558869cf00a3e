# SPDX-License-Identifier: MIT
"""Bad input about volumes: an exception that names the argument, what was found and expected."""

import numpy as np
import pytest

from bad_input import assert_named, case, giant
from crfseg import Bilateral, DenseCRF, Gaussian, refine

C, D, H, W, K = 3, 4, 6, 5, 2
RNG = np.random.default_rng(3)
PROBS = np.moveaxis(RNG.dirichlet(np.ones(C), (D, H, W)), -1, 0).astype(np.float32)
LOGITS = np.log(PROBS)
VOLUME = RNG.integers(0, 256, (D, H, W, K), dtype=np.uint8)
LABELS = PROBS.argmax(0)
NAN = float("nan")


def spaced(spacing):
    return lambda: refine(PROBS, VOLUME, spacing=spacing)


SPACING = [
    case("two of three", spaced((1.0, 2.0)), ValueError,
         "[refine] spacing has 2 entries; expected one number, or 3, one per spatial axis"),
    case("four", spaced((1, 1, 1, 1)), ValueError, "[refine] spacing has 4 entries"),
    case("none", spaced(()), ValueError, "[refine] spacing is empty"),
    case("zero", spaced((1.0, 0.0, 1.0)), ValueError,
         "[refine] spacing[1] is 0; expected a positive finite number"),
    case("negative", spaced((-1.0, 1.0, 1.0)), ValueError, "[refine] spacing[0] is -1;"),
    case("nan", spaced((1.0, 1.0, NAN)), ValueError, "[refine] spacing[2] is nan;"),
    case("infinite", spaced(float("inf")), ValueError, "[refine] spacing is inf;"),
    case("words", spaced("1mm"), TypeError, "[refine] spacing is '1mm' (str)"),
    case("flag", spaced(True), TypeError, "[refine] spacing is True (bool)"),
    case("without positions", lambda: refine(PROBS, VOLUME, pairwise=[], spacing=(1.0, 2.0)),
         ValueError, "[refine] spacing has 2 entries"),
    case("of an image", lambda: refine(PROBS[:, 0], VOLUME[0], spacing=(1, 1, 1)), ValueError,
         "[refine] spacing has 3 entries; expected one number, or 2, one per spatial axis"),
    case("of a term", lambda: DenseCRF(LOGITS, [Gaussian(3.0, spacing=(1, 1))]), ValueError,
         "[DenseCRF] spacing has 2 entries; expected one number, or 3"),
    case("of a term, zero", lambda: Bilateral(VOLUME, spacing=0), ValueError,
         "[Bilateral] spacing is 0; expected a positive finite number"),
    case("far too coarse", lambda: refine(PROBS, VOLUME, spacing=(1e9, 1, 1)), ValueError,
         "Gaussian sigma_xy / spacing = 1e-09 is too small: along z features reach"),
]  # fmt: skip

CHANNELS = [
    case("sigmas", lambda: refine(PROBS, VOLUME, bilateral=(4, (1, 2, 3), 5)), ValueError,
         "[refine] Bilateral sigma_rgb has 3 entries; expected one number, or 2, one per channel"),
    case("sigma of a channel", lambda: refine(PROBS, VOLUME, bilateral=(4, (1, -2), 5)), ValueError,
         "[refine] bilateral sigma_rgb[1] is -2; expected a positive finite number"),
    case("spatial sigmas", lambda: refine(PROBS, VOLUME, spatial=((1, 2), 5)), ValueError,
         "[refine] Gaussian sigma_xy has 2 entries; expected one number, or 3, one per spatial"),
    case("ranges", lambda: refine(PROBS, VOLUME, image_range=[(0, 255)] * 3), ValueError,
         "[refine] image_range has 3 pairs but image has 2 channels; expected one (lo, hi), or 2"),
    case("a range", lambda: refine(PROBS, VOLUME, image_range=[(0, 255), (9, 9)]), ValueError,
         "[refine] image_range[1] is (9.0, 9.0); expected lo below hi"),
    case("a range of three", lambda: refine(PROBS, VOLUME, image_range=[(0, 255), (1, 2, 3)]),
         ValueError, "[refine] image_range[1] has 3 entries; expected (lo, hi)"),
    case("outside one", lambda: refine(PROBS, VOLUME, image_range=[(0, 255), (0, 9)]), ValueError,
         "[refine] image channel 1 ranges from", "expected values within image_range=(0.0, 9.0)"),
    case("floats of any range", lambda: refine(PROBS, 40.0 * VOLUME - 1000), ValueError,
         "[refine] image ranges from", "image_range=(lo, hi)"),
    case("integers of any range", lambda: refine(PROBS, VOLUME.astype(np.int16)), TypeError,
         "[refine] image has dtype int16", "image_range=(lo, hi)"),
    case("too many", lambda: refine(PROBS, giant((D, H, W, 14)), layout="CDHW"), ValueError,
         "[refine] x has shape (3, 4, 6, 5) and image has shape (4, 6, 5, 14)"),
]  # fmt: skip

SIZES = [
    case("another depth", lambda: refine(giant((3, 20, 30, 40)), giant((21, 30, 40))), ValueError,
         "[refine] x has shape (3, 20, 30, 40) and image has shape (21, 30, 40); expected x "
         "(C, D, H, W), (D, H, W, C)",
         "of the same D, H and W, K <= 13 (volumes are not upsampled)"),
    case("slices of another depth", lambda: refine(PROBS, VOLUME[1:, ..., 0], spacing=(5, 1, 1)),
         ValueError, "[refine] x has shape (3, 4, 6, 5) and image has shape (3, 6, 5); expected x",
         "of the same D, H and W, K <= 13 (volumes are not upsampled)"),
    case("few slices of another depth", lambda: refine(PROBS, giant((6, 6, 5), 7, np.uint8)),
         ValueError, "looks channels-first", "here (6, 5, 6), or layout='CDHW' for a volume"),
    case("x, y, z", lambda: refine(PROBS, giant((5, 6, 4)), spacing=(5, 1, 1)), ValueError,
         "and image has shape (5, 6, 4); expected x (C, D, H, W)"),
    case("another depth, said", lambda: refine(PROBS, VOLUME[1:], layout="CDHW"), ValueError,
         "[refine] x has shape (3, 4, 6, 5) and image has shape (3, 6, 5, 2); expected x "
         "(C, D, H, W), and an image"),
    case("labels of another depth", lambda: refine(LABELS, VOLUME[1:], layout="DHW"), ValueError,
         "[refine] x has shape (4, 6, 5) and image has shape (3, 6, 5, 2); expected x (D, H, W)"),
    case("a batch", lambda: refine(PROBS[None], VOLUME[:, 1:]), ValueError,
         "[refine] x has shape (1, 3, 4, 6, 5) and image has shape (4, 5, 5, 2)"),
    case("a list of others", lambda: refine(np.stack([PROBS] * 2), [VOLUME, VOLUME[1:]]),
         ValueError, "[refine] image[1] has shape (3, 6, 5, 2); expected (4, 6, 5, 2), like image"),
    case("too few", lambda: refine(np.stack([PROBS] * 3), [VOLUME] * 2), ValueError,
         "[refine] x has 3 items but image has 2; expected 3 images"),
    case("no image", lambda: refine(PROBS, None, layout="CDHW"), ValueError,
         "[refine] image is None but the Bilateral term needs one"),
    case("no slices", lambda: refine(PROBS[:, :0], VOLUME[:0], layout="CDHW"), ValueError,
         "[refine] image is empty (shape (0, 6, 5, 2))"),
    case("upsampling", lambda: refine(PROBS, VOLUME, upsample="half-pixel"), ValueError,
         "[refine] upsample is 'half-pixel' but x is a volume"),
    case("thin structures", lambda: refine(PROBS, VOLUME, keep_thin=5), ValueError,
         "[refine] keep_thin is 5 but x is a volume"),
]  # fmt: skip

CUBE = giant((4, 4, 4, 4), 7, np.uint8)
PHOTOS_OR_SLICES = giant((4, 6, 5, 2), 7, np.uint8)
LAYOUTS = [
    case("unknown", lambda: refine(PROBS, VOLUME, image_layout="DHWC"), ValueError,
         "[refine] image_layout is 'DHWC'; expected None, 'HW', 'HWK', 'KHW'"),
    case("unknown of x", lambda: refine(PROBS, VOLUME, layout="CHWD"), ValueError,
         "[refine] layout is 'CHWD'; expected None, 'CHW'"),
    case("contrary", lambda: refine(PROBS, VOLUME, layout="NCHW", image_layout="DHWK"), ValueError,
         "[refine] layout is 'NCHW' and image_layout is 'DHWK'; expected both with D, for volumes"),
    case("other axes", lambda: refine(PROBS, VOLUME, layout="NCDHW"), ValueError,
         "[refine] x has shape (3, 4, 6, 5) and image has shape (4, 6, 5, 2); expected x "
         "(N, C, D, H, W)"),
    case("image's other axes", lambda: refine(PROBS, VOLUME, image_layout="DHW"), ValueError,
         "[refine] x has shape (3, 4, 6, 5) and image has shape (4, 6, 5, 2)"),
    case("photograph's other axes", lambda: refine(PROBS[:, 0], VOLUME[0], image_layout="NHWK"),
         ValueError, "[refine] image has shape (6, 5, 2); expected (N, H, W, K), as image_layout"),
    case("both ends", lambda: refine(giant((4, 4, 4, 4)), CUBE[..., :2], layout=None), ValueError,
         "expected layout='CDHW' or 'NCHW'"),
    case("labels first or last", lambda: refine(giant((4, 4, 4, 4)), CUBE[..., :2],
                                                image_layout="DHWK"), ValueError,
         "[refine] x has shape (4, 4, 4, 4), which fits more than one layout; expected "
         "layout='CDHW' or 'DHWC'"),
    case("labels of slices or of images", lambda: refine(LABELS, PHOTOS_OR_SLICES), ValueError,
         "[refine] x has shape (4, 6, 5) and image has shape (4, 6, 5, 2), like a volume and like "
         "a batch of images; expected layout='DHW' or 'NHW'"),
    case("slices of labels last", lambda: refine(np.moveaxis(PROBS, 0, -1), PHOTOS_OR_SLICES),
         ValueError, "expected layout='DHWC' or 'NHWC'"),
    case("labels on grey slices", lambda: refine(giant((4, 6, 15), 1, int), giant((4, 6, 15))),
         ValueError, "expected shape (4, 6, 15, 1): image[..., None], or layout='DHW' for a vol"),
    case("grey volumes or channels", lambda: refine(np.stack([PROBS] * 2), giant((2, D, H, W))),
         ValueError, "[refine] image has shape (2, 4, 6, 5), which fits more than one layout; "
         "expected image_layout='KDHW' or 'NDHW'"),
    case("no image to decide", lambda: refine(giant((2, 3, 4, 5, 6)), None, bilateral=None),
         ValueError, "expected layout='NCDHW' or 'NDHWC'"),
]  # fmt: skip


def spoilt(index, value):
    changed = PROBS.copy()
    changed[index] = value
    return changed


VALUES = [
    case("nan", lambda: refine(spoilt((1, 2, 3, 4), NAN), VOLUME), ValueError,
         "[refine] x has nan at label 1, slice 2, row 3, column 4"),
    case("sum", lambda: refine(spoilt((1, 2, 3, 4), 7.0), VOLUME), ValueError,
         "[refine] x sums to", "over the labels at slice 2, row 3, column 4", "kind='logits'"),
    case("grey as labels", lambda: refine(np.arange(8**3, dtype=np.uint8).reshape(8, 8, 8),
                                          giant((8, 8, 8, 2), 7, np.uint8), layout="DHW"),
         ValueError, "[refine] x has 256 different values, like a grey picture"),
    case("one-hot", lambda: refine(np.eye(3, dtype=int)[LABELS].transpose(3, 0, 1, 2), VOLUME,
                                   layout="NDHW"), ValueError, "looks one-hot"),
    case("image", lambda: refine(PROBS, np.where(np.arange(2) == 1, NAN, VOLUME / 255)), ValueError,
         "[refine] image has nan at slice 0, row 0, column 0, channel 1"),
]  # fmt: skip

LONG = 10**4
MEMORY = [
    case("probabilities", lambda: refine(giant((4, LONG, LONG, LONG)), giant((LONG,) * 3)),
         MemoryError, "[refine] x of shape (4, 10000, 10000, 10000) with 4 labels and 2 kernels "
         "needs about", "GiB"),
    case("labels", lambda: refine(giant((LONG,) * 3, 1, np.int64), giant((LONG,) * 3), layout="DHW",
                                  n_labels=3), MemoryError, "[refine] x of shape"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "fragments"),
    [*SPACING, *CHANNELS, *SIZES, *LAYOUTS, *VALUES, *MEMORY],
)
def test_bad_input_is_named(call, error, fragments):
    assert_named(call, error, fragments)
