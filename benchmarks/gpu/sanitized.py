# SPDX-License-Identifier: MIT
"""What compute-sanitizer watches: small lattices, filters and marginals, without torch."""

import numpy as np

from gpu import scenes
from gpu.driver import DriverPlace
from gpu.expected import CLOSE, KERNELS, off, on_cpu
from gpu.lattice import filter_off
from gpu.native import Native, cpu_lattice
from gpu.place import HostPlace, Place, native_module
from gpu.sections import Context

ITERATIONS = 10
LABELS = (2, 21, 70)


def run(context: Context) -> None:
    place: Place = HostPlace() if context.emulated else DriverPlace()
    native = Native(native_module(context), place)
    images = scenes.blocks(2, 9, 21)
    for n_labels in LABELS:
        logits = scenes.logits(2, n_labels, 9, 21)
        found = native.marginals(logits, images, KERNELS, ITERATIONS)
        what = f"{n_labels} labels, against the CPU"
        context.report.near(what, off(found, on_cpu(logits, images)), CLOSE)
    lattice = native.lattice(place.put(images), 2, (9, 21), 80.0, 13.0)
    on_host = [cpu_lattice(image, 80.0, 13.0) for image in images]
    for transpose in (False, True):
        found_off = filter_off(native, lattice, on_host, (9, 21), "symmetric", transpose=transpose)
        context.report.near(f"filter{', transposed' * transpose}", found_off, CLOSE)
    keys = lattice.keys(device=0, stream=place.stream)
    context.report.holds("keys differ", len(np.unique(keys, axis=0)) == lattice.n_vertices)
