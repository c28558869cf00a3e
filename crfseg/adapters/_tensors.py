# SPDX-License-Identifier: MIT
"""What the adapters share: tensors on any device, pictures as frameworks keep them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from crfseg import _check as check
from crfseg._info import info
from crfseg.refine import refine

OPTIONS: Mapping[str, Any] = {"returns": "labels", "upsample": "half-pixel"}
"""Of every adapter: label maps are wanted, and frameworks stretch with half-pixel centres."""


def refined(x: Any, image: Any, **options: Any) -> Any:
    """refine() of a tensor on any device; the result is there too.

    It is done there if that is possible: by mean field, on a CUDA device that can be used.
    """
    device = getattr(x, "device", "cpu")
    is_taken = getattr(device, "type", "") == "cuda" and info()["cuda"]
    if str(device) == "cpu" or (is_taken and "solver" not in options):
        return refine(x, image, **{**OPTIONS, **options})
    return refine(x.cpu(), image, **{**OPTIONS, **options}).to(device)


def picture(image: Any) -> Any:
    """Tensors, whose channels come first, as arrays with the channels last; others as they are."""
    if isinstance(image, list | tuple):
        return [picture(one) for one in image]
    if not hasattr(image, "detach"):
        return image
    tensor = image.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, -3, -1) if array.ndim > 2 else array


def per_item(where: str, items: Any, images: Any) -> list[Any]:
    """Images one by one, as many as items."""
    is_batch = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
    found = list(images) if is_batch else [images]
    if len(found) != len(items):
        raise check.invalid(
            where,
            f"images has {len(found)} pictures for {len(items)} outputs; expected one for each",
        )
    return [picture(one) for one in found]


def kind_of(where: str, scores: Any, kind: str) -> str:
    """What raw scores of every label are, "logits" or "scores", where their signs tell.

    Mixtures of masks (MaskFormer and its descendants) are never negative; logits that never are
    cannot be told from them.
    """
    if kind != "auto":
        return kind
    if scores.min() < 0:
        return "logits"
    raise check.invalid(
        where,
        "the scores are nowhere below 0, as mixtures of masks are, and as logits may be; expected "
        "kind='scores' (Mask2Former and its kin), 'logits' or 'probs'",
    )
