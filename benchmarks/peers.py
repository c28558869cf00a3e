# SPDX-License-Identifier: MIT
"""The contenders: one function each, from probabilities and an image to Q.

Every one does the same work: (C, H, W) float32 probabilities and an (H, W, 3) uint8 image in, the
mean field of two Potts kernels with symmetric normalisation after 10 iterations out, as a
(C, H, W) float32 array. "crfseg coarse" and "crfseg labels" get the coarse scores instead, which
they stretch themselves, and the latter gives (H, W) labels. Libraries are imported when a contender
is made, not with this file.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parameters import ITERATIONS, Parameters

Floats = NDArray[np.float32]
Refine = Callable[..., Floats]  # (probs, image, parameters, iterations=10)


class Contender(NamedTuple):
    """A library, set up: ``refine`` does the work, the rest goes into the table."""

    name: str
    version: str
    isa: str
    threads: int
    refine: Refine
    takes: str = "probs"  # or "scores"


class Variant(NamedTuple):
    """A way to use crfseg: arguments of ``refine`` and what is set before the first call."""

    shown: str  # in tables
    arguments: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it
    cache_bytes: int = 0
    takes: str = "probs"


COARSE = {"kind": "logits", "layout": "CHW", "upsample": "half-pixel"}
VARIANTS = {
    "crfseg fast": Variant("crfseg"),
    "crfseg fine": Variant("crfseg fine", {"accuracy": "fine"}),
    "crfseg full": Variant("crfseg full", {"skip": False}),
    "crfseg cached": Variant("crfseg cached", cache_bytes=1 << 30),
    "crfseg coarse": Variant("crfseg coarse", {**COARSE, "returns": "probs"}, takes="scores"),
    "crfseg labels": Variant("crfseg labels", {**COARSE, "returns": "labels"}, takes="scores"),
}


def available_isas() -> list[str]:
    """Instruction sets of this machine, slowest first."""
    import crfseg as library

    found: list[str] = library.info()["isas"]
    return found


def crfseg(variant: Variant, threads: int, isa: str | None) -> Contender:
    """``crfseg.refine`` as its users call it; threads 0 means all cores."""
    if isa:
        os.environ["CRFSEG_ISA"] = isa
    import crfseg as library

    n_threads = threads or library.get_num_threads()
    if variant.cache_bytes:
        library.set_cache_limit(variant.cache_bytes)

    def refine(
        x: Floats, image: NDArray[np.uint8], parameters: Parameters, iterations: int = ITERATIONS
    ) -> Floats:
        result: Floats = library.refine(
            x,
            image,
            spatial=parameters.spatial,
            bilateral=parameters.bilateral,
            iterations=iterations,
            threads=n_threads,
            **{"kind": "probs", **variant.arguments},
        )
        return result

    isa = library.info()["isa"]
    return Contender(variant.shown, library.__version__, isa, n_threads, refine, variant.takes)


def pydensecrf2() -> Contender:
    """The field's standard as its README uses it, compiled as pip does it; it has one thread."""
    densecrf, unary_from_softmax = peer()

    def refine(
        probs: Floats,
        image: NDArray[np.uint8],
        parameters: Parameters,
        iterations: int = ITERATIONS,
    ) -> Floats:
        n_labels, height, width = probs.shape
        (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = parameters
        crf = densecrf.DenseCRF2D(width, height, n_labels)
        crf.setUnaryEnergy(unary_from_softmax(probs))
        crf.addPairwiseGaussian(sxy=sigma, compat=weight)
        crf.addPairwiseBilateral(sxy=sigma_xy, srgb=sigma_rgb, rgbim=image, compat=bilateral_weight)
        return np.array(crf.inference(iterations)).reshape(probs.shape)

    return Contender("pydensecrf2", metadata.version("pydensecrf2"), "sse2", 1, refine)


def peer() -> tuple[Any, Any]:
    """Pydensecrf's module, and what its programs begin with; without them this one ends."""
    try:
        densecrf = import_module("pydensecrf.densecrf")
    except ModuleNotFoundError:
        sys.exit("pydensecrf2 is not installed: make peer")
    return densecrf, import_module("pydensecrf.utils").unary_from_softmax


def contender(name: str, threads: int, isa: str | None) -> Contender:
    """By name: "pydensecrf2" or one of `VARIANTS`."""
    if name == "pydensecrf2":
        return pydensecrf2()
    return crfseg(VARIANTS[name], threads, isa)


def pydensecrf2_filters(
    unary: Floats, image: NDArray[np.uint8], parameters: Parameters
) -> tuple[Floats, Floats]:
    """Both kernels' filters of softmax(-unary), (N, C) each, up to a number per pixel.

    pydensecrf2 shows no filter, but one mean-field update with one kernel of weight 1 gives
    Q_1 = softmax(-unary + K Q_0), hence K Q_0 = log Q_1 + unary + a number per pixel.
    """
    densecrf, _ = peer()
    height, width = image.shape[:2]
    (sigma, _), (sigma_xy, sigma_rgb, _) = parameters

    def update(add: Callable[[Any], None]) -> Floats:
        crf = densecrf.DenseCRF2D(width, height, unary.shape[1])
        crf.setUnaryEnergy(np.ascontiguousarray(unary.T))
        add(crf)
        return np.asarray(np.log(np.array(crf.inference(1)).T) + unary, np.float32)

    return (
        update(lambda crf: crf.addPairwiseGaussian(sxy=sigma, compat=1)),
        update(
            lambda crf: crf.addPairwiseBilateral(
                sxy=sigma_xy, srgb=sigma_rgb, rgbim=image, compat=1
            )
        ),
    )
