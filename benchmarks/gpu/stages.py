# SPDX-License-Identifier: MIT
"""Stages of one image on the native module, an iteration's bytes, a graph of everything."""

from collections.abc import Callable
from typing import Any

import torch

from gpu.clock import RUNS, timed
from gpu.expected import ITERATIONS, KERNELS
from gpu.inputs import Inputs, inputs
from gpu.native import Native, gain_of
from gpu.place import OnDevice, TorchPlace, native_module
from gpu.sections import Context
from gpu.streams import captured, graph_of_refine
from gpu.traffic import Counts, bytes_of_iteration
from torch_lattice import TorchLattice, features_of

SIZE = (375, 500)
SHAPE = (1, 21, *SIZE)
TILE = 16


class Stages:
    """The headline, stage by stage, workspace from torch's caching allocator."""

    def __init__(self, context: Context, given: Inputs) -> None:
        def allocate(n_bytes: int) -> tuple[int, Any]:
            tensor = torch.empty(max(n_bytes, 1), dtype=torch.uint8, device="cuda")
            return tensor.data_ptr(), tensor

        self.given = given
        self.native = Native(native_module(context), TorchPlace(), allocate)
        self.out = torch.empty(SHAPE, device="cuda")
        self.rooms = [(0, 0)] * len(KERNELS)

    def lattice(self, i: int, k: int) -> Any:
        sigma_xy, sigma_rgb, _ = KERNELS[k]
        _, images = self.given.sets[i % len(self.given.sets)]
        held = None if sigma_rgb is None else OnDevice(images)
        return self.native.lattice(held, 1, SIZE, sigma_xy, sigma_rgb, self.rooms[k])

    def lattices(self, i: int) -> list[tuple[Any, float, float]]:
        built = [self.lattice(i, k) for k in range(len(KERNELS))]
        return [
            (one, gain_of(one.dim), weight)
            for one, (_, _, weight) in zip(built, KERNELS, strict=True)
        ]

    def field(self, i: int, lattices: list[tuple[Any, float, float]]) -> Any:
        logits, _ = self.given.sets[i % len(self.given.sets)]
        return self.native.field(OnDevice(logits), SHAPE, lattices)

    def infer(self, field: Any, iterations: int) -> None:
        self.native.infer(field, OnDevice(self.out), SHAPE, iterations)


def run(context: Context) -> None:
    given = inputs(context, 1)
    stages, report = Stages(context, given), context.report
    runs = 15 if context.quick else RUNS

    def measured(name: str, work: Callable[[int], object]) -> float:
        found = timed(work, "cuda", runs)
        report.measured(f"{name}, ms", found.back_to_back_ms, "")
        return found.back_to_back_ms

    built = stages.lattices(0)
    field = stages.field(0, built)
    measured("build, spatial lattice", lambda i: stages.lattice(i, 0))
    measured("build, bilateral lattice", lambda i: stages.lattice(i, 1))
    measured("unary", lambda i: stages.field(i, []))
    measured("unary and normalisation", lambda i: stages.field(i, built))
    none = measured("inference, 0 iterations", lambda _: stages.infer(field, 0))
    ten = measured("inference, 10 iterations", lambda _: stages.infer(field, ITERATIONS))
    with report.part("bytes"):
        count_bytes(context, stages, (ten - none) / ITERATIONS)
    with report.part("graph of all"):
        graph_of_all(stages, built, measured)


def count_bytes(context: Context, stages: Stages, ms: float) -> None:
    """Counted bytes of an iteration, and the rate at which they went."""
    _, images = stages.given.sets[0]
    n_points = SIZE[0] * SIZE[1]
    counts = []
    for k, (sigma_xy, sigma_rgb, _) in enumerate(KERNELS):
        plain = TorchLattice(features_of(images, sigma_xy, sigma_rgb))
        there = float((plain.neighbours < plain.n_vertices).float().mean())
        built = stages.lattice(0, k)
        counts.append(Counts(built.dim, n_points, built.n_rows, built.n_vertices, there))
        context.report.measured(f"lattice {k}, vertices", built.n_vertices, "")
        context.report.measured(f"lattice {k}, rows of tiles", built.n_rows, "")
        context.report.measured(f"lattice {k}, neighbours there", there, "")
    n_slots = -(-SIZE[0] // TILE) * -(-SIZE[1] // TILE) * TILE**2
    parts = bytes_of_iteration(counts, n_slots, SHAPE[1])
    for name, value in parts.items():
        context.report.measured(f"iteration, {name}", value / 1e6, "MB")
    total = sum(parts.values())
    context.report.measured("iteration, ms", ms, "")
    context.report.measured("iteration, MB", total / 1e6, "")
    context.report.measured("iteration, GB/s", total / ms / 1e6, "(counted bytes)")


def graph_of_all(
    stages: Stages, built: list[tuple[Any, float, float]], measured: Callable[..., float]
) -> None:
    """Lattices, unary and iterations as one graph, with room for half as much again."""
    stages.rooms = [(one.n_rows * 3 // 2, one.n_vertices * 3 // 2) for one, _, _ in built]

    def once() -> None:
        stages.infer(stages.field(0, stages.lattices(0)), ITERATIONS)

    measured("all, launched one by one", lambda _: once())
    graph = captured(once)
    measured("all, replayed as a graph", lambda _: graph.replay())
    of_refine, _, _ = graph_of_refine(*stages.given.sets[0])
    measured("refine, replayed as a graph", lambda _: of_refine.replay())
