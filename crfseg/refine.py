# SPDX-License-Identifier: MIT
"""refine(): the one call. Scores and an image in, a segmentation along the image's edges out."""

import os
from typing import Any

from . import _check as check
from . import _fault as fault
from . import _fault_device as fault_device
from . import _fault_grids as fault_grids
from ._containers import open_array
from ._image import Images, Ranges, checked_range, open_images, open_laid_images, prepared
from ._job import Model, beside_call, open_call, run
from ._native import NORMALIZATIONS, threads_of_call
from ._preset import Preset
from ._results import RETURNS
from ._scores import KINDS, LAYOUTS, read_scores
from ._volumes import IMAGE_LAYOUTS, VOLUME_LAYOUTS, Axes, read_axes, read_volumes
from .cache import follow_environment
from .compatibility import Compatibility
from .lattice import ACCURACIES
from .pairwise import (
    Bilateral,
    Gaussian,
    Sigmas,
    Term,
    check_spacing,
    check_terms,
    checked_spacing,
    with_spacing,
)
from .presets import get, takes_preset
from .solvers import Solver, resolve
from .upsample import CHOICES as UPSAMPLE

_WHERE = "refine"
# Chosen on network outputs of two data sets: docs/quality.md.
_SPATIAL = (3.0, 6.0)
_BILATERAL = (30.0, 13.0, 10.0)
_THIN = 21
# And those of volumes, on brain tumours: docs/quality.md.
_VOLUME_SPATIAL = (1.0, 1.0)
_VOLUME_BILATERAL = (5.0, 25.0, 3.0)
_TERMS = (Gaussian(*_SPATIAL), Bilateral(None, *_BILATERAL))

CUSTOMARY: dict[str, Any] = {
    name: get("pydensecrf").options[name] for name in ("spatial", "bilateral", "keep_thin")
}
"""The field's customary terms, of the preset "pydensecrf": ``refine(x, image, **CUSTOMARY)``."""


@takes_preset
def refine(
    x: Any,
    image: Any,
    *,
    preset: str | os.PathLike[str] | Preset | None = None,
    kind: str = "auto",
    layout: str | None = None,
    spatial: tuple[Sigmas, float] | None = _SPATIAL,
    bilateral: tuple[Sigmas, Sigmas, float] | None = _BILATERAL,
    pairwise: list[Term] | None = None,
    compatibility: Compatibility = None,
    keep_thin: int | str = "auto",
    iterations: int = 10,
    tolerance: float = 0.0,
    solver: Solver = "mean-field",
    skip: bool = True,
    normalization: str = "symmetric",
    accuracy: str = "fast",
    upsample: str | bool = "auto",
    returns: str = "same",
    threads: int | None = None,
    storage: str = "float32",
    scale: float = 1.0,
    image_range: Ranges | None = None,
    image_layout: str | None = None,
    spacing: Sigmas | None = None,
    mean: Any = None,
    std: Any = None,
    bgr: bool = False,
    confidence: float = 0.7,
    min_confidence: float | None = None,
    ignore_index: int | None = None,
    n_labels: int | None = None,
) -> Any:
    """Sharpen a segmentation so that its edges follow the image's edges.

    Mean-field inference in a fully connected CRF (Krähenbühl & Koltun, NIPS 2011, algorithm 1). The
    defaults (Potts model, spatial kernel 3/6, bilateral kernel 30/13/10, thin structures held, 10
    iterations) were chosen on outputs of networks, see docs/quality.md; ``crfseg.CUSTOMARY`` holds
    what the field has settled on.

    ``x`` is one of five kinds, of any strides, read-only or not:

    ==========  ================================  ==========================================
    kind        x                                 result for ``returns="same"``
    ==========  ================================  ==========================================
    "probs"     floats that sum to 1 over labels  probabilities
    "logits"    finite scores before softmax of   log-probabilities, at least -87.4
                two labels or more
    "scores"    floats of at least 0 for two      probabilities
                labels or more, of any sum
    "labels"    integers (H, W) or (N, H, W)      labels
    "mask"      bool, {0, 1}, {0, 255} or float   a mask of the same values; for floats the
                foreground probability, (H, W)    refined foreground probability
                or (N, H, W)
    ==========  ================================  ==========================================

    A mask may have a label axis of length 1, as a sigmoid's output has; the result then has it too.

    Volumes have an axis D before H and W, everywhere, and the image as many: (D, H, W),
    (D, H, W, K) or (K, D, H, W), K <= 13. They are recognised where these lengths agree; where the
    arrays may be a batch of images as well, ``layout`` says which. Their default kernels are
    spatial 1/1 and bilateral 5/25/3, chosen on brain tumours at voxels of 1 mm: docs/quality.md.
    They are neither upsampled nor are thin structures held.

    Args:
        x: numpy array, torch tensor, or anything with ``__array__`` or ``__dlpack__`` (which comes
            back as numpy). An array on a CUDA device (of torch, or any with ``__dlpack__`` or
            ``__cuda_array_interface__``) is refined there and the result is on that device, the
            image there or in CPU memory: docs/cuda.md. Where a tensor of floats requires a gradient
            it gets one, unless labels are returned; for those of weights, sigmas or the image see
            ``crfseg.torch``.
        image: (H, W) or (H, W, K) array, K <= 14, or PIL image of mode "RGB" or a grey one: uint8
            (levels 0..255), uint16 (0..65535) or float (0..1). Every channel of an array counts,
            the fourth of an RGBA array like a colour. For a batch (N, H, W, K) or a list of N;
            an image that is in no list, or an array (1, H, W, K), serves all items. None only if
            no term looks at it.
        preset: the name of published parameters (``crfseg.presets.list()``), a file of your own,
            or a ``crfseg.presets.Preset``. Other keywords go before what it says.
        kind: "auto" takes bool for a mask, integers for labels and floats for probabilities, and
            raises if the values say otherwise, or if several label maps for one image may be
            scores.
        layout: "CHW", "HWC", "NCHW", "NHWC", "HW" or "NHW", those of volumes have a D before H;
            None finds it by the image's size.
        spatial: (sigma_xy, weight) of the ``Gaussian`` term, sigma in pixels, or one for each of x,
            y (, z); None for none.
        bilateral: (sigma_xy, sigma_rgb, weight) of the ``Bilateral`` term, sigma_rgb in levels of
            0..255 for every dtype of the image, or one for each channel; None for none.
        pairwise: list of terms instead of ``spatial`` and ``bilateral``; a ``Bilateral`` without an
            image of its own takes ``image``.
        compatibility: None or ``Potts``, a (C,) vector or a (C, C) matrix, as for ``DenseCRF``.
        keep_thin: side of a square in pixels: where no such square with one label (the most
            probable one) covers a pixel, its unary counts 32 times, so that kernels that are
            strong enough for large regions do not erase what is thin. 0 for none. "auto" is 21
            for scores of every label with the default kernels, else 0. Where more than half
            of an image is thin, it is noise and nothing is held.
        iterations: updates; 0 gives softmax of the unary.
        tolerance: stop as soon as no marginal changes by this much; 0 never stops early.
        solver: ``MeanField``, ``FrankWolfe``, or a name, as for ``DenseCRF.infer``. Mean field is
            the fastest at equal quality where labels attract; "damped" is for those that repel.
        skip: leave labels out where they are known to have next to no mass, see
            ``DenseCRF.infer``; ``tolerance=0, skip=False`` evaluates every label everywhere.
        normalization: of the kernels: "symmetric", "after", "before" or "none", as for ``Lattice``.
        accuracy: "fast", or "fine" for a filter closer to the exact Gaussian at a higher cost.
        upsample: "auto" stretches scores bilinearly to the image where their sizes are related by
            one whole stride: image = s * scores ("half-pixel") or image - 1 = s * (scores - 1)
            ("align-corners"). Either name stretches at any ratio. False wants equal sizes. Float
            foreground probabilities are stretched like scores; labels and hard masks never are.
        returns: "same" kind as x; "probs", float marginals with a label axis (for a mask the
            foreground probability); or "labels", most probable labels without label axis, uint8 up
            to 256 labels, else int32, for labels the dtype of x.
        threads: of the CPU, None for ``get_num_threads()``. They work on images of a batch side by
            side where there are enough, else inside an image. Results do not depend on it. Where x
            gets a gradient, ``get_num_threads()`` counts.
        storage: on CUDA devices, what marginals are stored as between steps: "float16" takes half
            the memory and traffic and moves marginals by some thousandths, more where scores lean
            to no label; where halves will not do, they are not used. CPUs have "float32" alone.
        scale: what sigma_xy of ``spatial`` and ``bilateral`` are divided by: how many times smaller
            the image is than those they were chosen for.
        image_range: (lo, hi), the values of the image that mean levels 0 and 255; or a list of such
            pairs, one per channel.
        image_layout: the order of the image's axes, or of every one's in a list, in the letters N,
            D, H, W and K for channels: "KHW" for channels first; None for channels last, and for
            volumes whatever fits.
        spacing: distance of neighbouring points, one number or one per axis in the order of the
            array's axes: (dy, dx) or (dz, dy, dx). ``sigma_xy`` is in the same unit.
        mean: what a network's input has been normalised by, ``(values - mean) / std``, which is
            undone: one number or one per channel in the image's order, of values in 0..1, in
            0..255 where a mean is above 1, or in ``image_range``.
        std: as ``mean``; either may be left out.
        bgr: whether the image has blue first, as OpenCV reads it. Results are those of RGB.
        confidence: how far labels and hard masks are trusted: the probability of the given label.
        min_confidence: labels that are returned and have a smaller marginal become
            ``ignore_index``, or 255 if that is None.
        ignore_index: the mark of points without a label; see ``unary_from_labels``.
        n_labels: C where x holds labels; None takes the largest that occurs, plus one.

    Returns:
        The refined segmentation in the container, layout and dtype of ``x`` and the size of
        ``image``; see ``kind`` and ``returns``. An empty batch comes back empty.

    Raises:
        ValueError: if sizes do not match, values are not what the kind says, or more than one
            reading of the arguments is possible.
        TypeError: if an argument or a dtype is of the wrong type.
        MemoryError: if the job cannot fit into memory, before anything is touched; or into that of
            the device.
        CudaError: if x is on a device that cannot be used, or a call of CUDA failed.
    """
    del preset  # its options are among the others: takes_preset has seen to it
    check.choice(_WHERE, "kind", kind, KINDS)
    check.choice(_WHERE, "layout", layout, (None, *LAYOUTS, *VOLUME_LAYOUTS))
    check.choice(_WHERE, "image_layout", image_layout, (None, *IMAGE_LAYOUTS))
    check.choice(_WHERE, "upsample", upsample, UPSAMPLE)
    check.choice(_WHERE, "returns", returns, RETURNS)
    check.choice(_WHERE, "normalization", normalization, tuple(NORMALIZATIONS))
    check.choice(_WHERE, "accuracy", accuracy, tuple(ACCURACIES))
    iterations = check.integer(_WHERE, "iterations", iterations)
    tolerance = check.non_negative(_WHERE, "tolerance", tolerance)
    solver = resolve(_WHERE, solver)
    is_default = pairwise is None and _same(spatial, _SPATIAL) and _same(bilateral, _BILATERAL)
    side = _side(keep_thin, is_default)
    check.flag(_WHERE, "skip", skip)
    n_threads = threads_of_call(_WHERE, threads)
    follow_environment(_WHERE)
    value_range = checked_range(_WHERE, image_range)
    scale = check.positive(_WHERE, "scale", scale)
    spacing = checked_spacing(_WHERE, spacing)
    check.choice(_WHERE, "storage", storage, ("float32", "float16"))
    device, opened, image = open_call(_WHERE, x, image, kind)
    array, restore = open_array(_WHERE, "x", opened)
    axes = read_axes(_WHERE, array, kind, layout, image, image_layout, spacing)
    if axes.is_volume:
        side = 0 if keep_thin == "auto" else side
        spatial = _VOLUME_SPATIAL if spatial is _SPATIAL else spatial
        bilateral = _VOLUME_BILATERAL if bilateral is _BILATERAL else bilateral
    if device is None and storage != "float32":
        raise fault_device.only_on_devices(_WHERE, f"storage={storage!r}")
    terms = beside_call(_WHERE, device, _terms(spatial, bilateral, pairwise, scale))
    if image is None and any(isinstance(one, Bilateral) and one.image is None for one in terms):
        raise fault.missing_image(_WHERE)

    images, value_range = prepared(_WHERE, _images(image, axes), mean, std, bgr, value_range)
    if axes.is_volume:
        scores = read_volumes(_WHERE, array, kind, axes, upsample, images)
    else:
        scores = read_scores(_WHERE, array, kind, layout, upsample, images)
    if iterations == 0 or (keep_thin == "auto" and not scores.is_soft):
        side = 0
    if side > 0 and axes.is_volume:
        raise fault_grids.only_for_images(_WHERE, "keep_thin", keep_thin)
    size = images.size or tuple(scores.grid.values())
    n_items = scores.sizes.get("N", 1)
    if image is not None and not images.is_shared and len(images.arrays) != n_items:
        raise fault.wrong_batch(_WHERE, n_items, len(images.arrays))
    check_spacing(_WHERE, spacing, size)
    model = Model(
        compatibility=compatibility,
        normalization=normalization,
        accuracy=accuracy,
        iterations=iterations,
        tolerance=tolerance,
        solver=solver,
        skip=skip,
        returns=returns,
        confidence=confidence,
        min_confidence=min_confidence,
        ignore_index=ignore_index,
        n_labels=n_labels,
        storage=storage,
    )
    return run(
        *(_WHERE, x, restore, scores, size, images, value_range, with_spacing(terms, spacing)),
        *(side, model, n_threads, device),
    )


def _images(image: Any, axes: Axes) -> Images:
    if image is None or axes.image_layout is None:
        return open_images(_WHERE, image)
    return open_laid_images(_WHERE, image, axes.image_layout)


def _same(given: Any, default: tuple[float, ...]) -> bool:
    return isinstance(given, tuple | list) and (
        len(given) == len(default)
        and all(check.is_number(a) and a == b for a, b in zip(given, default, strict=True))
    )


def _side(keep_thin: Any, is_default: bool) -> int:
    if isinstance(keep_thin, str):
        check.choice(_WHERE, "keep_thin", keep_thin, ("auto",))
        return _THIN if is_default else 0
    return check.integer(_WHERE, "keep_thin", keep_thin)


def _terms(spatial: Any, bilateral: Any, pairwise: Any, scale: float) -> list[Term]:
    if pairwise is not None:
        for name, given, defaults in (
            ("spatial", spatial, (_SPATIAL, _VOLUME_SPATIAL)),
            ("bilateral", bilateral, (_BILATERAL, _VOLUME_BILATERAL)),
        ):
            if given is not None and not any(given is default for default in defaults):
                raise fault.two_models(_WHERE, name)
        if scale != 1:
            raise fault.scaled_terms(_WHERE, scale)
        return check_terms(_WHERE, pairwise)
    if spatial is _SPATIAL and bilateral is _BILATERAL and scale == 1:
        return list(_TERMS)
    terms: list[Term] = []
    if spatial is not None:
        xy, weight = check.parts(_WHERE, "spatial", spatial, ("sigma_xy", "weight"))
        xy = _scaled(_sigmas("spatial sigma_xy", xy), scale)
        terms.append(Gaussian(xy, _weight("spatial weight", weight)))
    if bilateral is not None:
        names = ("sigma_xy", "sigma_rgb", "weight")
        xy, rgb, weight = check.parts(_WHERE, "bilateral", bilateral, names)
        xy = _scaled(_sigmas("bilateral sigma_xy", xy), scale)
        rgb = _sigmas("bilateral sigma_rgb", rgb)
        terms.append(Bilateral(None, xy, rgb, _weight("bilateral weight", weight)))
    return terms


def _sigmas(name: str, value: Any) -> Sigmas:
    return check.sigmas(_WHERE, name, value)


def _scaled(sigmas: Sigmas, scale: float) -> Sigmas:
    return tuple(s / scale for s in sigmas) if isinstance(sigmas, tuple) else sigmas / scale


def _weight(name: str, value: Any) -> float:
    return check.non_negative(_WHERE, name, value)
