# SPDX-License-Identifier: MIT
"""What refine() and refine_points() do once they know what x, the image and the terms are."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault as fault
from . import _fault_device as fault_device
from . import _memory as memory
from ._containers import Restore, requires_gradient
from ._device import Place, explained, refuse_capture, require, require_pool
from ._device_arrays import (
    beside,
    device_type,
    is_on_device,
    let_go,
    open_on_device,
    to_host,
)
from ._device_job import DeviceJob, require_size
from ._device_kernels import DeviceKernels
from ._device_unaries import DeviceUnaries
from ._image import Images, Ranges
from ._items import Items
from ._kernels import Kernels
from ._results import Form, Result, checked_unsure, form_of
from ._scores import Scores
from ._unaries import Unaries
from .compatibility import Compatibility
from .lattice import ACCURACIES
from .pairwise import Bilateral, Grid, Term
from .solvers import FrankWolfe, MeanField, native, rows_kept


class Model(NamedTuple):
    """The arguments about the model and about inference, checked one by one."""

    compatibility: Compatibility
    normalization: str
    accuracy: str
    iterations: int
    tolerance: float
    solver: MeanField | FrankWolfe
    skip: bool
    returns: str
    confidence: float
    min_confidence: float | None
    ignore_index: int | None
    n_labels: int | None
    storage: str = "float32"


class OnDevice(NamedTuple):
    """Where x lies, and its type: None for bfloat16."""

    place: Place
    x_type: np.dtype[Any] | None


def open_call(where: str, x: Any, image: Any, kind: str) -> tuple[OnDevice | None, Any, Any]:
    """Where x is, and x and what lies beside it as they can be read.

    Labels and masks are read on the host, which looks at their values.
    """
    if not is_on_device(x):
        return None, x, image
    require(where)
    with explained(where, "x"):
        opened = open_on_device(where, "x", x)
        place = opened.remote.place
        is_hard = opened.dtype.kind != "f" or kind == "mask"
        require_pool(where, place)
        if is_hard:
            refuse_capture(where, place)
        given = to_host(opened) if is_hard else opened
        return OnDevice(place, device_type(opened)), given, _beside(where, "image", image, place)


def beside_call(where: str, device: OnDevice | None, terms: list[Term]) -> list[Term]:
    """The terms, whose own images may be where x is."""
    if device is None:
        return terms
    return [
        replace(term, image=_beside(where, "Bilateral image", term.image, device.place))
        if isinstance(term, Bilateral) and term.image is not None
        else term
        for term in terms
    ]


def _beside(where: str, name: str, image: Any, place: Place) -> Any:
    for one in image if isinstance(image, list | tuple) else [image]:
        if requires_gradient(one):
            raise fault.no_gradient(where, name)
    return beside(where, name, image, place)


def run(
    where: str,
    x: Any,
    restore: Restore,
    scores: Scores,
    grid: Grid,
    images: Images,
    scale: Ranges | None,
    terms: Sequence[Term],
    keep_thin: int,
    model: Model,
    threads: int,
    device: OnDevice | None = None,
) -> Any:
    """The refined segmentation, in the container of ``x``."""
    array, n_items = scores.array, scores.sizes.get("N", 1)
    is_mark_given = model.min_confidence is None or scores.kind == "labels"
    unaries = Unaries(
        where,
        scores,
        grid,
        model.n_labels,
        model.confidence,
        model.ignore_index if is_mark_given else None,  # else it is for the result alone
        keep_thin,
    )
    marks = (model.min_confidence, model.ignore_index)
    unsure = checked_unsure(where, *marks, scores, model.returns, unaries.n_labels)
    form = form_of(scores, model.returns, unaries.n_labels, unsure)
    if n_items == 0 and device is None:
        return restore(Result(form, scores, grid, unaries.n_labels).array)
    kernels = Kernels(
        *(where, terms, grid, images.n_channels, unaries.n_labels),
        compatibility=model.compatibility,
        normalization=model.normalization,
        accuracy=ACCURACIES[model.accuracy],
    )
    if requires_gradient(x) and form.is_soft:
        from .torch.refinement import refine_tensor

        return refine_tensor(
            *(where, x, scores, grid, form, kernels, images, scale),
            *(model.iterations, model.tolerance, model.accuracy, model.solver, keep_thin),
        )
    if device is not None:
        job = _device_job(
            *(where, device, scores, grid, unaries, kernels, images, scale, form, model, keep_thin)
        )
        n_types = len({image.dtype for image in images.arrays})
        at_once = max(1, n_items if n_types < 2 else 1)
        read = [array, *images.arrays, *(kernel.own_image for kernel in kernels.settled)]
        try:
            return job.run(x, device.x_type, n_items, at_once)
        finally:
            let_go(where, read, device.place)
    item_bytes = _item_bytes(grid, unaries, kernels, rows_kept(model.solver))
    result_bytes = form.bytes_of(n_items, grid, unaries.n_labels)
    memory.require(where, _in_words(array, unaries, kernels), item_bytes + result_bytes)
    with memory.explained(where, f"x of shape {array.shape}"):
        result = Result(form, scores, grid, unaries.n_labels)
        items = Items(
            *(where, grid, unaries, kernels, images, scale, result),
            *(model.iterations, model.tolerance, native(model.solver), model.skip),
        )
        items.refine(n_items, threads, item_bytes)
    return restore(result.array)


def _device_job(
    where: str,
    device: OnDevice,
    scores: Scores,
    grid: Grid,
    unaries: Unaries,
    kernels: Kernels,
    images: Images,
    scale: Ranges | None,
    form: Form,
    model: Model,
    keep_thin: int,
) -> DeviceJob:
    if not isinstance(model.solver, MeanField):
        raise fault_device.not_there(where, f"solver={model.solver}", "mean field, damped or not")
    require_size(where, unaries.n_labels)
    accuracy = ACCURACIES[model.accuracy]
    return DeviceJob(
        *(where, device.place, grid, scores, unaries.n_labels),
        DeviceUnaries(where, device.place, scores, unaries),
        DeviceKernels(where, device.place, kernels.settled, grid, accuracy, images, scale),
        *(form, unaries.foreground, model.iterations, model.tolerance, model.solver.damping),
        *(keep_thin, model.storage == "float16"),
    )


def _item_bytes(grid: Grid, unaries: Unaries, kernels: Kernels, rows: int) -> int:
    """What one item needs at least, x and the result aside."""
    n_points = math.prod(grid)
    needed = memory.mean_field_bytes(n_points, unaries.n_labels, kernels.dims)
    return needed + unaries.n_bytes + rows * memory.unary_bytes(n_points, unaries.n_labels)


def _in_words(array: NDArray[Any], unaries: Unaries, kernels: Kernels) -> str:
    """The job, for whom it is too big."""
    kernel_words = f"{len(kernels.dims)} kernel{'s' * (len(kernels.dims) != 1)}"
    return f"x of shape {array.shape} with {unaries.n_labels} labels and {kernel_words}"
