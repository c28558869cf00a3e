# SPDX-License-Identifier: MIT
"""What refine() takes and gives back: containers, dtypes, strides, layouts, batches."""

import numpy as np
import pytest

from crfseg import Bilateral, refine
from crfseg._containers import float16
from small import C, H, W

# --- containers -----------------------------------------------------------------------------------


class WithArray:
    """Something that numpy can be asked to view."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype, copy=copy)


class WithDlpack:
    """Something that knows DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [WithArray, WithDlpack, np.ndarray.tolist])
def test_other_containers_come_back_as_numpy(probs, image, refined, wrap):
    result = refine(wrap(probs), image)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, refined)
    shown = WithArray(image) if wrap is np.ndarray.tolist else wrap(image)
    np.testing.assert_array_equal(refine(probs, shown), refined)


def test_subclasses_of_arrays_come_back_as_plain_arrays(probs, image, refined, tmp_path):
    mapped = np.memmap(tmp_path / "probs", np.float32, "w+", shape=probs.shape)
    mapped[...] = probs
    result = refine(mapped, image)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, refined)


def test_pillow_images_are_images_and_label_maps(probs, image, refined):
    pillow = pytest.importorskip("PIL.Image")
    np.testing.assert_array_equal(refine(probs, pillow.fromarray(image)), refined)
    grey = pillow.fromarray(image).convert("L")
    np.testing.assert_array_equal(refine(probs, grey), refine(probs, np.asarray(grey)))
    labels = probs.argmax(0).astype(np.uint8)
    palette = pillow.fromarray(labels)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    np.testing.assert_array_equal(refine(palette, image), refine(labels, image))


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "P", "PA", "1", "HSV", "CMYK"])
@pytest.mark.parametrize("as_list", [False, True])
def test_pillow_images_with_other_channels_than_colours_are_refused(probs, image, mode, as_list):
    pillow = pytest.importorskip("PIL.Image")
    picture = pillow.fromarray(image)
    if mode == "RGBa":
        picture = picture.convert("RGBA")
    picture = picture.convert(mode)
    name = r"image\[0\]" if as_list else "image"
    wanted = "'L'" if mode in ("LA", "1") else "'RGB'"
    said = rf"\[refine\] {name} is a Pillow picture of mode '{mode}'.*; expected "
    with pytest.raises(ValueError, match=rf"^{said}{name}\.convert\({wanted}\)$"):
        refine(probs, [picture] if as_list else picture)
    with pytest.raises(ValueError, match=r"Bilateral image is a .* expected image\.convert"):
        refine(probs, image, pairwise=[Bilateral(picture)])


def test_arrays_of_four_channels_are_multispectral_images(probs, image):
    """Nothing says that the fourth is no colour."""
    four = np.dstack([image, image[..., :1] // 2])
    assert np.abs(refine(probs, four) - refine(probs, image)).max() > 0.01


def test_torch_tensors_come_back_as_tensors(probs, image, refined):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(probs)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        result = refine(tensor.to(dtype), torch.from_numpy(image))
        assert result.dtype == dtype
        expected = refine(tensor.to(dtype).float().numpy(), image)
        np.testing.assert_allclose(result.double().numpy(), expected, rtol=0, atol=4e-3)
    channels_last = tensor[None].to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(refine(channels_last, image)[0].numpy(), refined)
    with torch.no_grad():
        learned = refine(tensor.clone().requires_grad_(), image)
    assert not learned.requires_grad
    np.testing.assert_array_equal(learned.numpy(), refined)


def test_torch_labels_and_masks_come_back_as_tensors(probs, image):
    torch = pytest.importorskip("torch")
    labels = torch.from_numpy(probs).argmax(0)
    result = refine(labels, image)
    assert result.dtype == torch.int64
    np.testing.assert_array_equal(result.numpy(), refine(labels.numpy(), image))
    mask = refine(labels == 1, image)
    assert mask.dtype == torch.bool
    found = refine(torch.from_numpy(probs).bfloat16(), image, returns="labels")
    assert found.dtype == torch.uint8


def test_torch_tensors_elsewhere_are_named(image):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"\[refine\] x is on device meta"):
        refine(torch.ones(C, H, W, device="meta"), image)
    with pytest.raises(TypeError, match=r"\[refine\] x has dtype torch.float32 .*sparse"):
        refine(torch.ones(C, H, W).to_sparse(), image)


# --- dtypes and strides ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", np.longdouble])
@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_float_dtypes_come_back(probs, image, dtype, kind):
    given = (probs if kind == "probs" else np.log(probs + 0.01)).astype(dtype)
    result = refine(given, image, kind=kind)
    assert result.dtype == given.dtype
    expected = refine(given.astype(np.float32), image, kind=kind)
    tolerance = {"atol": 1e-3} if given.dtype.itemsize == 2 else {"atol": 0}
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=1e-3, **tolerance)


def test_half_precision_results_are_rounded_as_numpy_rounds(rng):
    """Every subnormal, halves of steps, both signs, the edges of the range."""
    steps = np.arange(0, 1100, 0.25) * 2.0**-24
    edges = [2.0**-14, 2.0**-14 * (1 - 2.0**-12), 65504, 1, 1 / 3, 1e-38, 87.3]
    values = np.concatenate([steps, edges, rng.normal(scale=1e-4, size=500)]).astype(np.float32)
    values = np.concatenate([values, -values])
    found = float16(values)
    np.testing.assert_array_equal(found.view(np.uint16), values.astype(np.float16).view(np.uint16))


STRIDES = {
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "Fortran order": np.asfortranarray,
    "every second": lambda a: np.repeat(np.repeat(a, 2, -1), 2, -2)[..., ::2, ::2],
    "flipped": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "first axis flipped": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "axes moved": lambda a: np.ascontiguousarray(a.transpose(2, 1, 0)).transpose(2, 1, 0),
    "part of more": lambda a: np.pad(a, 3)[3:-3, 3:-3, 3:-3],
    "unaligned": lambda a: np.frombuffer(b"?" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("strides", STRIDES)
def test_strides_do_not_matter(probs, image, refined, strides):
    view = STRIDES[strides]
    x, photo = view(probs), view(image)
    before = x.copy(), photo.copy()
    np.testing.assert_array_equal(refine(x, photo), refined)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(photo, before[1])


def test_broadcast_views_are_fine(image):
    uniform = np.broadcast_to(np.float32(0.25), (C, H, W))
    np.testing.assert_allclose(refine(uniform, image), 0.25, atol=1e-6)


def test_colour_order_hardly_matters(probs, image, refined):
    """BGR, as a flipped view, is the same kernel on a lattice whose axes are swapped."""
    swapped = refine(probs, image[..., ::-1])
    assert (swapped.argmax(0) == refined.argmax(0)).mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (2, 2)])
@pytest.mark.parametrize("n_labels", [1, 2, 5])
def test_the_smallest_problems_have_answers(rng, shape, n_labels):
    probs = rng.dirichlet(np.ones(n_labels), shape).transpose(2, 0, 1).astype(np.float32)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = refine(probs, image, layout="CHW")
    np.testing.assert_allclose(result.sum(0), 1, atol=1e-6)
    labels = refine(probs.argmax(0), image, n_labels=n_labels)
    assert labels.max() < n_labels


# --- layouts and batches --------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["CHW", "HWC", "NCHW", "NHWC"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_come_back(probs, image, refined, layout, named, dtype):
    axes = [("NCHW" if "N" in layout else "CHW").index(axis) for axis in layout]

    def arrange(array):
        batch = array[np.newaxis] if "N" in layout else array
        return np.ascontiguousarray(batch.transpose(axes))

    given = arrange(probs).astype(dtype)
    result = refine(given, image, layout=layout if named else None)
    np.testing.assert_array_equal(result, arrange(refined))
    assert result.flags.c_contiguous
    labels = refine(given, image, layout=layout if named else None, returns="labels")
    np.testing.assert_array_equal(labels.reshape(H, W), refined.argmax(0))
    assert labels.ndim == given.ndim - 1


def test_a_layout_that_fits_exactly_wins_over_one_that_would_be_stretched(rng):
    """(2, 4, 8) for an image of 4 x 8 is 2 labels, though 2 x 4 times 2 would be 4 x 8 as well."""
    probs = rng.dirichlet(np.ones(2), (4, 8)).transpose(2, 0, 1)
    image = rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(refine(probs, image), refine(probs, image, layout="CHW"))


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("returns", ["same", "labels"])
def test_batches_are_their_items(rng, as_list, returns):
    probs = rng.dirichlet(np.ones(C), (3, H, W)).transpose(0, 3, 1, 2)
    images = rng.integers(0, 256, (3, H, W, 3), dtype=np.uint8)
    together = refine(probs, list(images) if as_list else images, returns=returns)
    for item, x, image in zip(together, probs, images, strict=True):
        np.testing.assert_array_equal(item, refine(x, image, returns=returns))


def test_one_image_serves_a_batch(rng, image):
    probs = rng.dirichlet(np.ones(C), (3, H, W)).transpose(0, 3, 1, 2)
    for item, x in zip(refine(probs, image), probs, strict=True):
        np.testing.assert_array_equal(item, refine(x, image))
    np.testing.assert_array_equal(refine(probs, image[None]), refine(probs, image))


def test_batches_of_labels_and_masks_are_their_items(rng):
    images = rng.integers(0, 256, (3, H, W, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, (3, H, W))
    for x in (labels, labels == 1):
        together = refine(x, images, n_labels=None)
        for item, one, image in zip(together, x, images, strict=True):
            np.testing.assert_array_equal(item, refine(one, image))


@pytest.mark.parametrize(
    ("x", "images", "options", "shape"),
    [
        (np.empty((0, C, H, W), np.float32), np.empty((0, H, W, 3), np.uint8), {}, (0, C, H, W)),
        (np.empty((0, H, W, C)), np.empty((H, W, 3), np.uint8), {}, (0, H, W, C)),
        (np.empty((0, C, H, W)), [], {"layout": "NCHW"}, (0, C, H, W)),
        (np.empty((0, C, 2, 3)), np.empty((0, 8, 12, 3)), {}, (0, C, 8, 12)),
        (np.empty((0, C, H, W)), np.empty((H, W, 3)), {"returns": "labels"}, (0, H, W)),
        (np.empty((0, H, W), np.int64), [], {}, (0, H, W)),
        (np.empty((0, H, W), bool), np.empty((0, H, W, 3)), {}, (0, H, W)),
    ],
)
def test_an_empty_batch_comes_back_empty(x, images, options, shape):
    result = refine(x, images, **options)
    assert result.shape == shape
    if "returns" not in options:
        assert result.dtype == x.dtype
