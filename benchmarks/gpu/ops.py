# SPDX-License-Identifier: MIT
"""The torch ops on the device: results and gradients equal the CPU's, opcheck, gradcheck."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crfseg.torch import CRF, mean_field
from crfseg.torch import filter as filter_of
from gpu import scenes
from gpu.place import torch_device
from gpu.sections import Context

B, H, W, T = 2, 13, 17, 5
CLOSE, OF_FEATURES = 5e-5, 2e-4  # of the largest value; features get small differences of sums
SLOPE = {"eps": 1e-2, "atol": 2e-3, "rtol": 2e-3}  # the core is float32: 1e-7 / 1e-2 of a slope
Given = tuple[Tensor, list[Tensor], list[Tensor]]


def run(context: Context) -> None:
    device, report = torch_device(context), context.report
    counts = (2, 21) if context.emulated else (2, 3, 21, 150, 256, 1024)
    for n_labels in counts:
        with report.part(f"mean_field, {n_labels} labels"):
            compare(context, f"mean_field, {n_labels} labels", run_mean_field, n_labels, device)
    with report.part("filter"):
        compare(context, "filter", run_filter, 4, device)
    for what, check in (
        ("CRF layer", check_layer),
        ("opcheck", check_ops),
        ("gradcheck", check_gradients),
        ("memory of NaN", check_poisoned),
        ("repeats", check_repeats),
    ):
        with report.part(what):
            check(context, device)


def given(n_labels: int, device: str, dtype: torch.dtype = torch.float32) -> Given:
    """Logits, features of two kernels, a coupling of each form; the same numbers everywhere."""
    random = torch.Generator().manual_seed(n_labels)

    def tensor(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=random, dtype=torch.float64)
        return made.to(device, dtype).requires_grad_()

    logits = tensor(B, n_labels, H, W)
    return logits, [tensor(1, H * W, 2), tensor(B, H * W, 5)], [
        tensor(n_labels),
        (tensor(n_labels, n_labels).detach() / n_labels**0.5).requires_grad_(),
    ]  # fmt: skip


def run_mean_field(
    logits: Tensor, features: Sequence[Tensor], couplings: Sequence[Tensor]
) -> Tensor:
    return mean_field(logits, features, couplings, T, output="marginals")


def run_filter(logits: Tensor, features: Sequence[Tensor], couplings: Sequence[Tensor]) -> Tensor:
    values = logits * couplings[0][:, None, None]
    return filter_of(values, features[1], normalization="symmetric") + 0 * features[0].sum() + (
        0 * couplings[1].sum()
    )  # fmt: skip


def compare(context: Context, what: str, function: Any, n_labels: int, device: str) -> None:
    """Result and gradients by everything."""
    found = results(function, given(n_labels, device))
    expected = results(function, given(n_labels, "cpu"))
    names = ("result", "by logits", "by features 0", "by features 1", "by coupling 0", "by 1")
    for name, one, other in zip(names, found, expected, strict=True):
        scale = float(other.abs().max().clamp(min=1e-3))
        context.report.holds(f"{what}: {name} is on {device}", one.device.type == device)
        off = float((one.cpu() - other).abs().max()) / scale
        context.report.near(f"{what}: {name}", off, OF_FEATURES if "features" in name else CLOSE)


def results(function: Any, inputs: Given) -> list[Tensor]:
    logits, features, couplings = inputs
    found = function(logits, features, couplings)
    # Of another weight for each value: gradients of a plain sum of marginals are zero.
    weights = torch.linspace(-1, 1, found.numel(), device=found.device).reshape(found.shape)
    loss = (found * weights).sum()
    by = torch.autograd.grad(loss, [logits, *features, *couplings])
    return [found.detach(), *by]


def check_layer(context: Context, device: str) -> None:
    """With sigmas as well, and bfloat16 logits."""
    images = torch.from_numpy(scenes.blocks(B, H, W)).permute(0, 3, 1, 2).float()
    logits = torch.from_numpy(scenes.logits(B, 4, H, W))
    by = {}
    for where in (device, "cpu"):
        layer = CRF(4, learn=("weights", "compatibility", "sigmas")).to(where)
        x = logits.to(where).requires_grad_()
        layer(x, images.to(where)).square().sum().backward()
        by[where] = [x.grad, *(parameter.grad for parameter in layer.parameters())]
    for i, (one, other) in enumerate(zip(by[device], by["cpu"], strict=True)):
        assert one is not None
        assert other is not None
        # Sigmas get difference quotients, over lattices that hardly differ.
        off = float((one.cpu() - other).abs().max() / other.abs().max().clamp(min=1e-3))
        context.report.near(f"CRF layer: gradient {i}", off, 5e-3)
    with torch.no_grad():
        layer = CRF(4).to(device).eval()
        narrow = layer(logits.to(device, torch.bfloat16), images.to(device))
        wide = layer(logits.to(device, torch.bfloat16).float(), images.to(device))
    context.report.holds("bfloat16 logits stay bfloat16", narrow.dtype == torch.bfloat16)
    off = float((narrow.float().softmax(1) - wide.softmax(1)).abs().max())
    context.report.near("bfloat16 logits", off, 1e-2)


def check_ops(context: Context, device: str) -> None:
    logits, features, couplings = given(3, device)
    sigmas = [torch.ones(1, device=device), torch.ones(2, device=device).requires_grad_()]
    groups = [0, 0, 0, 0, 1, 1, 1]
    model, how = (logits, features, sigmas, couplings, groups), ("symmetric", "fast", "exact", 0.05)
    for keep in (True, False):
        torch.library.opcheck(
            torch.ops.crfseg.mean_field.default,
            (*model, 2, 2, False, False, 1e-6, "logits", *how, keep),
        )
    lattices = torch.zeros(1, dtype=torch.uint8, device=device)
    values = logits.detach().flatten(2).requires_grad_()
    torch.library.opcheck(
        torch.ops.crfseg.filter.default,
        (values, features[1], lattices, "none", "fast", "exact", False),
    )
    context.report.holds("opcheck of mean_field and filter", True)


def check_gradients(context: Context, device: str) -> None:
    logits, features, couplings = given(3, device, torch.float64)
    small = logits.detach()[:, :, :4, :5].clone().requires_grad_()
    features = [one.detach()[:, :20] for one in features]

    def function(logits: Tensor, *couplings: Tensor) -> Tensor:
        return mean_field(logits, features, couplings, 2)

    passed = torch.autograd.gradcheck(function, (small, *couplings), nondet_tol=0.0, **SLOPE)
    context.report.holds("gradcheck of mean_field", passed)


def check_poisoned(context: Context, device: str) -> None:
    """torch fills what ``empty`` gives, under deterministic algorithms: floats with NaN."""
    expected = results(run_mean_field, given(5, device))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = results(run_mean_field, given(5, device))
    finally:
        torch.use_deterministic_algorithms(False)
    same = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    context.report.holds("memory of NaN changes nothing", same)


def check_repeats(context: Context, device: str) -> None:
    expected = results(run_mean_field, given(21, device))
    same = 0
    for _ in range(20):
        found = results(run_mean_field, given(21, device))
        same += all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    context.report.holds("20 repeats, gradients too, are bit-identical", same == 20, f"{same} are")
