# SPDX-License-Identifier: MIT
"""What published programs do wrong around a CRF: here it is impossible, or an error says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crfseg
from crfseg import refine
from reference import softmax
from small import C, H, W

CAFFE = np.array([104.008, 116.669, 122.675])


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32])
def test_a_mean_subtracted_images_are_refused(dtype, probs, image):
    """Cast to uint8, as CLIP-ES does, they wrap; nothing asks for that cast here."""
    subtracted = (image - CAFFE).astype(dtype)
    with pytest.raises((TypeError, ValueError), match=r"^\[refine\] image .*image_range="):
        refine(probs, subtracted)


def test_a_the_mean_is_added_again_instead(probs, image, refined):
    found = refine(probs, (image - CAFFE).astype(np.float32), mean=CAFFE)
    np.testing.assert_allclose(found, refined, atol=2e-3)
    wrapped = (image - CAFFE).astype(np.int16).astype(np.uint8)
    assert np.abs(refine(probs, wrapped) - refined).max() > 0.2
    with pytest.raises(
        TypeError, match=r"^\[refine\] image has dtype uint8; expected floats, norm"
    ):
        refine(probs, wrapped, mean=CAFFE)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_b_width_and_height_cannot_change_places(axes, probs, image):
    """Nobody says them; scores that lie across the image are refused, labels too."""
    turned = probs.transpose(axes)
    if turned.shape[:2] == (H, W):  # the label axis is last, and known to be
        np.testing.assert_array_equal(refine(turned, image), refine(probs, image).transpose(axes))
        return
    with pytest.raises(ValueError, match=r"^\[refine\] x has shape"):
        refine(turned, image)
    with pytest.raises(ValueError, match=r"^\[refine\] x has shape \(14, 9\)"):
        refine(probs.argmax(0).T, image)


@pytest.mark.parametrize("kind", ["probs", "scores"])
def test_c_probabilities_of_0_are_no_infinite_energies(kind, probs, image):
    probs[1] = 0
    probs[:, 2, 3] = np.eye(C)[0]
    probs /= probs.sum(0)
    found = refine(probs, image, kind=kind)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, refine(probs.clip(1e-5), image, kind=kind))
    one_hot = np.eye(C)[probs.argmax(0)].transpose(2, 0, 1)
    assert np.isfinite(refine(one_hot, image, kind=kind)).all()


def test_d_logarithms_of_probabilities_are_not_taken_for_them(probs, image):
    log_probs = np.log(probs.clip(1e-9) / probs.clip(1e-9).sum(0))
    for kind in ("auto", "probs"):
        with pytest.raises(
            ValueError, match=r"^\[refine\] x holds log-probabilities .*kind='logits'"
        ):
            refine(log_probs, image, kind=kind)
    with pytest.raises(ValueError, match=r"^\[refine\] x has -.* expected scores of at least 0"):
        refine(log_probs, image, kind="scores")
    found = refine(log_probs, image, kind="logits", returns="probs")
    np.testing.assert_allclose(found, refine(probs, image), atol=5e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("options", [{}, {"keep_thin": 0}, {"layout": "CHW", "upsample": False}])
def test_e_no_second_softmax(dtype, options, probs, image):
    with pytest.raises(ValueError, match=r"^\[refine\] x holds probabilities .*kind='probs'"):
        refine(probs.astype(dtype), image, kind="logits", **options)
    batch = np.stack([np.log(probs), probs]).astype(dtype)
    with pytest.raises(ValueError, match=r"^\[refine\] x\[1\] holds probabilities"):
        refine(batch, image, kind="logits", keep_thin=options.get("keep_thin", "auto"))


def test_e_nor_of_coarse_ones_and_of_masks(probs, image):
    coarse = probs[:, :3, :7] / probs[:, :3, :7].sum(0)
    with pytest.raises(ValueError, match=r"^\[refine\] x holds probabilities"):
        refine(coarse, image, kind="logits", layout="CHW", upsample="half-pixel")
    mask = (probs[0] > 0.4).astype(np.float32)
    with pytest.raises(ValueError, match=r"kind='mask' with confidence="):
        refine(np.stack([1 - mask, mask]), image, kind="logits")
    trusted = softmax(np.stack([1 - mask, mask]))[1]
    found = refine(mask.astype(bool), image, preset="cutler")
    np.testing.assert_array_equal(found, refine(trusted, image, kind="mask", preset="cutler") > 0.5)


@pytest.mark.parametrize(
    "of",
    [
        lambda i: i.astype(np.uint16) * 257,
        np.asfortranarray,
        lambda i: np.ascontiguousarray(i[::-1])[::-1],
        lambda i: np.concatenate([i, i[..., :1]], -1)[..., :3],
        lambda i: (i / 255).astype(np.float32),
        lambda i: i / 255,
    ],
)
def test_f_images_of_any_dtype_and_strides_are_the_same(of, probs, image, refined):
    np.testing.assert_allclose(refine(probs, of(image)), refined, atol=2e-3)


def test_f_every_channel_counts_and_transparency_is_asked_about(probs, image, refined):
    four = np.concatenate([image, image[::-1, :, :1]], -1)
    assert np.abs(refine(probs, four) - refined).max() > 0.01
    with pytest.raises(TypeError, match="expected"):
        refine(probs, image.astype(np.int64))
    pictures = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match="RGBA"):
        refine(probs, pictures.fromarray(four))


def test_g_without_the_native_module_there_is_no_crfseg(tmp_path):
    """Not a function that hands its input back."""
    package = Path(crfseg.__file__).parent
    names = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "torch")
    shutil.copytree(package, tmp_path / "crfseg", ignore=names)
    command = [sys.executable, "-S", "-c", "import sys; sys.path[:0] = sys.argv[1:]; import crfseg"]
    paths = [str(tmp_path), str(Path(np.__file__).parent.parent)]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "crfseg cannot load its native module" in done.stderr


def test_h_the_order_of_colours_is_no_matter_or_said(probs, image, refined):
    """One sigma for all colours: the kernel is the same. One for each: bgr=True."""
    swapped = np.ascontiguousarray(image[..., ::-1])
    assert (refine(probs, swapped).argmax(0) == refined.argmax(0)).mean() > 0.9
    np.testing.assert_array_equal(refine(probs, swapped, bgr=True), refined)
