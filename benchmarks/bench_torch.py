# SPDX-License-Identifier: MIT
"""The PyTorch layer: ``python benchmarks/bench_torch.py [--csv FILE]``.

Training steps (forward and backward pass) of ``crfseg.torch.CRF`` on a batch of four photographs of
321 x 321 with 21 classes and 5 iterations, against the forward passes alone that pydensecrf2 takes
for the same four: all in one process, in turn in every round, medians. Peaks of memory are those of
a process each, above what was there before. The run ends with an error where a bar is missed:
with all cores, forward and backward in at most half of the peer's time, a backward pass in at most
three times its forward pass, and, with ``recompute``, in at most twice the memory of inference. The
order is shuffled in every round; other solvers than mean field take part in the first ones alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import crfseg
from crfseg import FrankWolfe
from crfseg.torch import CRF
from photos import fit, load_photo
from table import MB, median, read_machine, spread, write_csv
from training import Trained
from worker import reset_peak, resident

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SIDE, CLASSES, ITERATIONS = 321, 21, 5
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "memory kept": {},
    "recompute": {"recompute": True},
    "last two steps": {"last": 2},
    "Potts, one weight per kernel": {"weights": "scalar", "compatibility": "potts"},
    "sigmas as well": {"learn": ("weights", "compatibility", "sigmas")},
    "image, exact": {"image_gradient": "exact"},
    "image, smooth": {"image_gradient": "smooth"},
    "damped": {"solver": "damped"},
    "Frank-Wolfe, half steps": {"solver": FrankWolfe(step=0.5)},
    "Frank-Wolfe, line search": {"solver": "frank-wolfe"},
    "the same, recompute": {"solver": "frank-wolfe", "recompute": True},
    "Euclidean, half steps": {"solver": FrankWolfe("euclidean", 0.5)},
    "Euclidean, line search": {"solver": "euclidean-frank-wolfe"},
}
HELD = ("default", "memory kept", "recompute", "Potts, one weight per kernel")
SLOW = frozenset(name for name, how in CHOICES.items() if "solver" in how)
SLOW_ROUNDS = 3
KEPT, KEPT_BYTES = "memory kept", 1 << 30  # by crfseg.set_cache_limit, from step to step
MOST_OF_PEER, MOST_OF_FORWARD, MOST_OF_MEMORY = 0.5, 3.0, 2.0


class Batch:
    """Logits, images and a gradient; for the peer probabilities, image by image."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.photos = [fit(load_photo(name), SIDE, SIDE) for name in PHOTOS]
        coarse = 3 * rng.normal(size=(len(PHOTOS), CLASSES, 41, 41)).astype(np.float32)
        stretched = torch.nn.functional.interpolate(
            torch.from_numpy(coarse), (SIDE, SIDE), mode="bilinear", align_corners=True
        )
        self.logits = stretched.requires_grad_()
        self.image = torch.from_numpy(np.stack(self.photos)).permute(0, 3, 1, 2).float()
        self.gradient = torch.from_numpy(rng.normal(size=stretched.shape).astype(np.float32))
        self.probs = stretched.detach().softmax(1).numpy()

    def images(self, choice: str) -> torch.Tensor:
        """That require a gradient where the choice is to learn them."""
        return self.image.clone().requires_grad_("image" in choice)


def peer_of(batch: Batch) -> Callable[[], None]:
    """Pydensecrf2's forward passes, as its README has them."""
    densecrf = import_module("pydensecrf.densecrf")
    unary_of = import_module("pydensecrf.utils").unary_from_softmax

    def forward() -> None:
        for probs, photo in zip(batch.probs, batch.photos, strict=True):
            crf = densecrf.DenseCRF2D(SIDE, SIDE, CLASSES)
            crf.setUnaryEnergy(unary_of(probs))
            crf.addPairwiseGaussian(sxy=3, compat=3)
            crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=photo, compat=10)
            np.array(crf.inference(ITERATIONS))

    return forward


def step(batch: Batch, crf: CRF, image: torch.Tensor) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass."""
    start = time.perf_counter()
    found = crf(batch.logits, image)
    middle = time.perf_counter()
    found.backward(batch.gradient)
    end = time.perf_counter()
    batch.logits.grad = None
    return middle - start, end - middle


def timed(batch: Batch, threads: int, rounds: int) -> tuple[dict[str, list[Any]], list[float]]:
    """Seconds of every choice and of the peer, in turn."""
    crfseg.set_num_threads(threads)
    peer = peer_of(batch)
    layers = {name: (CRF(CLASSES, **how), batch.images(name)) for name, how in CHOICES.items()}
    for crf, image in layers.values():
        step(batch, crf, image)  # touches memory for the first time
    steps: dict[str, list[Any]] = {name: [] for name in layers}
    spent = []
    for number in range(rounds):
        start = time.perf_counter()
        peer()
        spent.append(time.perf_counter() - start)
        for name in random.Random(number).sample(list(layers), len(layers)):
            if name in SLOW and number >= SLOW_ROUNDS:
                continue
            if name == KEPT:
                crfseg.set_cache_limit(KEPT_BYTES)
                step(batch, *layers[name])
            steps[name].append(step(batch, *layers[name]))
            crfseg.set_cache_limit(0)
    return steps, spent


def peaks(choice: str, threads: int) -> None:
    """Print the peaks of inference alone and of a training step, as a process of its own."""
    crfseg.set_num_threads(threads)
    batch = Batch()
    small = slice(0, 8)
    crf = CRF(CLASSES, **CHOICES[choice])
    image = batch.images(choice)
    crf(batch.logits[..., small, small], image[..., small, small]).sum().backward()
    batch.logits.grad = None
    found = []
    for is_step in (False, True):
        before = reset_peak()
        if is_step:
            step(batch, crf, image)
        else:
            with torch.no_grad():
                crf(batch.logits, image)
        found.append(resident("VmHWM") - before)
    print(json.dumps(found))


def peaks_of(choice: str, threads: int) -> tuple[float, float]:
    """What ``peaks`` prints, in MB."""
    command = [sys.executable, __file__, "--memory", choice, "--threads", str(threads)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    inference, training = json.loads(printed)
    return inference / MB, training / MB


def rows_of(steps: dict[str, list[Any]], spent: list[float], threads: int) -> list[Trained]:
    rows = []
    for name, times in steps.items():
        both: NDArray[np.float64] = np.array(times)
        total = both.sum(axis=1)
        inference, training = peaks_of(name, threads)
        rows.append(
            Trained(
                name,
                threads,
                len(times),
                1e3 * median(both[:, 0]),
                1e3 * median(both[:, 1]),
                1e3 * median(total),
                spread(total),
                1e3 * median(spent),
                median(total / np.array(spent[: len(times)])),
                median(both[:, 1] / both[:, 0]),
                inference,
                training,
                training / inference if inference else float("nan"),
            )
        )
    return rows


def missed(rows: list[Trained]) -> list[str]:
    """Bars that were missed."""
    wrong = []
    most = max(row.threads for row in rows)
    for row in rows:
        if row.choice not in HELD or row.threads < most:
            continue
        where = f"{row.choice}, {row.threads} threads"
        if row.of_peer > MOST_OF_PEER:
            wrong.append(f"{where}: {row.of_peer:.2f} of the peer's time")
        if row.of_forward > MOST_OF_FORWARD:
            wrong.append(f"{where}: backward takes {row.of_forward:.2f} forward passes")
        if row.choice == "recompute" and row.of_memory > MOST_OF_MEMORY:
            wrong.append(f"{where}: {row.of_memory:.2f} times the memory of inference")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="one number of threads instead of 1 and all")
    parser.add_argument("--csv", type=Path, default=Path("build/torch.csv"))
    parser.add_argument("--memory", choices=CHOICES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        peaks(arguments.memory, arguments.threads)
        return
    machine = read_machine()
    batch = Batch()
    rows: list[Trained] = []
    for threads in [arguments.threads] if arguments.threads else sorted({1, os.cpu_count() or 1}):
        rows += rows_of(*timed(batch, threads, arguments.rounds), threads)
    print(machine, f"torch {torch.__version__}")
    for row in rows:
        print(
            f"{row.choice:30s} {row.threads} threads: forward {row.forward_ms:5.0f} ms, backward "
            f"{row.backward_ms:5.0f} ms = {row.of_forward:.2f} of it, both {row.of_peer:.2f} of "
            f"pydensecrf2's {row.peer_ms:.0f} ms; peak {row.step_mb:.0f} MB = {row.of_memory:.2f} "
            f"of inference's {row.inference_mb:.0f}"
        )
    write_csv(arguments.csv, rows, machine)
    if wrong := missed(rows):
        sys.exit("MISSED " + "\nMISSED ".join(wrong))


if __name__ == "__main__":
    main()
