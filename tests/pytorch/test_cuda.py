# SPDX-License-Identifier: MIT
"""The ops on CUDA devices, where there is one: what the emulation cannot show."""

import gc
import threading

import numpy as np
import pytest

from crfseg import _native
from device_ops import C, H, Problem, W, assert_same

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg._fault_device import CudaError  # noqa: E402 - needs torch
from crfseg.torch import CRF, DenseCRFLoss, GatedCRFLoss, mean_field  # noqa: E402
from crfseg.torch import filter as filter_of  # noqa: E402

OPS = torch.ops.crfseg
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(_native.why_no_cuda() is not None, reason="crfseg cannot use CUDA"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
OPTIONS = {
    "plain": {},
    "recomputed": {"iterations": 5, "recompute": True, "output": "marginals"},
    "smooth": {"feature_gradient": "smooth", "sigma_step": 0.0, "normalization": "after"},
    "fine": {"accuracy": "fine"},
    "implicit": {"iterations": 60, "implicit": True},
}


def pair(**options):
    """The same problem on the CPU and on the device."""
    return [
        Problem(np.random.default_rng(7), device=device, **options) for device in ("cpu", "cuda")
    ]


@pytest.mark.parametrize("name", OPTIONS)
def test_results_and_gradients_are_those_of_the_cpu(name):
    on_cpu, on_device = pair()
    found = on_device.found(**OPTIONS[name])
    assert all(one.device.type == "cuda" for one in found)
    # Exponentials differ in the last place, which quotients of sigmas make ten times as large.
    assert_same(found, on_cpu.found(**OPTIONS[name]), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types_are_computed_in_float32(dtype):
    for one, other in zip(*(problem.found() for problem in pair(dtype=dtype)), strict=True):
        assert one.dtype == other.dtype
        coarse = 1e-3 if dtype == "float64" else 2e-2
        largest = float(one.abs().max())
        torch.testing.assert_close(other.cpu(), one, rtol=0, atol=coarse * largest)


def test_results_are_the_same_in_every_run():
    _, problem = pair()
    first = problem.found()
    for _ in range(3):
        assert all(torch.equal(*both) for both in zip(first, problem.found(), strict=True))


@pytest.mark.parametrize("exclude_self", [False, True])
def test_filters_are_those_of_the_cpu(exclude_self):
    found = []
    for problem in pair():
        values, features = problem.logits, problem.features[1] / 10
        features = features.detach().requires_grad_(not exclude_self)
        given = [values, features][: 1 if exclude_self else 2]
        output = filter_of(values, features, normalization="symmetric", exclude_self=exclude_self)
        loss = (output * problem.weights).sum()
        found.append([output.detach(), *torch.autograd.grad(loss, given)])
    assert_same(found[1], found[0], rtol=1e-3)


def op_arguments(keep):
    _, problem = pair()
    groups = [group for of_kernel in problem.groups for group in of_kernel]
    model = (problem.logits, problem.features, problem.sigmas, problem.couplings, groups)
    return *model, 2, 2, False, False, 1e-6, "logits", "symmetric", "fast", "exact", 0.05, keep


@pytest.mark.parametrize("keep", [True, False])
def test_opcheck_of_mean_field(keep):
    torch.library.opcheck(OPS.mean_field.default, op_arguments(keep))


def test_opcheck_of_filter():
    _, problem = pair()
    values, features = problem.logits.detach().flatten(2), problem.features[1].detach() / 10
    torch.library.opcheck(
        OPS.lattices.default, (features, "none", "fast", False, W, "here", "features")
    )
    built = OPS.lattices(features, "none", "fast", False, W, "here", "features")
    given = (values.requires_grad_(), features.requires_grad_(), built)
    torch.library.opcheck(OPS.filter.default, (*given, "none", "fast", "exact", False))


def test_gradcheck_of_mean_field():
    """In steps of 1e-2: the kernels are float32, whose rounding is 1e-5 of a slope."""
    _, problem = pair(dtype="float64", n_items=1)
    features = [one.detach() / 5 for one in problem.features]

    def run(logits, *couplings):
        return mean_field(logits, features, couplings, 2)

    given = (problem.logits, *problem.couplings)
    assert torch.autograd.gradcheck(run, given, eps=1e-2, atol=2e-3, rtol=2e-3)


def test_autocast_works_in_float32():
    _, problem = pair()
    half = problem.logits.detach().half().requires_grad_()
    with torch.autocast("cuda", torch.float16):
        found = mean_field(half, problem.features, problem.couplings, 2)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert half.grad.dtype == torch.float16


def test_side_streams_are_kept_to():
    """Where the way back is taken on another stream than the way forth was."""
    _, problem = pair()
    expected = problem.found()
    forth, back = torch.cuda.Stream(), torch.cuda.Stream()
    forth.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(forth):
        output = problem.output()
        loss = (output * problem.weights).sum()
    back.wait_stream(forth)
    with torch.cuda.stream(back):
        found = [output.detach(), *torch.autograd.grad(loss, problem.tensors)]
    torch.cuda.synchronize()
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def test_kept_lattices_may_be_used_on_another_stream():
    _, problem = pair()
    values, features = problem.logits.detach().flatten(2), problem.features[1].detach() / 10
    how = ("none", "fast", False)
    token = OPS.lattices(features, *how, W, "here", "features")
    expected = OPS.filter(values, features, token, "none", "fast", "exact", False)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = OPS.filter(values, features, token, "none", "fast", "exact", False)
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_threads_have_streams_of_their_own():
    _, problem = pair()
    expected = problem.found()
    found = [None, None]

    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(5):
                found[i] = problem.found()
            torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in found:
        assert all(torch.equal(*both) for both in zip(own, expected, strict=True))


def test_memory_goes_with_the_graph():
    _, problem = pair()
    problem.found()
    gc.collect()
    before = torch.cuda.memory_allocated()
    output = problem.output()
    assert torch.cuda.memory_allocated() > before + output.nbytes
    del output
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_captures_are_refused():
    _, problem = pair()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(CudaError, match="captured into a CUDA graph"), torch.cuda.graph(graph):
        problem.output()


def test_compiled_code_does_the_same():
    _, problem = pair()
    torch.compiler.reset()
    logits, features, couplings = problem.logits, problem.features, problem.couplings

    def run(logits):
        return 2 * mean_field(logits, [f / 9 for f in features], couplings, 2)

    expected = run(logits)
    found = torch.compile(run, fullgraph=True)(logits)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    by_found, by_expected = (
        torch.autograd.grad(one.square().sum(), [logits])[0] for one in (found, expected)
    )
    torch.testing.assert_close(by_found, by_expected, rtol=1e-4, atol=1e-4)


LAYERS = {
    "mean field": CRF(C, spatial=(2.0, 1.0), bilateral=(8.0, 20.0, 1.0)),
    "damped": CRF(C, spatial=(2.0, 1.0), bilateral=(8.0, 20.0, 1.0), solver="damped"),
    "dense loss": DenseCRFLoss(weight=1.0),
    "gated loss": GatedCRFLoss(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_what_they_do_on_the_cpu(rng, name):
    logits = torch.tensor(rng.normal(size=(2, C, H, W)), dtype=torch.float32)
    image = torch.tensor(rng.uniform(0, 255, (2, 3, H, W)), dtype=torch.float32)
    found = []
    for device in ("cpu", "cuda"):
        layer = LAYERS[name].to(device)
        given = logits.to(device).requires_grad_()
        scores = given.softmax(1) if "loss" in name else given
        output = layer(scores, image.to(device))
        found.append(torch.autograd.grad(output.square().sum(), [given])[0].cpu())
    largest = float(found[0].abs().max())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-3 * largest)
