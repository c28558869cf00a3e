# SPDX-License-Identifier: MIT
"""pydensecrf.utils: energies from labels and probabilities, features of grids of any dimension.

Features come in the order of the array's axes (y, x, then channels), where ``DenseCRF2D`` has x
first, and so do ``sdims``: (sy, sx).
"""

from collections.abc import Sequence
from logging import getLogger
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._containers import as_array

__all__ = [
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]

_log = getLogger(__name__)


def unary_from_labels(
    labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """Energies (n_labels, N) of a label map of any shape.

    Args:
        labels: integers: with ``zero_unsure`` 0 for "could be anything" and 1 to n_labels,
            otherwise 0 to n_labels - 1.
        n_labels: how many labels there are, the unsure one not counted.
        gt_prob: the probability of the given label, above 0 and below 1.
        zero_unsure: whether 0 is no label.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """
    where = "unary_from_labels"
    gt_prob = check.between(where, "gt_prob", gt_prob, zero=False)
    flat = as_array(where, "labels", labels).reshape(-1)
    n_labels = check.integer(where, "n_labels", n_labels, at_least=1)
    _check_labels(where, flat, int(zero_unsure), n_labels)
    # One label alone has nothing to share the rest with.
    other = -np.log((1.0 - gt_prob) / max(n_labels - 1, 1))
    energies = np.full((n_labels, len(flat)), other, np.float32)
    own = flat.astype(np.intp) - int(zero_unsure)
    known = np.flatnonzero(own >= 0)
    energies[own[known], known] = -np.log(gt_prob)
    if zero_unsure:
        energies[:, own < 0] = -np.log(1.0 / n_labels)
    return energies


def _check_labels(where: str, labels: NDArray[Any], first: int, n_labels: int) -> None:
    if labels.dtype.kind not in "biu":
        raise fault.wrong_dtype(where, "labels", labels.dtype, "integers")
    last = n_labels - 1 + first
    if labels.size and not (labels.min() >= 0 and labels.max() <= last):
        raise check.invalid(
            where,
            f"labels reach from {labels.min()} to {labels.max()}; expected 0 to {last} for "
            f"n_labels={n_labels}, " + ("0 being unsure" if first else "zero_unsure being False"),
        )


def unary_from_softmax(
    sm: Any, scale: float | None = None, clip: float | None = 1e-5
) -> NDArray[np.float32]:
    """Energies -log p (C, N) of probabilities (C, ...).

    Args:
        sm: probabilities, the first axis being the labels.
        scale: what a probability of 1 is to become, the rest being shared evenly; above 0, up to 1.
        clip: the least probability that counts; None leaves zeros alone, whose energy is infinite.

    Raises:
        TypeError, ValueError: if ``sm`` is not numbers, has no axes or nothing above 0, or
            ``scale`` is no such number.
    """
    where = "unary_from_softmax"
    probs = as_array(where, "sm", sm)
    if probs.ndim == 0:
        raise fault.wrong_shape(where, "sm", probs.shape, "(C, ...), the label axis first")
    # Clipped, all labels of log-probabilities would cost the same, without a word.
    if probs.size and probs.max() <= 0 and probs.min() < 0:
        raise check.invalid(where, "sm has nothing above 0; expected probabilities, not their logs")
    n_labels = len(probs)
    if scale is not None:
        if not 0 < scale <= 1:
            raise check.invalid(where, f"scale is {check.show(scale)}; expected above 0, up to 1")
        probs = scale * probs + (1 - scale) / n_labels
    if clip is not None:
        probs = np.clip(probs, clip, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is wrong with them is said later
        energies = np.log(probs.reshape(n_labels, -1))
    np.negative(energies, out=energies)
    result: NDArray[np.float32] = energies.astype(np.float32, copy=False)
    return result


def compute_unary(labels: Any, M: int, GT_PROB: float = 0.5) -> NDArray[np.float32]:
    """As ``unary_from_labels``, which is the name to use."""
    _log.warning("pydensecrf.compute_unary is deprecated, use unary_from_labels instead.")
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Any, GT_PROB: float = 1) -> NDArray[np.float32]:
    """As ``unary_from_softmax`` without clipping, which is the name to use."""
    _log.warning("pydensecrf.softmax_to_unary is deprecated, use unary_from_softmax instead.")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> NDArray[np.float32]:
    """Features (d, N) of a grid: the coordinates along its axes, over ``sdims``.

    Raises:
        ValueError: if there is not one of ``sdims`` per axis.
    """
    if len(sdims) != len(shape) or not len(shape):
        where = "create_pairwise_gaussian"
        raise fault.sigma_count(where, "sdims", len(sdims), len(shape), "axis of the grid")
    mesh = _grid(sdims, tuple(shape))
    return mesh.reshape(len(mesh), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: Any, img: Any, chdim: int = -1
) -> NDArray[np.float32]:
    """Features (d + K, N) of a grid with values: coordinates, then channels, over their sigmas.

    Args:
        sdims: one number per axis of the grid, in the order of the axes; where there are fewer, as
            published programs have them, the last axes keep their unit, and the log is told.
        schan: one number for all channels, or one per channel, with the same exception.
        img: the values, with ``chdim`` one axis more than the grid.
        chdim: the axis of the channels; -1 where there is none.

    Raises:
        TypeError, ValueError: if ``img`` is not numbers, or there are too many sigmas.
    """
    where = "create_pairwise_bilateral"
    image = as_array(where, "img", img)
    channels = image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)
    n_axes, n_channels = channels.ndim - 1, len(channels)
    scales = [schan] * n_channels if isinstance(schan, Number) else schan
    mesh = _grid(_one_each(where, "sdims", sdims, n_axes, "axis of the grid"), channels.shape[1:])
    features = np.empty((n_axes + n_channels, mesh[0].size), np.float32)
    features[:n_axes] = mesh.reshape(n_axes, -1)
    for k, scale in enumerate(_one_each(where, "schan", scales, n_channels, "channel")):
        values = channels[k].reshape(-1)
        np.divide(values, scale, out=features[n_axes + k], casting="unsafe", dtype=np.float32)
    return features


def _one_each(where: str, name: str, sigmas: Sequence[Any], n: int, axes: str) -> list[Any]:
    """Filled up with ones."""
    given = list(sigmas)
    if len(given) > n:
        raise fault.sigma_count(where, name, len(given), n, axes)
    if len(given) < n:
        _log.warning(
            "[%s] %s has %d entries for %d; the last keep their unit", where, name, len(given), n
        )
    return given + [1] * (n - len(given))


def _grid(sdims: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float32]:
    mesh = np.indices(shape, np.float32)
    mesh /= np.reshape(np.asarray(sdims, np.float32), (-1, *(1 for _ in shape)))
    return mesh
