# SPDX-License-Identifier: MIT
"""The ops as PyTorch sees them: opcheck, gradcheck, compile, export, autocast, what they refuse."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402 - needs torch

from crfseg.torch import CRF, DenseCRFLoss, GatedCRFLoss, infer, mean_field  # noqa: E402
from crfseg.torch import filter as filter_of  # noqa: E402 - needs torch

B, C, H, W, T = 2, 3, 4, 5, 2
OPS = torch.ops.crfseg
# torch.compile and forward mode warn of what they themselves still use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def some_tensors(rng, dtype=torch.float32):
    def tensor(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=dtype, requires_grad=True)

    logits = tensor(B, C, H, W)
    return logits, [tensor(1, H * W, 2), tensor(B, H * W, 3)], [tensor(C), tensor(C, C)]


def op_arguments(rng, keep, form="exact", step=0.05):
    logits, features, couplings = some_tensors(rng)
    sigmas = [torch.ones(1), torch.tensor([1.0, 2.0], requires_grad=True)]
    groups = [0, 0, 0, 0, 1]
    model = (logits, features, sigmas, couplings, groups)
    how = ("symmetric", "fast", form, step, keep)
    return *model, T, T, False, False, 1e-6, "logits", *how


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("form", "step"), [("exact", 0.05), ("smooth", 0.0)])
def test_opcheck_of_mean_field(rng, keep, form, step):
    torch.library.opcheck(OPS.mean_field.default, op_arguments(rng, keep, form, step))


@pytest.mark.parametrize("is_built", [True, False])
def test_opcheck_of_filter(rng, is_built):
    logits, features, _ = some_tensors(rng)
    how = ("none", "fast", False, W, "here", "features")
    torch.library.opcheck(OPS.lattices.default, (features[1].detach(), *how))
    built = OPS.lattices(features[1].detach(), *how)
    lattices = built if is_built else torch.zeros(1, dtype=torch.uint8)
    arguments = (logits.detach().flatten(2).requires_grad_(), features[1], lattices)
    torch.library.opcheck(OPS.filter.default, (*arguments, "none", "fast", "exact", False))


def test_opcheck_of_what_goes_back(rng):
    *given, _ = op_arguments(rng, keep=True)
    given = [given[0].detach(), *([t.detach() for t in one] for one in given[1:4]), *given[4:]]
    token = torch.zeros(1, dtype=torch.uint8)
    wanted = ([False, True], [False, True])
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        OPS.mean_field_backward.default,
        (torch.ones(B, C, H, W), token, *given, *wanted),
        test_utils=tests,
    )
    values, features = given[0].flatten(2), given[1][1]
    torch.library.opcheck(
        OPS.filter_backward.default,
        (values, values, features, token, "none", "fast", "exact", False, True, True),
        test_utils=tests,
    )


def test_gradcheck_of_mean_field(rng):
    """In steps of 1e-2: the core is float32, whose rounding is 1e-7 / 1e-2 = 1e-5 of a slope.

    Curvature is of the order of the square of the step.
    """
    logits, features, couplings = some_tensors(rng, torch.float64)
    features = [f.detach() for f in features]

    def run(logits, *couplings):
        return mean_field(logits, features, couplings, T)

    assert torch.autograd.gradcheck(run, (logits, *couplings), eps=1e-2, atol=2e-3, rtol=2e-3)


def test_gradcheck_of_filter(rng):
    """Linear in the values, so that nothing but rounding is left."""
    logits, features, _ = some_tensors(rng, torch.float64)
    features = features[1].detach()
    values = logits.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: filter_of(values, features, normalization="symmetric"),
        (values,),
        eps=1e-2,
        atol=1e-4,
        rtol=1e-4,
    )


def gradients(function, logits, features, couplings):
    found = function(logits, features, couplings)
    given = [logits, *features, *couplings]
    return found, torch.autograd.grad(found.square().sum(), given)


def run(logits, features, couplings):
    return mean_field(logits, features, couplings, T)


def run_filter(logits, features, couplings):
    return filter_of(logits * couplings[0][:, None, None], features[1]) + features[0].sum() + (
        couplings[1].sum()
    )  # fmt: skip


@pytest.mark.parametrize("function", [run, run_filter])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_code_does_the_same(rng, function, dynamic):
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    for height in (4, 6) if dynamic else (4,):
        logits, features, couplings = some_tensors(rng)
        logits = logits.detach().repeat(1, 1, height // 2, 1)[:, :, :height].requires_grad_()
        features = [f.detach().repeat(1, 2, 1)[:, : height * W].requires_grad_() for f in features]
        found, of_found = gradients(compiled, logits, features, couplings)
        expected, of_expected = gradients(function, logits, features, couplings)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for one, other in zip(of_found, of_expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_compiled_code_keeps_what_goes_back(rng, monkeypatch):
    """Its saved tensors are the ops' own, so that nothing is gone forth again."""
    from crfseg.torch import _batches

    torch.compiler.reset()
    given = some_tensors(rng)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    gradients(compiled, *given)
    forth, calls = _batches.forth, []
    monkeypatch.setattr(_batches, "forth", lambda *a: calls.append(a) or forth(*a))
    gradients(compiled, *given)
    assert len(calls) == 1


class Model(torch.nn.Module):
    def forward(self, logits, features, couplings):
        return mean_field(logits, [features], [couplings], T)


def test_exported_programs_do_the_same(rng):
    batch = torch.export.Dim("batch", min=2)
    logits, features, couplings = some_tensors(rng)
    given = (logits.detach(), features[1].detach(), couplings[1].detach())
    shapes = {"logits": {0: batch}, "features": {0: batch}, "couplings": None}
    program = torch.export.export(Model(), given, dynamic_shapes=shapes).module()
    assert torch.equal(program(*given), Model()(*given))
    more = (given[0].repeat(2, 1, 1, 1), given[1].repeat(2, 1, 1), given[2])
    assert torch.equal(program(*more), Model()(*more))


def test_autocast_works_in_float32(rng):
    logits, features, couplings = some_tensors(rng)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_field(half, features, couplings)
        filtered = filter_of(half, features[1])
    assert found.dtype == filtered.dtype == torch.float32
    assert torch.equal(found, mean_field(half.float(), features, couplings))
    found.sum().backward()
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("solver", ["mean-field", "damped", "frank-wolfe"])
def test_autocast_leaves_float64_alone(rng, solver):
    logits, features, couplings = some_tensors(rng, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        found = infer(logits, features, couplings, solver=solver)
    assert found.dtype == torch.float64


LAYERS = {
    "mean field": CRF(C),
    "damped": CRF(C, solver="damped"),
    "dense loss": lambda logits, image: DenseCRFLoss()(logits.softmax(1), image, image[:, 0] > 9),
    "gated loss": lambda logits, image: GatedCRFLoss()(
        logits.softmax(1), image, source=image[:, 0] > 9
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_fake_tensors_have_shapes(rng, name):
    """As those have that count operations or plan memory without computing anything."""
    logits, image = torch.randn(B, C, H, W), 255 * torch.rand(B, 3, H, W)
    expected = LAYERS[name](logits, image)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        found = LAYERS[name](mode.from_tensor(logits), mode.from_tensor(image))
    assert isinstance(found, FakeTensor)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_meta_tensors_have_shapes(rng):
    logits, features, couplings = some_tensors(rng)
    found = mean_field(
        logits.detach().to("meta"),
        [f.detach().to("meta") for f in features],
        [m.detach().to("meta") for m in couplings],
    )
    assert found.shape == logits.shape
    assert found.device.type == "meta"


REFUSED = {
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "vmap": lambda f, x: torch.vmap(f)(torch.stack([x, x])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_transforms_are_refused(rng, name):
    logits, features, couplings = some_tensors(rng)
    features = [f.detach() for f in features]
    with pytest.raises(
        NotImplementedError, match=r"^\[mean_field\] torch.func transforms .* not s"
    ):
        REFUSED[name](lambda x: mean_field(x, features, couplings), logits.detach())
    with pytest.raises(NotImplementedError, match=r"^\[filter\] torch.func transforms .* not supp"):
        REFUSED[name](lambda x: filter_of(x, features[1]), logits.detach())
    with pytest.raises(NotImplementedError, match=r"^\[infer\] torch.func transforms .* not suppo"):
        REFUSED[name](lambda x: infer(x, features, couplings, solver="damped"), logits.detach())


@pytest.mark.parametrize("layer", [CRF(3), DenseCRFLoss()])
def test_vmap_over_images_is_refused(layer):
    scores, images = torch.full((1, 3, 4, 5), 1 / 3), torch.full((2, 1, 3, 4, 5), 90.0)
    with pytest.raises(NotImplementedError, match=r"torch.vmap are not supported"):
        torch.vmap(lambda image: layer(scores, image))(images)


@pytest.mark.parametrize("function", [run, run_filter])
def test_forward_mode_is_refused(rng, function):
    logits, features, couplings = some_tensors(rng)
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        dual = forward.make_dual(logits.detach(), torch.ones_like(logits))
        with pytest.raises(NotImplementedError, match="forward-mode differentiation is not supp"):
            function(dual, features, couplings)


def test_forward_mode_is_refused_by_compiled_code(rng):
    torch.compiler.reset()
    logits, features, couplings = (
        [t.detach() for t in one] if isinstance(one, list) else one.detach()
        for one in some_tensors(rng)
    )

    def tangent(x):
        return torch.func.jvp(lambda x: run(x, features, couplings), (x,), (x,))[1]

    with pytest.raises(Exception, match="forward-mode differentiation is not supported"):
        torch.compile(tangent, backend="aot_eager", fullgraph=True)(logits)


@pytest.mark.parametrize("function", [run, run_filter])
def test_double_backward_is_refused(rng, function):
    given = some_tensors(rng)
    found = function(*given)
    (by_logits,) = torch.autograd.grad(found.square().sum(), given[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"\[crfseg.torch\] double backward is not supp"):
        by_logits.sum().backward()


def test_results_do_not_depend_on_threads(rng):
    import crfseg

    logits, features, couplings = some_tensors(rng)
    found = []
    for threads in (1, 2, 3):
        crfseg.set_num_threads(threads)
        found.append(gradients(run, logits, features, couplings))
    crfseg.set_num_threads(None)
    for output, of_output in found[1:]:
        np.testing.assert_array_equal(output.detach(), found[0][0].detach())
        for one, other in zip(of_output, found[0][1], strict=True):
            assert torch.equal(one, other)
