# SPDX-License-Identifier: MIT
"""Inputs to be timed with: several sets that take turns, together larger than the L2 cache."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import crfseg
from gpu import scenes
from gpu.expected import ITERATIONS
from gpu.place import torch_device
from gpu.sections import Context

PARAMETERS: dict[str, dict[str, Any]] = {
    "80/13": {"spatial": (3.0, 3.0), "bilateral": (80.0, 13.0, 10.0)},
    "121/5": {"spatial": (3.0, 3.0), "bilateral": (121.0, 5.0, 4.0)},
}
MOST_SETS = 16


@dataclass(frozen=True)
class Inputs:
    """Sets of (N, C, H, W) logits and (N, H, W, 3) images on the device."""

    sets: list[tuple[Tensor, Tensor]]

    def refine(self, i: int, parameters: str) -> Tensor:
        """Marginals of the i-th set, as users would call it; of float16 by rows of halves."""
        logits, images = self.sets[i % len(self.sets)]
        has_halves = logits.is_cuda and logits.dtype == torch.float16
        found: Tensor = crfseg.refine(
            logits,
            images,
            kind="logits",
            layout="NCHW",
            returns="probs",
            iterations=ITERATIONS,
            storage="float16" if has_halves else "float32",
            **PARAMETERS[parameters],
        )
        return found


def size_and_labels(context: Context) -> tuple[tuple[int, int], int]:
    return ((24, 32), 3) if context.emulated else ((375, 500), 21)


def inputs(context: Context, n_items: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Pictures and logits moved around, different in every set."""
    device = torch_device(context)
    size, n_labels = size_and_labels(context)
    picture = scenes.photograph(*size)[0]
    base = torch.from_numpy(scenes.logits(1, n_labels, *size)).to(device)
    sets = []
    for number in range(n_sets(device, n_items * base.numel() * dtype.itemsize)):
        moved = [torch.roll(base, (17 * i + number, 29 * i), (2, 3)) for i in range(n_items)]
        images = torch.from_numpy(scenes.variants(picture, n_items)).to(device)
        sets.append((torch.cat(moved).to(dtype), torch.roll(images, (5 * number, number), (1, 2))))
    return Inputs(sets)


def n_sets(device: str, n_bytes: int) -> int:
    """As many as are twice the L2 cache, two at least."""
    if device == "cpu":
        return 2
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    return max(2, min(MOST_SETS, -(-2 * cache // n_bytes)))
