# SPDX-License-Identifier: MIT
"""Scores of a network on pictures it has not seen: without a CRF, with one, with a CRF layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import crfseg
from crfseg import _check as check
from crfseg.metrics import Confusion
from crfseg.torch.models._refinement import checked_refinement

from .draws import SampleSource, opened
from .networks import device_of, full_scores

Scores = dict[str, Confusion]


@torch.no_grad()
def validate(
    model: nn.Module,
    source: SampleSource,
    *,
    crf: nn.Module | None = None,
    refine: Mapping[str, Any] | None = None,
    ignore_index: int = 255,
) -> Scores:
    """Count right and wrong pixels of whole pictures, each at its own size.

    Args:
        model: gives scores at every pixel, or has ``full_scores``; its mode is kept.
        source: pictures and labels.
        crf: a layer behind it, trained with it.
        refine: arguments of ``crfseg.refine``; None: the network's ``crf_parameters``, or where it
            has none, those that ``refine`` has itself.
        ignore_index: the label of pixels that do not count.

    Returns:
        Counts under "network", under "refine", and under "layer" if there is one.

    Raises:
        TypeError: if ``refine`` names no argument of refine.
        ValueError: if there are no pictures, or their levels or labels, the network's scores or a
            value in ``refine`` are not as expected.
    """
    arguments = prepared(model, source, refine)
    modes = [(module, module.training) for module in (model, crf) if module is not None]
    found: Scores = {}
    try:
        for module, _ in modes:
            module.eval()
        for index in range(len(source)):
            levels, labels = opened(source, index)
            for name, predicted in _predictions(model, crf, levels, arguments).items():
                counts = found.setdefault(name, Confusion(len(predicted), ignore_index))
                counts.add(predicted.argmax(0).numpy(), labels.numpy())
    finally:
        for module, was_training in modes:
            module.train(was_training)
    return found


def prepared(
    model: nn.Module, source: SampleSource, refine: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """Arguments of ``crfseg.refine``, checked before a network runs."""
    if len(source) == 0:
        raise check.invalid(
            "validate", "there are no pictures to validate on; expected one at least"
        )
    return checked_refinement("validate", "refine", chosen_refinement(model, refine))


def chosen_refinement(model: nn.Module, refine: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Arguments of ``crfseg.refine`` behind a network."""
    published: Mapping[str, Any] | None = getattr(model, "crf_parameters", None)
    return (published or {}) if refine is None else refine


def summary(scores: Scores) -> dict[str, dict[str, float]]:
    """Mean IoU and pixel accuracy."""
    return {
        name: {"mean_iou": counts.mean_iou(), "pixel_accuracy": counts.pixel_accuracy()}
        for name, counts in scores.items()
    }


def _predictions(
    model: nn.Module, crf: nn.Module | None, levels: Tensor, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """(C, H, W) each, the larger the likelier."""
    scores = full_scores(model, levels[None]).cpu().float()
    probs, pixels = scores[0].softmax(0), levels.permute(1, 2, 0).contiguous()
    refined = crfseg.refine(
        probs,
        pixels,
        kind="probs",
        layout="CHW",
        returns="probs",
        **{"image_range": (0.0, 255.0) if levels.is_floating_point() else None, **arguments},
    )
    found = {"network": scores[0], "refine": torch.as_tensor(refined)}
    if crf is not None:
        device = device_of(crf)
        found["layer"] = crf(scores.to(device), levels[None].to(device))[0].cpu()
    return found
