# SPDX-License-Identifier: MIT
"""refine_points(): the one call for what lies on no grid, like point clouds and superpixels."""

from typing import Any, Final

from numpy.typing import NDArray

from . import _check as check
from . import _fault_grids as fault
from ._containers import open_array
from ._device_arrays import is_on_device, open_on_device, to_host
from ._image import Images
from ._job import Model, open_call, run
from ._native import NORMALIZATIONS, threads_of_call
from ._results import RETURNS
from ._scores import KINDS, SOFT_KINDS, Scores, checked, settle_kind
from .cache import follow_environment
from .compatibility import Compatibility
from .lattice import ACCURACIES
from .pairwise import Features, Sigmas, Term
from .solvers import Solver, resolve

_WHERE: Final = "refine_points"
_NO_IMAGES: Final = Images([], None, 0)


def refine_points(
    x: Any,
    features: Any,
    *,
    sigmas: Sigmas | None = None,
    weight: float | None = None,
    kind: str = "auto",
    compatibility: Compatibility = None,
    iterations: int = 10,
    tolerance: float = 0.0,
    solver: Solver = "mean-field",
    skip: bool = True,
    normalization: str = "symmetric",
    accuracy: str = "fast",
    returns: str = "same",
    threads: int | None = None,
    confidence: float = 0.7,
    ignore_index: int | None = None,
    n_labels: int | None = None,
) -> Any:
    """Make labels of points agree with those of points that are alike.

    Mean-field inference in a fully connected CRF (Krähenbühl & Koltun, NIPS 2011, algorithm 1), as
    ``refine`` does it, whose kernels are Gaussians over features of any kind: positions, normals
    and colours of a point cloud, centres and mean colours of superpixels, embeddings.

    Args:
        x: what ``refine`` takes, of N points: probabilities, logits or scores (N, C), labels (N,),
            or a mask (N,) or (N, 1), hard or of foreground probabilities. Tensors may require a
            gradient as for ``refine``.
        features: (N, d) finite numbers, 1 <= d <= 16; or a list of ``Features`` terms, each of
            which has its features, sigmas and weight.
        sigmas: what features are divided by: one positive number, or one per feature. The features
            alone know their units, so there is no default. Terms have their own.
        weight: how much the one kernel counts against the scores; None is 1. Terms have their own.
        kind: "auto", "probs", "logits", "scores", "labels" or "mask", as for ``refine``.
        compatibility: None or ``Potts``, a (C,) vector or a (C, C) matrix, as for ``DenseCRF``.
        iterations: updates; 0 gives softmax of the unary.
        tolerance: stop as soon as no marginal changes by this much; 0 never stops early.
        solver: ``MeanField``, ``FrankWolfe``, or a name, as for ``DenseCRF.infer``.
        skip: leave labels out where they are known to have next to no mass.
        normalization: of the kernels: "symmetric", "after", "before" or "none".
        accuracy: "fast", or "fine" for a filter closer to the exact Gaussian at a higher cost.
        returns: "same" kind as x; "probs", float marginals; or "labels", most probable labels.
        threads: None for ``get_num_threads()``. Results do not depend on it.
        confidence: how far labels and hard masks are trusted: the probability of the given label.
        ignore_index: the mark of points without a label; see ``unary_from_labels``.
        n_labels: C where x holds labels; None takes the largest that occurs, plus one.

    Returns:
        The refined labels or scores in the container, shape and dtype of ``x``; see ``kind`` and
        ``returns`` of ``refine``. Probabilities of labels (N,) have shape (N, C).

    Raises:
        TypeError, ValueError: if an argument is not as described.
        MemoryError: if the job cannot fit into memory, before anything is touched.
    """
    check.choice(_WHERE, "kind", kind, KINDS)
    check.choice(_WHERE, "returns", returns, RETURNS)
    check.choice(_WHERE, "normalization", normalization, tuple(NORMALIZATIONS))
    check.choice(_WHERE, "accuracy", accuracy, tuple(ACCURACIES))
    check.flag(_WHERE, "skip", skip)
    model = Model(
        compatibility=compatibility,
        normalization=normalization,
        accuracy=accuracy,
        iterations=check.integer(_WHERE, "iterations", iterations),
        tolerance=check.non_negative(_WHERE, "tolerance", tolerance),
        solver=resolve(_WHERE, solver),
        skip=skip,
        returns=returns,
        confidence=confidence,
        min_confidence=None,
        ignore_index=ignore_index,
        n_labels=n_labels,
    )
    n_threads = threads_of_call(_WHERE, threads)
    follow_environment(_WHERE)
    device, opened, _ = open_call(_WHERE, x, None, kind)
    terms = _terms(features if device is None else _fetched(_WHERE, features), sigmas, weight)
    array, restore = open_array(_WHERE, "x", opened)
    scores = _read(array, kind, terms)
    n_points = scores.sizes["P"]
    return run(
        *(_WHERE, x, restore, scores, (n_points,), _NO_IMAGES, None, terms, 0, model, n_threads),
        device,
    )


def _terms(features: Any, sigmas: Any, weight: Any) -> list[Features]:
    listed = features if isinstance(features, list | tuple) else [features]
    are_terms = [isinstance(one, Term) for one in listed]
    if any(are_terms) and not (listed is features and all(isinstance(o, Features) for o in listed)):
        raise fault.not_features(_WHERE, features)
    if any(are_terms):
        for name, value in (("sigmas", sigmas), ("weight", weight)):
            if value is not None:
                raise fault.given_by_terms(_WHERE, name, value)
        return list(listed)
    if sigmas is None:
        raise fault.missing_sigmas(_WHERE)
    found = check.sigmas(_WHERE, "sigmas", sigmas)
    strength = 1.0 if weight is None else check.non_negative(_WHERE, "weight", weight)
    return [Features(features, found, strength)]


def _fetched(where: str, features: Any) -> Any:
    """Features in the host's memory, which looks at their bounds."""
    if not is_on_device(features):
        return features
    return to_host(open_on_device(where, "features", features))


def _read(array: NDArray[Any], kind: str, terms: list[Features]) -> Scores:
    """Read x by its number of axes: there is no other way to lie on points."""
    kind, guessed = settle_kind(_WHERE, array, kind)
    is_soft = kind in SOFT_KINDS
    has_mask_axis = kind == "mask" and array.ndim == 2 and array.shape[1] == 1
    layout = "PC" if is_soft or has_mask_axis else "P"
    if array.ndim != len(layout):
        raise fault.no_points(_WHERE, array.shape, kind, is_soft=is_soft)
    for term in terms:
        n_points = len(term.features)
        if term.features.ndim == 2 and len(array) != n_points:
            raise fault.other_points(_WHERE, array.shape, n_points)
    return checked(_WHERE, Scores(array, kind, guessed, layout, None, True))
