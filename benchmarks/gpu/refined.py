# SPDX-License-Identifier: MIT
"""``crfseg.refine`` of tensors: equal to the CPU's, on the same device, in the same dtype."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import crfseg
from gpu import scenes
from gpu.expected import CLOSE, CLOSE_16, EXACT, MODEL, in_float64, off, on_cpu
from gpu.place import torch_device
from gpu.sections import Context


def cases(context: Context) -> Iterator[scenes.Case]:
    for n_labels in (2, 3, 21, 150, 256, 1024):
        yield "33 x 17", scenes.blocks(1, 17, 33, seed=n_labels), n_labels
    yield from scenes.odd_ones()
    if not context.emulated:
        yield "500 x 375", scenes.photograph(375, 500)[0], 21
        yield "batch of 3 at 500 x 375", scenes.variants(scenes.photograph(375, 500)[0], 3), 21


def run(context: Context) -> None:
    report, device = context.report, torch_device(context)
    for name, images, n_labels in cases(context):
        what = f"{name}, {n_labels} labels"
        with report.part(what):
            logits = scenes.logits(len(images), n_labels, *images.shape[1:3], seed=n_labels)
            found = refine(logits, images, device)
            report.near(f"{what}, against the CPU", off(found, on_cpu(logits, images)), CLOSE)
    with report.part("against float64"):
        images, logits = scenes.noise(1, 9, 14, seed=2), scenes.logits(1, 4, 9, 14)
        exact = in_float64(logits[0], images[0])
        found = refine(logits, images, device)
        report.near("noise, 4 labels, against float64", off(found[0], exact), EXACT)
    for dtype in (torch.float16, torch.bfloat16):
        with report.part(f"{dtype}"):
            check_narrow(context, dtype)
    for what, check in (
        ("where images may be, and single items", check_forms),
        ("the defaults, probabilities, labels", check_options),
        ("uninitialised memory of NaN", check_poisoned),
    ):
        with report.part(what):
            check(context)


def refine(logits: Any, images: Any, device: str, **options: Any) -> NDArray[np.float32]:
    """Marginals on the host of (N, C, H, W) logits that went to the device."""
    x = torch.from_numpy(logits).to(device) if isinstance(logits, np.ndarray) else logits
    image = torch.from_numpy(images).to(device) if isinstance(images, np.ndarray) else images
    found = crfseg.refine(x, image, skip=False, **{**MODEL, **options})
    assert isinstance(found, Tensor)
    assert found.device.type == device, f"the result is on {found.device}"
    assert found.dtype == x.dtype, f"the result has {found.dtype}"
    result: NDArray[np.float32] = found.float().cpu().numpy()
    return result


def check_narrow(context: Context, dtype: torch.dtype) -> None:
    images, logits = scenes.blocks(2, 30, 41), scenes.logits(2, 6, 30, 41)
    narrow = torch.from_numpy(logits).to(torch_device(context), dtype)
    found = refine(narrow, images, torch_device(context))
    expected = on_cpu(narrow.float().cpu().numpy(), images)
    context.report.near(f"{dtype}, against the CPU", off(found, expected), CLOSE_16)


def check_forms(context: Context) -> None:
    """An image on the CPU, a view of strides, one item without a batch."""
    device = torch_device(context)
    images, logits = scenes.blocks(2, 17, 33), scenes.logits(2, 5, 17, 33)
    expected = refine(logits, images, device)
    from_host = refine(logits, torch.from_numpy(images), device)
    context.report.holds("images on the host", np.array_equal(from_host, expected))
    last = torch.from_numpy(logits).to(device).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    context.report.holds("strides", np.array_equal(refine(last, images, device), expected))
    one = refine(logits[1], images[1], device, layout="CHW")
    context.report.near("an item alone", off(one, expected[1]), 1e-6)


def check_options(context: Context) -> None:
    """Without options thin structures are held, and x is probabilities."""
    device = torch_device(context)
    image = scenes.photograph(90, 120)[0][0]
    probs = np.exp(scenes.logits(1, 5, 90, 120)[0])
    probs = probs / probs.sum(0)
    x = torch.from_numpy(probs).to(device)
    found = crfseg.refine(x, torch.from_numpy(image).to(device)).cpu().numpy()
    expected = crfseg.refine(probs, image, skip=False)
    context.report.near("the defaults, against the CPU", off(found, expected), CLOSE)
    labels = crfseg.refine(x, torch.from_numpy(image).to(device), returns="labels").cpu().numpy()
    same = float((labels == expected.argmax(0)).mean())
    context.report.near("labels that differ", 1 - same, 1e-3)


def check_poisoned(context: Context) -> None:
    """torch fills what ``empty`` gives, under deterministic algorithms: floats with NaN."""
    device = torch_device(context)
    images, logits = scenes.blocks(2, 17, 33), scenes.logits(2, 21, 17, 33)
    expected = refine(logits, images, device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = refine(logits, images, device)
    finally:
        torch.use_deterministic_algorithms(False)
    context.report.holds(
        "uninitialised memory of NaN changes nothing", np.array_equal(found, expected)
    )
