# SPDX-License-Identifier: MIT
"""Lattices equal the CPU's: vertices and keys exactly, filters as far as sums in another order."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg._native import NORMALIZATIONS
from gpu import scenes
from gpu.keys import keys_of
from gpu.native import Bound, Native, cpu_lattice
from gpu.place import native_module, place_of
from gpu.sections import Context

Images = NDArray[np.uint8]
BILATERAL, NARROW, SPATIAL = (80.0, 13.0), (121.0, 5.0), (3.0, None)
ROUNDING = 2e-6  # of the largest value: float32 sums of as many, in another order
MOST_IDENTITY = 600  # points whose filter is looked at entry by entry: corners, weights, neighbours


def cases(context: Context) -> dict[str, Images]:
    """Images by what is special about them."""
    tiny = {
        "one pixel": scenes.noise(1, 1, 1),
        "one row of 37": scenes.noise(1, 1, 37),
        "17 x 33": scenes.blocks(1, 17, 33),
        "constant": scenes.constant(1, 20, 30),
        "noise": scenes.noise(1, 18, 23),
        "batch of 3": scenes.blocks(3, 17, 19),
    }
    if context.emulated:
        return tiny
    large = {"500 x 375": scenes.photograph(375, 500)[0]}
    if not context.quick:
        large["batch of 4"] = scenes.variants(large["500 x 375"], 4)
    return {**tiny, **large}


def run(context: Context) -> None:
    native = Native(native_module(context), place_of(context))
    of_sigmas = (BILATERAL, SPATIAL) if context.quick else (BILATERAL, NARROW, SPATIAL)
    for (name, images), sigmas in itertools.product(cases(context).items(), of_sigmas):
        what = f"{name}, sigmas {'/'.join(f'{s:g}' for s in sigmas if s)}"
        with context.report.part(what):
            check(context, native, images, sigmas, what)


def check(
    context: Context, native: Native, images: Images, sigmas: tuple[float, float | None], what: str
) -> None:
    """One lattice of a batch against one of every item."""
    size = images.shape[1:3]
    held = None if sigmas[1] is None else native.place.put(images)
    lattice = native.lattice(held, len(images), size, *sigmas)
    on_cpu = [cpu_lattice(image, *sigmas) for image in images]
    expected = sum(one.n_vertices for one in (on_cpu[:1] if held is None else on_cpu))
    context.report.holds(
        f"{what}: vertices", lattice.n_vertices == expected, f"{lattice.n_vertices}, {expected}"
    )
    if len(images) == 1:
        with context.report.part(f"{what}: keys"):
            found = lattice.keys(device=0, stream=native.place.stream)
            same = np.array_equal(found, keys_of(images[0], Bound.of(size, *sigmas)))
            context.report.holds(f"{what}: keys, in their order", same)
    worst, where = 0.0, ""
    for normalization, transpose in itertools.product(NORMALIZATIONS, (False, True)):
        off = filter_off(native, lattice, on_cpu, size, normalization, transpose=transpose)
        if not off <= worst:
            worst, where = off, f" ({normalization}{', transposed' * transpose})"
    context.report.near(f"{what}: filter, relative{where}", worst, ROUNDING)


def filter_off(
    native: Native,
    lattice: Any,
    on_cpu: list[Any],
    size: tuple[int, int],
    normalization: str,
    *,
    transpose: bool,
) -> float:
    """The largest difference from the CPU's filter, relative to the largest value."""
    n_points, how = size[0] * size[1], NORMALIZATIONS[normalization]
    values = np.random.default_rng(3).uniform(-1, 1, (len(on_cpu), n_points, 4))
    if n_points <= MOST_IDENTITY:
        values = np.broadcast_to(np.eye(n_points), (len(on_cpu), n_points, n_points))
    given = np.ascontiguousarray(values, np.float32)
    found = native.filter(lattice, given, how, on_cpu[0].gain, transpose=transpose)
    expected = [one.filter(v, how, transpose, 1) for one, v in zip(on_cpu, given, strict=True)]
    return float(np.abs(found - np.stack(expected)).max() / max(1.0, np.abs(expected).max()))
