# SPDX-License-Identifier: MIT
"""A training step of ``crfseg.torch.CRF``: the way back against the way forth."""

import torch

from crfseg.torch import CRF
from gpu.clock import RUNS, between, synchronize
from gpu.inputs import inputs, size_and_labels
from gpu.place import torch_device
from gpu.sections import Context
from table import median, spread

WARM_UP = 3


def run(context: Context) -> None:
    ratios = []
    for n_items in (1, 2) if context.emulated else (1, 4):
        with context.report.part(f"batch {n_items}"):
            ratios.append(measure(context, n_items))
    if ratios:
        context.report.measured("backward, forward passes", max(ratios), "(the worst)")


def measure(context: Context, n_items: int) -> float:
    """Milliseconds of both ways, and their ratio."""
    device, report = torch_device(context), context.report
    layer = CRF(size_and_labels(context)[1]).to(device)
    sets = [
        (logits.requires_grad_(), images.permute(0, 3, 1, 2).float())
        for logits, images in inputs(context, n_items).sets
    ]
    forth, back = [], []
    runs = 3 if context.emulated else RUNS // 2
    for i in range(WARM_UP + runs):
        logits, images = sets[i % len(sets)]
        found: list[torch.Tensor] = []
        there = between(lambda: found.append(layer(logits, images)), device)  # noqa: B023
        gradient = torch.ones_like(found[0])
        again = between(lambda: found[0].backward(gradient), device)  # noqa: B023
        logits.grad = None
        if i >= WARM_UP:
            forth.append(there)
            back.append(again)
    synchronize(device)
    report.measured(f"batch {n_items}, forward, ms", median(forth), f"(iqr {spread(forth):.0%})")
    report.measured(f"batch {n_items}, backward, ms", median(back), f"(iqr {spread(back):.0%})")
    return median([b / f for f, b in zip(forth, back, strict=True)])
