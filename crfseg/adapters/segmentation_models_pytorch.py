# SPDX-License-Identifier: MIT
"""segmentation_models_pytorch: logits (N, C, H, W) in, of one class or several."""

from collections.abc import Mapping
from typing import Any

from crfseg import _check as check

from ._tensors import picture, refined

_WHERE = "adapters.segmentation_models_pytorch.refine"
_MODES = ("auto", "binary", "multiclass", "multilabel")


def refine(
    output: Any,
    images: Any,
    *,
    mode: str = "auto",
    activated: bool = False,
    preprocessing: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Refine the output of a model.

    Args:
        output: what the model returns, (N, C, H, W).
        images: with ``preprocessing`` the batch that the model was given, (N, 3, H, W). Without,
            the photographs, all of one size: tensors with the channels first, PIL pictures or
            arrays (H, W, 3), in a list, or one for all.
        mode: as smp's losses have it. "binary" is one class, a sigmoid; in "multiclass" classes
            exclude each other, a softmax; in "multilabel" each of them is refined as a mask of its
            own. "auto" is "binary" for one class, else "multiclass".
        activated: whether the model has an activation, so that its output holds probabilities.
        preprocessing: what ``smp.encoders.get_preprocessing_params(encoder)`` returns, to be
            undone.
        options: keywords of ``crfseg.refine``; ``returns`` is "labels" unless given.

    Returns:
        A tensor on the output's device: labels (N, H, W), of "multilabel" 0 or 1 in (N, C, H, W).
        For ``returns="probs"`` probabilities (N, C, H, W).

    Raises:
        TypeError, ValueError: as ``crfseg.refine``, or if ``mode`` does not fit the output.
    """
    check.choice(_WHERE, "mode", mode, _MODES)
    shape = tuple(output.shape)
    if len(shape) != 4:
        raise check.invalid(_WHERE, f"output has shape {shape}; expected (N, C, H, W)")
    if mode == "auto":
        mode = "binary" if shape[1] == 1 else "multiclass"
    if mode == "binary" and shape[1] != 1:
        raise check.invalid(_WHERE, f"output has shape {shape}; expected one class for 'binary'")
    options = {**_undone(preprocessing), **options}
    images = picture(images)
    if mode == "multiclass":
        kind = "probs" if activated else "logits"
        return refined(output, images, kind=kind, layout="NCHW", **options)
    masks = output if activated else output.sigmoid()
    if mode == "binary":
        return refined(masks, images, kind="mask", layout="NCHW", **options)
    return _each(masks, images, options)


def _undone(preprocessing: Mapping[str, Any] | None) -> dict[str, Any]:
    """Its parameters as keywords of refine()."""
    if preprocessing is None:
        return {}
    return {
        "mean": preprocessing["mean"],
        "std": preprocessing["std"],
        "bgr": preprocessing.get("input_space") == "BGR",
        "image_range": tuple(preprocessing.get("input_range") or (0, 1)),
    }


def _each(masks: Any, images: Any, options: Mapping[str, Any]) -> Any:
    """Every class a mask of its own."""
    n_items, n_classes, *size = masks.shape
    if isinstance(images, list) or getattr(images, "ndim", 3) == 4:
        images = [one for one in images for _ in range(n_classes)]
    result = refined(masks.reshape(-1, *size), images, kind="mask", layout="NHW", **options)
    return result.reshape(n_items, n_classes, *result.shape[1:])
