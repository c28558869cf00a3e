# SPDX-License-Identifier: MIT
"""mmsegmentation's data samples: recorded, and its own where it is installed."""

import numpy as np
import pytest

from crfseg.adapters.mmseg import refine
from scene import SHARP, framework, full_logits, shares

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")


class PixelData:
    """What is used of mmengine 0.10's: its ``data`` are (channels, H, W), all of one size."""

    def __init__(self, data):
        assert data.ndim == 3
        self.data = data


class SegDataSample:
    """What is used of mmsegmentation 1.2's: two fields, which hold ``PixelData``, and ``get``."""

    def get(self, name):
        return getattr(self, name, None)


@pytest.fixture(params=["recorded", "installed"])
def sample_of(request):
    """Makes a sample of seg_logits and the prediction that ``postprocess_result`` stores."""
    if request.param == "recorded":
        sample_type, pixel_type = SegDataSample, PixelData
    else:
        sample_type = framework("mmseg.structures").SegDataSample
        pixel_type = framework("mmengine.structures").PixelData

    def make(scores):
        sample = sample_type()
        sample.seg_logits = pixel_type(data=scores)
        is_mask = len(scores) == 1
        labels = (scores > 0.3).to(scores) if is_mask else scores.argmax(0, keepdim=True)
        sample.pred_sem_seg = pixel_type(data=labels)
        return sample

    return make


def test_the_prediction_is_replaced_and_nothing_else(labels, photo, sample_of):
    scores = torch.from_numpy(full_logits(labels))
    sample = sample_of(scores.clone())
    assert refine(sample, photo, **SHARP) is sample
    found = sample.pred_sem_seg.data
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found, labels[None])
    assert torch.equal(sample.seg_logits.data, scores)


def test_samples_in_a_list(labels, photo, sample_of):
    both = [labels, labels[::-1].copy()]
    samples = [sample_of(torch.from_numpy(full_logits(one).copy())) for one in both]
    assert refine(samples, [photo, photo[::-1]], **SHARP) is samples
    for sample, one in zip(samples, both, strict=True):
        np.testing.assert_array_equal(sample.pred_sem_seg.data[0], one)


def test_blue_first(labels, photo, sample_of):
    samples = [sample_of(torch.from_numpy(full_logits(labels))) for _ in range(2)]
    refine(samples[0], photo, **SHARP)
    refine(samples[1], photo[..., ::-1], bgr=True, **SHARP)
    first, second = (sample.pred_sem_seg.data for sample in samples)
    assert torch.equal(first, second)


def test_a_single_channel_is_a_probability(labels, photo, sample_of):
    foreground = torch.from_numpy(shares(labels)[1:2].repeat(4, 1).repeat(4, 2).copy())
    sample = sample_of(foreground)
    refine(sample, photo, **SHARP)
    assert sample.pred_sem_seg.data.dtype == torch.float32  # as mmsegmentation stores it
    np.testing.assert_array_equal(sample.pred_sem_seg.data[0], labels == 1)


def test_without_a_prediction_there_is_one(labels, photo, sample_of):
    sample = sample_of(torch.from_numpy(full_logits(labels)))
    del sample.pred_sem_seg
    np.testing.assert_array_equal(refine(sample, photo, **SHARP).pred_sem_seg.data[0], labels)


def test_a_larger_picture_gives_larger_labels(labels, photo, sample_of):
    sample = sample_of(torch.from_numpy(full_logits(labels)))
    refine(sample, photo.repeat(2, 0).repeat(2, 1), **SHARP)
    found = sample.pred_sem_seg.data[0]
    assert (found.numpy() == labels.repeat(2, 0).repeat(2, 1)).mean() > 0.99


def test_mixtures_of_masks_have_to_be_named(labels, photo, sample_of):
    mixture = 2.5 * shares(labels).repeat(4, 1).repeat(4, 2)
    sample = sample_of(torch.from_numpy(mixture))
    with pytest.raises(ValueError, match=r"adapters\.mmseg.*expected kind='scores'"):
        refine(sample, photo)
    refine(sample, photo, kind="scores", **SHARP)
    np.testing.assert_array_equal(sample.pred_sem_seg.data[0], labels)


def test_pictures_have_to_be_as_many(labels, photo, sample_of):
    sample = sample_of(torch.from_numpy(full_logits(labels)))
    with pytest.raises(ValueError, match="images has 1 pictures for 2 outputs"):
        refine([sample, sample], photo)
