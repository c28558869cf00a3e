# SPDX-License-Identifier: MIT
"""Hugging Face transformers: outputs of semantic segmentation models, before or after a processor.

SegFormer and its like have ``logits`` on a coarse grid. MaskFormer and its descendants have masks
of queries, which are mixed: softmax over classes without the last, "none", times sigmoid. Results
of ``post_process_semantic_segmentation`` hold either, or label maps alone.
"""

from typing import Any

from crfseg import _check as check

from ._tensors import kind_of, per_item, refined

_WHERE = "adapters.transformers.refine"


def refine(outputs: Any, images: Any, *, kind: str = "auto", **options: Any) -> list[Any]:
    """Refine the outputs of a model, or what a processor made of them.

    Args:
        outputs: what a semantic segmentation model returns, whose scores cover the whole image; or
            the list that ``processor.post_process_semantic_segmentation`` returns, with
            ``return_segmentation_scores=True`` where transformers has it: label maps alone say
            less. ``target_sizes`` are the images' sizes, for label maps at least.
        images: the pictures themselves, before the processor: PIL pictures, arrays (H, W, 3) or
            tensors (3, H, W), a list of one per output. They may differ in size.
        kind: what the scores of a processor's results are: "logits", or "scores" of Mask2Former
            and its kin. "auto" takes those for logits that are negative somewhere, and raises for
            others. The model's own outputs say it themselves.
        options: keywords of ``crfseg.refine``; ``returns`` is "labels" unless given.

    Returns:
        As the processor does, a list of label maps (H, W), or of what ``returns`` says, each of
        the size of its image.

    Raises:
        TypeError, ValueError: as ``crfseg.refine``, or if ``outputs`` has no scores of this kind.
    """
    if isinstance(outputs, list | tuple):
        items = [_result(one, kind) for one in outputs]
    elif getattr(outputs, "masks_queries_logits", None) is not None:
        items = [(one, "scores") for one in _mixture(outputs)]
    elif getattr(outputs, "logits", None) is not None:
        items = [(one, "logits") for one in outputs.logits]
    else:
        raise check.mistyped(
            _WHERE,
            f"outputs is {type(outputs).__name__}; expected logits or masks_queries_logits in it, "
            "or the list that post_process_semantic_segmentation returns",
        )
    pictures = per_item(_WHERE, items, images)
    return [
        refined(x, image, kind=known, layout="HW" if known == "labels" else "CHW", **options)
        for (x, known), image in zip(items, pictures, strict=True)
    ]


def _result(result: Any, kind: str) -> tuple[Any, str]:
    """Scores of a result where it has them, else its label map."""
    scores = getattr(result, "segmentation_scores", None)
    if scores is not None:
        return scores, kind_of(_WHERE, scores, kind)
    return getattr(result, "segmentation", result), "labels"


def _mixture(outputs: Any) -> Any:
    """(N, C, h, w) scores of at least 0."""
    if getattr(outputs, "patch_offsets", None):
        raise check.invalid(
            _WHERE,
            "outputs are of pieces of images (patch_offsets); expected what the processor's "
            "post_process_semantic_segmentation(..., return_segmentation_scores=True) makes of "
            "them, and kind='scores'",
        )
    masks = outputs.masks_queries_logits.float().sigmoid()
    classes = outputs.class_queries_logits.float().softmax(-1)[..., :-1]
    mixed = classes.mT @ masks.flatten(2)
    return mixed.reshape(*mixed.shape[:2], *masks.shape[2:])
