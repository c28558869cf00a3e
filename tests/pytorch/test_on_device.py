# SPDX-License-Identifier: MIT
"""``mean_field`` by the kernels for CUDA devices, over the emulation: as by those for the CPU."""

import gc
import weakref

import pytest

from device_ops import C, H, Problem, W, assert_same, on_device
from emulated import emulated, needs_emulation
from reference import NORMALIZATIONS

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg import _native  # noqa: E402 - needs torch
from crfseg._fault_device import CudaError  # noqa: E402
from crfseg.torch import CRF, _device_batches, _places, mean_field  # noqa: E402

__all__ = ["emulated", "on_device"]
pytestmark = needs_emulation

OPS = ("mean_field", "mean_field_backward", "lattices", "filter", "filter_backward")
OPTIONS = {
    "plain": {},
    "marginals": {"output": "marginals"},
    "recomputed": {"iterations": 5, "recompute": True},
    "truncated": {"last": 2},
    "chain rule": {"sigma_step": 0.0},
    "smooth": {"feature_gradient": "smooth", "sigma_step": 0.0},
    "fine": {"accuracy": "fine"},
    "implicit": {"iterations": 60, "implicit": True, "tolerance": 1e-6},
    "implicit smooth": {
        "iterations": 60,
        "implicit": True,
        "output": "marginals",
        "feature_gradient": "smooth",
    },
}


@pytest.mark.parametrize("op", OPS)
def test_ops_have_kernels_for_cuda(op):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"crfseg::{op}", "CUDA")
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"crfseg::{op}", "CPU")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("n_items", [1, 3])
def test_results_and_gradients_are_those_of_the_cpu(rng, on_device, name, n_items):
    problem = Problem(rng, n_items)
    expected = problem.found(**OPTIONS[name])
    with on_device():
        found = problem.found(**OPTIONS[name])
    assert_same(found, expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalizations_are_those_of_the_cpu(rng, on_device, normalization):
    problem = Problem(rng, n_items=2)
    if normalization == "none":  # sums over many neighbours: no label is to be certain
        problem.couplings = [(0.05 * m).detach().requires_grad_() for m in problem.couplings]
    expected = problem.found(normalization=normalization)
    with on_device():
        assert_same(problem.found(normalization=normalization), expected)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_types_are_computed_in_float32(rng, on_device, dtype):
    problem = Problem(rng, n_items=2, dtype=dtype)
    expected = problem.found()
    with on_device():
        found = problem.found()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        coarse = 1e-2 if dtype == "bfloat16" else 1e-4
        torch.testing.assert_close(one, other, rtol=0, atol=coarse * float(other.abs().max()))


def laid_out(logits):
    """The same values in other layouts."""
    crop = torch.zeros(*logits.shape[:2], H + 3, W + 2)
    crop[..., 1 : H + 1, 2:] = logits.detach()
    return {
        "channels last": logits.detach().contiguous(memory_format=torch.channels_last),
        "transposed": logits.detach().mT.contiguous().mT,
        "crop": crop[..., 1 : H + 1, 2:],
        "expanded": logits.detach()[:1].expand(2, -1, -1, -1),
    }


@pytest.mark.parametrize("layout", ["channels last", "transposed", "crop", "expanded"])
def test_strides_do_not_matter(rng, on_device, layout):
    problem = Problem(rng, n_items=2)
    problem.logits = laid_out(problem.logits)[layout].requires_grad_()
    problem.weights = laid_out(problem.weights)[layout]
    expected = problem.found()
    with on_device():
        found = problem.found()
    assert found[0].stride() == expected[0].stride()
    assert_same(found, expected)


@pytest.mark.parametrize("shape", [(H * W,), (H, 3, W // 3)])
def test_points_and_volumes_need_no_image(rng, on_device, shape):
    problem = Problem(rng, n_items=2)
    problem.logits = problem.logits.detach().reshape(2, C, *shape).requires_grad_()
    problem.weights = problem.weights.reshape(2, C, *shape)
    expected = problem.found()
    with on_device():
        assert_same(problem.found(), expected)


def test_results_are_the_same_in_every_run(rng, on_device):
    problem = Problem(rng)
    with on_device():
        first, second = problem.found(), problem.found()
    assert all(torch.equal(*both) for both in zip(first, second, strict=True))


def test_an_item_does_not_depend_on_the_others(rng, on_device):
    problem = Problem(rng)
    with on_device():
        together = problem.output()
        problem.logits = problem.logits.detach()[1:2]
        problem.features[1] = problem.features[1].detach()[1:2]
        assert torch.equal(problem.output()[0], together[1])


def test_a_batch_of_none_has_gradients_of_nothing(rng, on_device):
    problem = Problem(rng, n_items=0)
    with on_device():
        output, *gradients = problem.found()
    assert output.shape == (0, C, H, W)
    for one, given in zip(gradients, problem.tensors, strict=True):
        assert one.shape == given.shape
        assert not one.any()


def test_without_kernels_logits_stay_what_they_are(rng, on_device):
    logits = torch.tensor(rng.normal(size=(2, C, 4, 5)), dtype=torch.float32, requires_grad=True)
    with on_device():
        output = mean_field(logits, [], [], 3)
        (by_logits,) = torch.autograd.grad(output.square().sum(), [logits])
    torch.testing.assert_close(output, logits)
    torch.testing.assert_close(by_logits, 2 * logits)


@pytest.fixture
def tapes(monkeypatch):
    """Weak references to all that have been kept."""
    made = []
    init = _device_batches.Tape.__init__

    def noted(tape, *arguments):
        made.append(weakref.ref(tape))
        init(tape, *arguments)

    monkeypatch.setattr(_device_batches.Tape, "__init__", noted)
    return made


def test_what_is_kept_goes_with_the_graph(rng, on_device, tapes):
    problem = Problem(rng)
    with on_device():
        output = problem.output()
        assert tapes[0]() is not None
        loss = output.sum()
        for _ in range(2):
            loss.backward(retain_graph=True)
        assert len(tapes) == 1
        del output, loss
        gc.collect()
        assert tapes[0]() is None
        with torch.no_grad():
            problem.output()
    gc.collect()
    assert [tape() for tape in tapes] == [None, None]


def test_the_way_forth_is_gone_again_where_what_it_left_is_lost(rng, on_device, tapes):
    problem = Problem(rng)
    with on_device():
        expected = problem.found()
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
            found = problem.found()
    assert len(tapes) == 3
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def with_value(name, k, value):
    def change(problem):
        tensor = getattr(problem, name) if k is None else getattr(problem, name)[k]
        with torch.no_grad():
            tensor.view(-1)[7 % tensor.numel()] = value

    return change


FAULTS = {
    "logits that are NaN": with_value("logits", None, torch.nan),
    "logits that are infinite": with_value("logits", None, -torch.inf),
    "features that are NaN": with_value("features", 0, torch.nan),
    "features that are infinite": with_value("features", 1, torch.inf),
    "features far apart": with_value("features", 1, 1e30),
    "no sigma": with_value("sigmas", 1, 0.0),
    "sigmas that are NaN": with_value("sigmas", 0, torch.nan),
    "coupling that is NaN": with_value("couplings", 1, torch.nan),
    "coupling beyond all bounds": with_value("couplings", 0, -1e30),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_as_on_the_cpu(rng, on_device, name):
    problem = Problem(rng)
    FAULTS[name](problem)
    with pytest.raises(ValueError, match=r"^\[mean_field\]") as expected:
        problem.output()
    with on_device(), pytest.raises(ValueError, match=r"^\[mean_field\]") as found:
        problem.output()
    assert str(found.value) == str(expected.value)


def test_a_fixed_point_that_is_none_is_told(rng, on_device):
    problem = Problem(rng)
    problem.couplings[0] = torch.full((C,), -20.0, requires_grad=True)
    with on_device():
        output = problem.output(iterations=4, implicit=True)
        with pytest.warns(RuntimeWarning, match=r"\[mean_field\] implicit=True, but the marginal"):
            output.sum().backward()


def test_gradients_that_are_not_finite_pass_through(rng, on_device):
    problem = Problem(rng)
    with on_device():
        problem.output().backward(torch.full((3, C, H, W), torch.inf))
    assert not problem.logits.grad.isfinite().any()


def test_more_than_the_kernels_take_is_refused(rng, on_device, monkeypatch):
    problem = Problem(rng)
    with on_device() as module:
        monkeypatch.setattr(module, "MOST_TERMS", 1)
        with pytest.raises(ValueError, match=r"there are 2 kernels; expected at most the 1 that"):
            problem.output()
        monkeypatch.setattr(module, "MOST_LABELS", 2)
        with pytest.raises(
            ValueError, match=r"\[mean_field\] there are 3 labels; expected at most"
        ):
            problem.output()


def test_captures_are_refused(rng, on_device, monkeypatch):
    problem = Problem(rng)
    with on_device() as module:
        monkeypatch.setattr(module, "is_capturing", lambda stream: stream == 0)
        with pytest.raises(CudaError, match=r"^\[mean_field\] .* captured into a CUDA graph"):
            problem.output()


def test_a_build_without_cuda_is_told(rng, on_device, monkeypatch):
    problem = Problem(rng)
    with on_device():
        monkeypatch.setattr(_native, "cuda", None)
        monkeypatch.setattr(_native, "why_no_cuda", lambda: "nobody built it")
        with pytest.raises(CudaError, match=r"^\[mean_field\] .* cannot be used: nobody built it"):
            problem.output()


def test_layers_go_through_the_ops(rng, on_device):
    logits = torch.tensor(rng.normal(size=(2, C, 12, 17)), dtype=torch.float32, requires_grad=True)
    image = torch.tensor(rng.uniform(0, 255, (2, 3, 12, 17)), dtype=torch.float32)
    learn = ("weights", "compatibility", "sigmas")
    layer = CRF(C, learn=learn, spatial=(2.0, 1.0), bilateral=(8.0, 20.0, 1.0))

    def found():
        output = layer(logits, image)
        given = [logits, *layer.parameters()]
        return [output.detach(), *torch.autograd.grad(output.square().sum(), given)]

    expected = found()
    with on_device():
        assert_same(found(), expected)


class Noted:
    """A tensor or a stream of which it is noted what is done with it."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append((self.name, "waits for", other.name))

    def record_stream(self, stream):
        self.log.append((self.name, "is used on", stream.name))

    cuda_stream = 0


def test_work_is_done_on_the_stream_of_what_is_kept(emulated, monkeypatch):
    log = []
    home, here = Noted(log, "home"), Noted(log, "here")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: home)
    at = _places.Home("test", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: here)
    monkeypatch.setattr(
        torch.cuda, "stream", lambda stream: log.append(stream.name) or torch.no_grad()
    )
    given, made = Noted(log, "given"), Noted(log, "made")
    assert at.run([given], lambda: log.append("work") or [made]) == [made]
    assert log == [
        ("home", "waits for", "here"),
        "home",
        "work",
        ("here", "waits for", "home"),
        ("given", "is used on", "home"),
        ("made", "is used on", "here"),
    ]


@pytest.fixture
def poisoned():
    """Makes torch fill what ``empty`` gives: floats with NaN, bytes with ones."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", ["plain", "recomputed", "smooth", "fine", "implicit smooth"])
def test_nothing_is_read_that_was_not_written(rng, on_device, name, request):
    problem = Problem(rng)
    with on_device():
        expected = problem.found(**OPTIONS[name])
        request.getfixturevalue("poisoned")
        assert torch.empty(1, dtype=torch.uint8).item() == 255
        found = problem.found(**OPTIONS[name])
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))
