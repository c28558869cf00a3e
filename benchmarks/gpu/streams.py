# SPDX-License-Identifier: MIT
"""Streams, threads, graphs: the order of the caller's stream is kept, and no state is shared."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import crfseg
import crfseg.graphs
from gpu import scenes
from gpu.expected import BILATERAL, ITERATIONS, KERNELS, MODEL
from gpu.native import Native, gain_of
from gpu.place import OnDevice, TorchPlace, native_module
from gpu.sections import Context
from torch_lattice import TorchLattice, features_of

SIZE = (375, 500)
REPEATS = 20
SPIN = 50_000_000  # cycles that keep a stream busy while work is put behind them: 25 ms


def run(context: Context) -> None:
    images = torch.from_numpy(scenes.variants(scenes.photograph(*SIZE)[0], 2)).cuda()
    logits = torch.from_numpy(scenes.logits(2, 21, *SIZE)).cuda()
    report = context.report
    for what, check in (
        ("a side stream", side_stream),
        ("two threads on two streams", two_threads),
        ("graph of the native module", native_graph),
        ("graph of refine", refine_graph),
    ):
        with report.part(what):
            check(context, logits, images)


def refine(logits: Tensor, images: Tensor) -> Tensor:
    found: Tensor = crfseg.refine(logits, images, **MODEL)
    return found


def repeated(logits: Tensor, images: Tensor) -> list[NDArray[Any]]:
    """Twenty results on one stream."""
    return [refine(logits, images).cpu().numpy() for _ in range(REPEATS)]


def side_stream(context: Context, logits: Tensor, images: Tensor) -> None:
    """Inputs that the stream has yet to write: a call that ran elsewhere would read zeros."""
    expected = refine(logits, images).cpu().numpy()
    late, stream = torch.zeros_like(logits), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SPIN)  # noqa: SLF001 - what torch's own tests use
        late.copy_(logits)
        found = refine(late, images)
        late.zero_()
    stream.synchronize()
    same = np.array_equal(found.cpu().numpy(), expected)
    context.report.holds("a side stream's order is kept", same)
    runs = repeated(logits, images)
    context.report.holds(
        "20 results are bit-identical", all(np.array_equal(r, expected) for r in runs)
    )


def two_threads(context: Context, logits: Tensor, images: Tensor) -> None:
    inputs = [(logits[i : i + 1], images[i : i + 1]) for i in range(2)]
    expected = [refine(*one).cpu().numpy() for one in inputs]
    found: list[list[NDArray[Any]]] = [[], []]

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            found[i] = repeated(*inputs[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(2):
        same = sum(np.array_equal(one, expected[i]) for one in found[i])
        context.report.holds(f"thread {i}'s results", same == REPEATS, f"{same} of {REPEATS}")


def native_graph(context: Context, logits: Tensor, images: Tensor) -> None:
    """Lattices with room given, field and inference, captured once and replayed on other inputs."""
    place = TorchPlace()
    module = native_module(context)
    n_items, _, height, width = shape = tuple(logits.shape)
    size = (height, width)
    keep: list[Tensor] = []

    def allocate(n_bytes: int) -> tuple[int, Any]:
        tensor = torch.empty(max(n_bytes, 1), dtype=torch.uint8, device="cuda")
        keep.append(tensor)  # a replay works in the same memory
        return tensor.data_ptr(), tensor

    native = Native(module, place, allocate)
    rooms = []
    for sigma_xy, sigma_rgb, _ in KERNELS:
        given = None if sigma_rgb is None else OnDevice(images)
        built = native.lattice(given, n_items, size, sigma_xy, sigma_rgb)
        rooms.append((built.n_rows + built.n_rows // 2, built.n_vertices + built.n_vertices // 2))
    scores, pictures, out = logits.clone(), images.clone(), torch.zeros_like(logits)

    def once() -> None:
        lattices = []
        for (sigma_xy, sigma_rgb, weight), room in zip(KERNELS, rooms, strict=True):
            given = None if sigma_rgb is None else OnDevice(pictures)
            lattice = native.lattice(given, n_items, size, sigma_xy, sigma_rgb, room)
            lattices.append((lattice, gain_of(lattice.dim), weight))
        field = native.field(OnDevice(scores), shape, lattices)
        native.infer(field, OnDevice(out), shape, ITERATIONS)

    graph = captured(once)
    for order in ([0, 1], [1, 0]):
        scores.copy_(logits[order])
        pictures.copy_(images[order])
        out.fill_(float("nan"))
        graph.replay()
        plain = Native(module, place).marginals(
            scores.cpu().numpy(), pictures.cpu().numpy(), KERNELS, ITERATIONS
        )
        same = np.array_equal(out.cpu().numpy(), plain)
        context.report.holds(f"native module, replayed on items {order}", same)


def refine_graph(context: Context, logits: Tensor, images: Tensor) -> None:
    """``refine`` in a room that is large enough, replayed on other inputs; and without a room."""
    scores, pictures = logits.clone(), images.clone()
    graph, out, room = graph_of_refine(scores, pictures)
    for order in ([0, 1], [1, 0]):
        scores.copy_(logits[order])
        pictures.copy_(images[order])
        out.fill_(float("nan"))
        graph.replay()
        room.check()
        expected = refine(scores, pictures).cpu().numpy()
        same = np.array_equal(out.cpu().numpy(), expected)
        context.report.holds(f"refine, replayed on items {order}", same)
    pictures.random_(0, 256)  # noise has more vertices than there is room for
    graph.replay()
    context.report.holds("a replay that lacks room is found out", is_refused(room.check))
    bare = is_refused(lambda: captured(lambda: refine(logits, images), warm=False))
    context.report.holds("a capture without a room is refused", bare)
    torch.cuda.synchronize()
    again = refine(scores.copy_(logits), pictures.copy_(images)).cpu().numpy()
    expected = refine(logits, images).cpu().numpy()
    context.report.holds("results after that", np.array_equal(again, expected))


def graph_of_refine(scores: Tensor, pictures: Tensor) -> tuple[Any, Tensor, Any]:
    """The graph, what it writes, and the room it has: for twice the vertices there are."""
    sigma_xy, sigma_rgb, _ = BILATERAL
    plain = TorchLattice(features_of(pictures, sigma_xy, sigma_rgb))
    room = crfseg.graphs.Room(max_vertices=2 * plain.n_vertices)
    out: list[Tensor] = []
    with room.held():
        graph = captured(lambda: out.append(refine(scores, pictures)))
    return graph, out[-1], room


def is_refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except Exception as error:
        print(f"refused: {type(error).__name__}: {error}")
        return True
    return False


def captured(work: Callable[[], object], *, warm: bool = True) -> Any:
    """Work as a graph, after it ran on a side stream as torch asks for."""
    if warm:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            work()
        stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
