# SPDX-License-Identifier: MIT
"""MONAI's dictionary transform: spacing from the affine, meta data kept; and its CRF block."""

import pickle

import numpy as np
import pytest

import crfseg
from scene import framework, photograph, shares, truth
from snippets import DOCUMENTS, blocks

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")
monai = framework("monai")

from monai.data import MetaTensor  # noqa: E402 - needs monai
from monai.transforms import AsDiscreted, Compose  # noqa: E402 - needs monai

from crfseg.adapters.monai import CRFRefined  # noqa: E402 - needs monai

pytestmark = pytest.mark.filterwarnings("ignore")

SPACING = (3.0, 1.0, 0.5)  # of the array's axes
SHARP = {"spatial": (1, 1), "bilateral": (3, 20, 6), "image_range": (0, 255)}


@pytest.fixture
def labels():
    """(D, H, W): a box in nothing."""
    labels = np.zeros((6, 14, 20), np.int64)
    labels[1:4, 3:11, 5:16] = 1
    return labels


@pytest.fixture
def volume(labels, rng):
    """(1, D, H, W) float32 levels."""
    return (60 + 120 * labels + rng.integers(-8, 9, labels.shape)).astype(np.float32)[None]


@pytest.fixture
def probs(labels, rng):
    """(2, D, H, W) with every fifth voxel in doubt or wrong."""
    foreground = np.where(rng.random(labels.shape) < 0.2, 0.45, 0.2 + 0.6 * labels)
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def affine():
    """Axes in another order than the world's, and turned."""
    turned = np.diag([*SPACING, 1.0])[[1, 0, 2, 3]]
    turned[:3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ turned[:3]
    turned[:3, 3] = (-20, 5, 9)
    return torch.from_numpy(turned)


def with_affine(values, name="scan.nii.gz"):
    return MetaTensor(torch.from_numpy(values), affine=affine(), meta={"filename_or_obj": name})


def test_spacing_comes_from_the_affine_of_the_image(labels, volume, probs):
    sample = {"pred": torch.from_numpy(probs), "image": with_affine(volume), "other": 3}
    refined = CRFRefined("pred", "image", **SHARP)(sample)
    expected = crfseg.refine(probs, volume[0], spacing=SPACING, **SHARP)
    np.testing.assert_array_equal(refined["pred"], expected)
    without = crfseg.refine(probs, volume[0], **SHARP)
    assert np.abs(without - expected).max() > 1e-3
    np.testing.assert_array_equal(expected.argmax(0), labels)
    assert refined["image"] is sample["image"]
    assert refined["other"] == 3
    np.testing.assert_array_equal(sample["pred"], probs)  # the caller's is another


def test_the_prediction_s_affine_serves_where_the_image_has_none(volume, probs):
    first = CRFRefined("pred", "image", **SHARP)({"pred": with_affine(probs), "image": volume})
    second = crfseg.refine(probs, volume[0], spacing=SPACING, **SHARP)
    np.testing.assert_array_equal(first["pred"], second)


def test_a_spacing_that_is_given_goes_first(volume, probs):
    transform = CRFRefined("pred", "image", spacing=1, **SHARP)
    refined = transform({"pred": with_affine(probs), "image": with_affine(volume)})
    np.testing.assert_array_equal(refined["pred"], crfseg.refine(probs, volume[0], **SHARP))


def test_meta_data_stay(volume, probs):
    sample = {"pred": with_affine(probs, "pred.nii.gz"), "image": with_affine(volume)}
    found = CRFRefined("pred", "image", **SHARP)(sample)["pred"]
    assert isinstance(found, MetaTensor)
    assert found.meta["filename_or_obj"] == "pred.nii.gz"
    torch.testing.assert_close(found.affine, affine())


def test_arrays_stay_arrays(volume, probs):
    found = CRFRefined("pred", "image", **SHARP)({"pred": probs, "image": volume})["pred"]
    assert type(found) is np.ndarray
    assert found.dtype == np.float32


def test_labels_as_argmax_leaves_them(labels, volume, probs):
    chain = Compose(
        [AsDiscreted("pred", argmax=True), CRFRefined("pred", "image", kind="labels", **SHARP)]
    )
    found = chain({"pred": with_affine(probs), "image": with_affine(volume)})["pred"]
    assert found.shape == volume.shape
    assert found.is_floating_point()  # as AsDiscreted's
    np.testing.assert_array_equal(found[0], labels)
    with pytest.raises(ValueError, match="labels are not whole numbers"):
        CRFRefined("pred", "image", kind="labels", **SHARP)({"pred": probs, "image": volume})


def test_labels_masks_and_logits(labels, volume, probs):
    sample = {"logits": np.log(probs), "mask": probs[1:], "image": volume}
    found = CRFRefined("logits", "image", kind="logits", returns="labels", **SHARP)(sample)
    assert found["logits"].shape == volume.shape  # with a channel, as everything there
    np.testing.assert_array_equal(found["logits"][0], labels)
    found = CRFRefined("mask", "image", kind="mask", **SHARP)(sample)["mask"]
    assert found.shape == volume.shape
    np.testing.assert_array_equal(found[0] > 0.5, labels)


def test_slices_with_the_affine_of_their_volume(volume, probs):
    sample = {"pred": probs[:, 2], "image": MetaTensor(volume[:, 2], affine=affine())}
    found = CRFRefined("pred", "image", **SHARP)(sample)["pred"]
    expected = crfseg.refine(probs[:, 2], volume[0, 2], spacing=SPACING[:2], **SHARP)
    np.testing.assert_array_equal(found, expected)


def test_several_keys_and_missing_ones(volume, probs):
    sample = {"a": probs, "b": probs[:, ::-1].copy(), "image": volume}
    found = CRFRefined(["a", "b"], "image", **SHARP)(sample)
    assert np.abs(found["a"] - found["b"]).max() > 0.02
    with pytest.raises(KeyError):
        CRFRefined(["a", "c"], "image", **SHARP)(sample)
    lenient = CRFRefined(["a", "c"], "image", allow_missing_keys=True, **SHARP)(sample)
    np.testing.assert_array_equal(lenient["a"], found["a"])


def test_it_can_be_sent_to_workers(volume, probs):
    transform = pickle.loads(pickle.dumps(CRFRefined("pred", "image", kind="probs", **SHARP)))
    assert transform({"pred": probs, "image": volume})["pred"].shape == probs.shape


def test_wrong_arguments_are_refused(volume, probs):
    with pytest.raises(ValueError, match="kind is 'soft'; expected 'probs'"):
        CRFRefined("pred", "image", kind="soft")
    with pytest.raises(ValueError, match="expected 0 to 1 for a float image"):
        CRFRefined("pred", "image")({"pred": probs, "image": volume})


def test_the_recipe(volume, probs):
    (block,) = (one for one in blocks(DOCUMENTS / "frameworks.md") if "CRFRefined(" in one)
    names = {"pred": with_affine(probs), "image": with_affine(8 * volume - 1000)}
    exec(compile(block, "frameworks.md", "exec"), names)
    assert names["sample"]["pred"].shape == probs.shape


class ExactFilter:
    """In the place of MONAI's compiled one: Gaussian sums over all pairs, divided afterwards."""

    @staticmethod
    def apply(values, features):
        flat = features[0].flatten(1).T.double()
        kernel = torch.exp(-(torch.cdist(flat, flat) ** 2) / 2)
        sums = values[0].flatten(1).double() @ kernel / kernel.sum(1)
        return sums.reshape(values.shape).to(values.dtype)


def test_the_crf_block_migrates_as_the_page_says(monkeypatch):
    """Its own loop, over exact sums, against the lines of docs/migrating.md."""
    from monai.networks.blocks import crf

    monkeypatch.setattr(crf, "PHLFilter", ExactFilter)
    labels = truth(24, 32)
    photo = photograph(labels)
    probs = (0.7 * shares(labels) + 0.1).repeat(4, 1).repeat(4, 2)
    image = torch.from_numpy(photo / 255).permute(2, 0, 1)[None].float()
    block = crf.CRF(gaussian_weight=0.7, bilateral_weight=1.2, bilateral_color_sigma=0.1)
    theirs = block(torch.from_numpy(np.log(probs))[None], image)[0].numpy()
    (lines,) = (one for one in blocks(DOCUMENTS / "migrating.md") if "monai_like" in one)
    for old, new in (
        ("spatial=(5, factor * 1.0)", "spatial=(5, factor * 0.7)"),
        ("(5, 0.5 * 255, factor * 1.0)", "(5, 0.1 * 255, factor * 1.2)"),
        ("refine(", "crfseg.refine("),
        ("iterations=iterations", "iterations=iterations, accuracy='fine'"),
    ):
        assert old in lines
        lines = lines.replace(old, new)
    names = {"np": np, "crfseg": crfseg, "probs": probs, "photo": photo}
    exec(compile(lines, "migrating.md", "exec"), names)
    mine = names["monai_like"]
    assert np.abs(theirs - probs).max() > 0.3
    assert np.abs(theirs - mine).mean() < 0.01
    assert (theirs.argmax(0) == mine.argmax(0)).mean() > 0.99
