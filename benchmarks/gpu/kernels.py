# SPDX-License-Identifier: MIT
"""Which kernels a call of ``refine`` spends its time in, by torch's profiler."""

from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu.clock import synchronize
from gpu.counters import short
from gpu.inputs import PARAMETERS, inputs
from gpu.place import torch_device
from gpu.sections import Context

CALLS = 10
MOST = 14  # kernels that are told of
WARM_UP = 3


def run(context: Context) -> None:
    for n_items in (1,) if context.emulated else (1, 16):
        with context.report.part(f"batch {n_items}"):
            describe(context, n_items, next(iter(PARAMETERS)))


def describe(context: Context, n_items: int, parameters: str) -> None:
    """Microseconds of a call in each kernel, and how often it is launched."""
    device, given = torch_device(context), inputs(context, n_items)
    for i in range(WARM_UP):
        given.refine(i, parameters)
    synchronize(device)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device == "cuda")]
    with profile(activities=activities) as profiled:
        for i in range(CALLS):
            given.refine(i, parameters)
        synchronize(device)
    spent = [(us_of(one, device), one) for one in profiled.key_averages()]
    spent = sorted((pair for pair in spent if pair[0] > 0), key=lambda pair: -pair[0])
    where = f"{parameters}, batch {n_items}"
    total = sum(us for us, _ in spent) / CALLS
    context.report.measured(f"{where}, all kernels, us", total, "of a call")
    for us, one in spent[:MOST]:
        launches = f"in {one.count / CALLS:g} launches"
        context.report.measured(f"{where}, {short(one.key)}, us", us / CALLS, launches)


def us_of(one: Any, device: str) -> float:
    """A kernel's own time; of what ran on the host, none, but where there is no device."""
    if device == "cpu":
        return float(one.self_cpu_time_total)
    return float(one.self_device_time_total) if one.device_type == DeviceType.CUDA else 0.0
