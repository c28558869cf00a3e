# SPDX-License-Identifier: MIT
"""Outputs of transformers and results of its processors; recorded, and its own where installed.

What is recorded is of transformers 5.23: SegFormer's ``SemanticSegmenterOutput``, the two fields of
``Mask2FormerForUniversalSegmentationOutput`` and ``EomtForUniversalSegmentationOutput`` that a
processor reads, ``SemanticSegmentationPostProcessorOutput``, and label maps without scores, which
is all that processors of 4.x return.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from crfseg.adapters.transformers import refine
from scene import CLASSES, SHARP, framework, logits, photograph, shares, truth

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

SIZES = ((32, 48), (36, 44))  # of the images; networks see them at one size


@pytest.fixture
def labels():
    """Two images' truths."""
    return [truth(*size) for size in SIZES]


@pytest.fixture
def photos(labels):
    return [photograph(one) for one in labels]


def coarse(labels):
    """(2, CLASSES, 8, 12) logits of two images that a processor has brought to one size."""
    both = [torch.from_numpy(logits(one))[None] for one in labels]
    stretched = [torch.nn.functional.interpolate(one, (8, 12), mode="bilinear") for one in both]
    return torch.cat(stretched)


def queries(labels):
    """Fields of Mask2Former for one image: a query for each class, one for none of them."""
    masks = torch.from_numpy(12 * shares(labels) - 6)
    masks = torch.cat([masks, torch.zeros(1, *masks.shape[1:])])[None]
    classes = torch.full((1, CLASSES + 1, CLASSES + 1), -2.0)
    classes[0].fill_diagonal_(3.0)
    classes[0, 1, 1] = 0.0  # not sure of itself: scores sum to less there
    return {"class_queries_logits": classes, "masks_queries_logits": masks}


def result(scores):
    return SimpleNamespace(segmentation=scores.argmax(0), segmentation_scores=scores)


def test_coarse_logits_of_images_of_several_sizes(labels, photos):
    outputs = SimpleNamespace(loss=None, logits=coarse(labels))
    refined = refine(outputs, photos, **SHARP)
    assert [tuple(one.shape) for one in refined] == list(SIZES)
    coarsely = refine(outputs, photos, iterations=0)
    for found, before, expected in zip(refined, coarsely, labels, strict=True):
        wrong, were_wrong = ((one.numpy() != expected).sum() for one in (found, before))
        assert were_wrong > 20
        assert wrong < 0.2 * were_wrong


def test_pictures_of_all_kinds_say_the_same(labels, photos):
    image_module = pytest.importorskip("PIL.Image")
    outputs = SimpleNamespace(logits=coarse(labels)[:1])
    photo = photos[0]
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    expected = refine(outputs, photo, **SHARP)[0]
    for images in (image_module.fromarray(photo), [photo], tensor, tensor[None], photo[None]):
        assert torch.equal(refine(outputs, images, **SHARP)[0], expected)


def test_results_with_scores(labels, photos):
    scores = torch.nn.functional.interpolate(coarse(labels)[:1], SIZES[0], mode="bilinear")[0]
    found = refine([result(scores)], photos[:1], **SHARP)[0]
    from_model = refine(SimpleNamespace(logits=coarse(labels)[:1]), photos[:1], **SHARP)[0]
    assert torch.equal(found, from_model)


def test_results_of_label_maps_alone(labels, photos):
    maps = [torch.from_numpy(one).roll(1, 1) for one in labels]
    maps[0][10, 10:12] = 2  # a speck
    without_scores = [maps[0], SimpleNamespace(segmentation=maps[1], segmentation_scores=None)]
    refined = refine(without_scores, photos, **SHARP)
    for found, given, expected in zip(refined, maps, labels, strict=True):
        assert found.dtype == torch.int64
        assert (found.numpy() != expected).sum() < 0.1 * (given.numpy() != expected).sum()


def test_masks_of_queries_are_mixed(labels, photos):
    fields = queries(labels[0])
    classes, masks = fields.values()
    mixture = torch.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    probs = mixture / mixture.sum(1, keepdim=True)
    expected = torch.nn.functional.interpolate(probs, SIZES[0], mode="bilinear")[0]
    found = refine(
        SimpleNamespace(**fields), photos[0], iterations=0, returns="probs", upsample="half-pixel"
    )[0]
    # Normalised before or after stretching: sums differ from cell to cell.
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    refined = refine(SimpleNamespace(**fields), photos[0], **SHARP)[0]
    np.testing.assert_array_equal(refined, labels[0])


def test_mixtures_in_results_have_to_be_named(labels, photos):
    scores = torch.from_numpy(shares(labels[0])) * 1.7
    with pytest.raises(ValueError, match=r"nowhere below 0.*expected kind='scores'"):
        refine([result(scores)], photos[:1])
    refined = refine([result(scores)], photos[:1], kind="scores", **SHARP)[0]
    assert (refined.numpy() == labels[0]).mean() > 0.99


def test_a_gradient_flows_where_it_is_asked_for(labels, photos):
    scores = coarse(labels)[:1].requires_grad_()
    refine(SimpleNamespace(logits=scores), photos[0], returns="probs", **SHARP)[0][
        1
    ].sum().backward()
    assert scores.grad.abs().max() > 0


def test_what_is_no_segmentation_is_refused(labels, photos):
    with pytest.raises(TypeError, match="expected logits or masks_queries_logits in it"):
        refine(SimpleNamespace(pred_boxes=None), photos)
    with pytest.raises(ValueError, match="images has 1 pictures for 2 outputs"):
        refine(SimpleNamespace(logits=coarse(labels)), photos[:1])
    pieces = SimpleNamespace(**queries(labels[0]), patch_offsets=[(0, 0, 32)])
    with pytest.raises(ValueError, match="outputs are of pieces of images"):
        refine(pieces, photos[0])


@pytest.mark.filterwarnings("ignore")
def test_segformer_and_its_processor(labels, photos):
    transformers = framework("transformers")
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, decoder_hidden_size=8, num_labels=CLASSES
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessor(size={"height": 32, "width": 48})
    with torch.no_grad():
        outputs = network(**processor(photos, return_tensors="pt"))
    assert [tuple(one.shape) for one in refine(outputs, photos)] == list(SIZES)
    outputs.logits = coarse(labels)
    from_model = refine(outputs, photos, **SHARP)
    processed = processor.post_process_semantic_segmentation
    with_scores = processed(outputs, target_sizes=SIZES, return_segmentation_scores=True)
    for found, expected in zip(refine(with_scores, photos, **SHARP), from_model, strict=True):
        assert torch.equal(found, expected)
    maps = processed(outputs, target_sizes=SIZES)
    plain = refine(outputs, photos, iterations=0)
    for found, expected in zip(plain, maps, strict=True):
        assert (found == expected).float().mean() > 0.999  # but for ties
    for found, expected in zip(refine(maps, photos, **SHARP), labels, strict=True):
        assert (found.numpy() == expected).mean() > 0.97


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["MaskFormer", "Mask2Former", "OneFormer", "Eomt"])
def test_processors_of_masks_mix_alike(labels, photos, name):
    transformers = framework("transformers")
    fields = SimpleNamespace(**queries(labels[0]), patch_offsets=None)
    processor = getattr(transformers, f"{name}ImageProcessor")
    results = processor.post_process_semantic_segmentation(
        SimpleNamespace(size={"shortest_edge": 384, "longest_edge": 384}),
        fields,
        target_sizes=SIZES[:1],
        return_segmentation_scores=True,
    )
    assert results[0].segmentation_scores.sum(0).min() < 0.95  # no probabilities
    refined = refine(results, photos[:1], kind="scores", **SHARP)[0]
    np.testing.assert_array_equal(refined, labels[0])
    mine = refine(fields, photos[0], iterations=0)[0]
    assert (mine == results[0].segmentation).float().mean() > 0.95  # it stretches masks, not scores
