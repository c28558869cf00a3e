# SPDX-License-Identifier: MIT
"""The same work by others on this machine: the CPU twin, pydensecrf2, a plain torch lattice."""

import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import crfseg
import torch_lattice
from gpu import scenes
from gpu.clock import timed
from gpu.expected import BILATERAL, ITERATIONS, MODEL, SPATIAL
from gpu.inputs import PARAMETERS, inputs, size_and_labels
from gpu.place import torch_device
from gpu.report import LeftOut
from gpu.sections import Context
from table import median

CLOSE = 1e-3  # of the plain lattice: refine leaves labels out that have next to no mass
CALLS = 5


def run(context: Context) -> None:
    report = context.report
    for n_items in (1, 2) if context.emulated else (1, 16):
        with report.part(f"plain torch lattice, batch {n_items}"):
            plain_lattice(context, n_items)
    with report.part("the CPU twin"):
        cpu_twin(context)
    with report.part("pydensecrf2"):
        peer(context)


def plain_lattice(context: Context, n_items: int) -> None:
    device, report = torch_device(context), context.report
    given = inputs(context, n_items)

    def plainly(i: int) -> torch.Tensor:
        logits, images = given.sets[i % len(given.sets)]
        return torch_lattice.refine(logits, images, iterations=ITERATIONS, **PARAMETERS["80/13"])

    off = float((plainly(0) - given.refine(0, "80/13")).abs().max())
    report.near(f"batch {n_items}: plain torch lattice, max |dQ|", off, CLOSE)
    runs = 3 if context.emulated else 20
    theirs = timed(plainly, device, runs)
    ours = timed(lambda i: given.refine(i, "80/13"), device, runs)
    ratio = theirs.back_to_back_ms / ours.back_to_back_ms
    report.measured(
        f"batch {n_items}, plain torch lattice, ms", theirs.ms, f"(iqr {theirs.iqr:.0%})"
    )
    report.measured(f"batch {n_items}, crfseg, ms", ours.ms, f"(iqr {ours.iqr:.0%})")
    report.measured(f"batch {n_items}, times as fast as the plain torch lattice", ratio, "")


def on_host(context: Context) -> tuple[Any, Any]:
    """One set of logits and an image as arrays."""
    size, n_labels = size_and_labels(context)
    return scenes.logits(1, n_labels, *size), scenes.photograph(*size)[0]


def cpu_twin(context: Context) -> None:
    logits, images = on_host(context)
    for threads in sorted({1, os.cpu_count() or 1}):
        ms = call_ms(lambda n=threads: crfseg.refine(logits, images, threads=n, **MODEL))
        context.report.measured(f"CPU twin, {threads} threads, ms", ms, f"(median of {CALLS})")


def peer(context: Context) -> None:
    if importlib.util.find_spec("pydensecrf") is None:
        raise LeftOut("it is not installed")
    from pydensecrf.densecrf import DenseCRF2D

    logits, images = on_host(context)
    _, n_labels, height, width = logits.shape
    unary = np.ascontiguousarray(-logits[0].reshape(n_labels, -1))

    def infer() -> None:
        crf = DenseCRF2D(width, height, n_labels)
        crf.setUnaryEnergy(unary)
        crf.addPairwiseGaussian(sxy=SPATIAL[0], compat=SPATIAL[1])
        crf.addPairwiseBilateral(
            sxy=BILATERAL[0], srgb=BILATERAL[1], rgbim=images[0], compat=BILATERAL[2]
        )
        np.array(crf.inference(ITERATIONS))

    context.report.measured("pydensecrf2, 1 thread, ms", call_ms(infer), f"(median of {CALLS})")


def call_ms(work: Callable[[], object]) -> float:
    """Milliseconds of a call after the first."""
    work()
    found = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return 1e3 * median(found)
