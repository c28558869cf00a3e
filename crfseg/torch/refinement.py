# SPDX-License-Identifier: MIT
"""refine() of a tensor that requires a gradient: the same model, as one differentiable op.

``crfseg.refine`` has checked the arguments and comes here when it finds such a tensor; nobody else
does.
"""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crfseg import _explain as explain
from crfseg import _fault as fault
from crfseg._device_arrays import to_host
from crfseg._image import Images, Ranges, to_levels
from crfseg._kernels import Kernel, Kernels
from crfseg._native import NORMALIZATIONS
from crfseg._results import Form
from crfseg._scores import Scores
from crfseg._thin import HELD_FLOOR, TRUST, held_structures
from crfseg.pairwise import Bilateral, Features
from crfseg.solvers import FrankWolfe, MeanField
from crfseg.unary import PROBABILITY_FLOOR

from .solvers import infer

_LEAST: Final = float(np.finfo(np.float32).tiny)
_LEAST_LOG: Final = float(np.log(_LEAST))
_NAMES: Final = {number: name for name, number in NORMALIZATIONS.items()}


def refine_tensor(
    where: str,
    x: Tensor,
    scores: Scores,
    size: tuple[int, ...],
    form: Form,
    kernels: Kernels,
    images: Images,
    scale: Ranges | None,
    iterations: int,
    tolerance: float,
    accuracy: str,
    solver: MeanField | FrankWolfe,
    keep_thin: int,
) -> Tensor:
    """The refined tensor in the layout and dtype of ``x``, and where it is.

    What is looked at, and what features are made of, is looked at in the host's memory.
    """
    if tolerance > 0:
        raise fault.not_differentiated(where, f"tolerance is {tolerance:g}", "tolerance=0")
    _check_values(where, scores._replace(array=to_host(scores.array)))
    images = images._replace(arrays=[to_host(one) for one in images.arrays])
    logits = _logits(x, scores, size)
    if keep_thin:
        logits = _held(logits, keep_thin)
    settled = kernels.settled
    if len({kernel.normalization for kernel in settled}) > 1:
        raise fault.not_differentiated(
            where, "its terms differ in normalization", "the same in all"
        )
    # Those of Frank-Wolfe are logarithms already, and not of all of a small probability.
    by_logits = form.holds == "log-probs" and isinstance(solver, MeanField)
    refined = infer(
        logits,
        [_features(where, kernel, size, images, scale).to(x.device) for kernel in settled],
        [_coupling(kernel, logits.shape[1]).to(x.device) for kernel in settled],
        iterations,
        solver=solver,
        sigmas=[
            torch.tensor([axis.sigma for axis in kernel.axes], device=x.device)
            for kernel in settled
        ],
        groups=[list(range(len(kernel.axes))) for kernel in settled],
        output="logits" if by_logits else "marginals",
        normalization=_NAMES[settled[0].normalization] if settled else "symmetric",
        accuracy=accuracy,
    )
    if by_logits:
        refined = refined.log_softmax(1).clamp(min=_LEAST_LOG)
    elif form.holds == "log-probs":
        refined = refined.clamp(min=_LEAST).log()
    return _restored(refined.to(x.dtype), scores, form)


def _check_values(where: str, scores: Scores) -> None:
    if scores.kind == "mask":
        return  # foreground probabilities have been looked at
    for i, item in enumerate(scores.items):
        wrong = _wrong_item(where, f"x[{i}]" if "N" in scores.layout else "x", scores, item)
        if wrong is not None:
            raise wrong


def _wrong_item(where: str, name: str, scores: Scores, item: NDArray[Any]) -> ValueError | None:
    if scores.kind == "probs":
        return explain.probabilities(where, name, item, guessed=scores.guessed)
    if scores.kind == "logits":  # whether they are finite is seen by the op
        return explain.not_logits(where, name) if explain.are_probabilities(item) else None
    return (
        None if (item >= 0).all() and np.isfinite(item).all() else explain.scores(where, name, item)
    )


def _logits(x: Tensor, scores: Scores, size: tuple[int, ...]) -> Tensor:
    """(N, C, *spatial) of the image's size."""
    layout = scores.layout
    items = x if "N" in layout else x.unsqueeze(0)
    label_axis = layout.index("C") + int("N" not in layout) if "C" in layout else None
    items = items.unsqueeze(1) if label_axis is None else items.movedim(label_axis, 1)
    if scores.alignment is not None:
        is_corners = scores.alignment == "align-corners"
        items = functional.interpolate(items, size, mode="bilinear", align_corners=is_corners)
    if scores.kind == "logits":
        return items
    if scores.kind == "mask":
        items = torch.cat([1 - items, items], dim=1)
    # In float32: half precision has no room for the logarithm's slope near the floor.
    precise = items if items.dtype == torch.float64 else items.to(torch.float32)
    return precise.clamp(min=PROBABILITY_FLOOR).log()


def _held(logits: Tensor, side: int) -> Tensor:
    """Logits that count more where the most probable labels form thin structures."""
    labels = logits.detach().argmax(1).cpu().numpy()
    is_thin = np.stack([held_structures(item, side) for item in labels])[:, np.newaxis]
    below = TRUST * (logits - logits.amax(1, keepdim=True))
    held = below.clamp(min=float(np.log(HELD_FLOOR)))
    return torch.where(torch.from_numpy(is_thin).to(logits.device), held, logits)


def _restored(found: Tensor, scores: Scores, form: Form) -> Tensor:
    """From (N, C, *spatial) to the caller's layout."""
    layout = scores.layout
    if form.holds == "foreground":
        found = found[:, 1:]
    if "C" not in layout:
        found = found[:, 0]
    else:
        found = found.movedim(1, layout.index("C") + int("N" not in layout))
    return found if "N" in layout else found[0]


def _features(
    where: str,
    kernel: Kernel,
    size: tuple[int, ...],
    images: Images,
    scale: Ranges | None,
) -> Tensor:
    """(N or 1, points, d) features, not divided by their sigmas yet."""
    if isinstance(kernel.term, Features):
        rows = np.asarray(kernel.term.features).reshape(1, -1, len(kernel.axes))
        return torch.from_numpy(rows.astype(np.float32))
    places = np.indices(size, np.float32)[::-1].reshape(1, len(size), -1).swapaxes(1, 2).copy()
    if not isinstance(kernel.term, Bilateral):
        return torch.from_numpy(places)
    if kernel.own_image is not None:
        given = [("Bilateral image", to_host(kernel.own_image))]
        scale = kernel.term.image_range
    else:
        given = [images.for_item(i) for i in range(len(images.arrays))]
    levels = [to_levels(where, name, one, scale) for name, one in given]
    colours = np.stack([one.values.astype(np.float32) * np.float32(one.scale) for one in levels])
    colours = colours.reshape(len(levels), -1, colours.shape[-1])
    both = np.concatenate([places.repeat(len(levels), 0), colours], axis=2)
    return torch.from_numpy(both)


def _coupling(kernel: Kernel, n_labels: int) -> Tensor:
    """M = -mu w; Potts and vectors are diagonals."""
    mu: Any = kernel.compatibility
    if mu is None:
        return torch.full((n_labels,), kernel.weight)
    return torch.tensor(-kernel.weight * mu if mu.ndim == 2 else kernel.weight * mu)
