# SPDX-License-Identifier: MIT
"""``crfseg.refine`` against the bars: 500 x 375, 21 labels, 10 iterations, lattices included."""

import torch

from gpu.clock import RUNS, timed
from gpu.expected import CLOSE_16
from gpu.inputs import PARAMETERS, Inputs, inputs
from gpu.place import torch_device
from gpu.sections import Context

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BATCHES = (1, 4, 16, 64)


def run(context: Context) -> None:
    batches = (1, 2) if context.emulated else (1, 64) if context.quick else BATCHES
    for n_items in batches:
        for name, dtype in DTYPES.items():
            what = f"batch {n_items}, {name}"
            with context.report.part(what):
                given = inputs(context, n_items, dtype)
                for parameters in PARAMETERS:
                    measure(context, given, n_items, parameters, f"{parameters}, {what}")
                if n_items == 1 and dtype != torch.float32:
                    check_agreement(context, given, what)
                del given


def measure(context: Context, given: Inputs, n_items: int, parameters: str, what: str) -> None:
    runs = 3 if context.emulated else 15 if context.quick else RUNS
    found = timed(lambda i: given.refine(i, parameters), torch_device(context), runs)
    report = context.report
    report.measured(f"{what}, ms", found.ms, f"(iqr {found.iqr:.0%})")
    report.measured(f"{what}, back to back, ms", found.back_to_back_ms, "")
    report.measured(f"{what}, images/s", 1e3 * n_items / found.back_to_back_ms, "")


def check_agreement(context: Context, given: Inputs, what: str) -> None:
    """What 16 bits cost: the same logits in float32."""
    narrow = given.refine(0, "80/13").float()
    wide = Inputs([(given.sets[0][0].float(), given.sets[0][1])]).refine(0, "80/13")
    off = float((narrow - wide).abs().max())
    context.report.near(f"{what}: max |dQ| against float32", off, CLOSE_16)
