# SPDX-License-Identifier: MIT
"""mmsegmentation: data samples with ``seg_logits`` in, with another ``pred_sem_seg`` out."""

from typing import Any

from ._tensors import kind_of, per_item, refined

_WHERE = "adapters.mmseg.refine"


def refine(samples: Any, images: Any, *, kind: str = "auto", **options: Any) -> Any:
    """Refine data samples in place.

    Args:
        samples: what ``inference_model`` or ``model.predict`` returns, a ``SegDataSample`` or a
            list of them. Their ``seg_logits`` (C, H, W) are read and stay as they are.
        images: their pictures, of any size: arrays (H, W, 3), PIL pictures or tensors (3, H, W),
            one or a list of one per sample. ``mmcv.imread`` reads blue first: ``bgr=True``.
        kind: what ``seg_logits`` are: "logits", or "scores" of heads that mix masks. "auto" takes
            those for logits that are negative somewhere, and raises for others. A single channel
            holds the foreground's probability: mmsegmentation has taken its sigmoid.
        options: keywords of ``crfseg.refine`` other than ``returns``.

    Returns:
        ``samples``, whose ``pred_sem_seg`` holds refined labels (1, H, W).

    Raises:
        TypeError, ValueError: as ``crfseg.refine``.
    """
    group = samples if isinstance(samples, list | tuple) else [samples]
    for sample, image in zip(group, per_item(_WHERE, group, images), strict=True):
        scores = sample.seg_logits.data
        known = "mask" if len(scores) == 1 else kind_of(_WHERE, scores, kind)
        labels = refined(
            scores, image, kind=known, layout="CHW", **{**options, "returns": "labels"}
        )
        before = sample.get("pred_sem_seg")
        labels = labels.long() if before is None else labels.to(before.data.dtype)
        # A new one: the old one keeps to its size, and the picture may have another.
        sample.pred_sem_seg = type(sample.seg_logits)(data=labels[None])
    return samples
