# SPDX-License-Identifier: MIT
"""``crfseg.torch.mean_field``: values and gradients against float64, whatever the layout."""

import gc
import pickle
from copy import deepcopy

import numpy as np
import pytest

from crfseg.gradients import Kernel, Tape, unroll
from native import lattice_matrix
from reference import NORMALIZATIONS, softmax
from reference_gradients import Model, assert_slopes, logits_after, slopes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch.utils.checkpoint import checkpoint  # noqa: E402 - needs torch

from crfseg.torch import _tapes, mean_field  # noqa: E402

B, C, H, W, T = 2, 3, 4, 6, 3


class Problem:
    """Two kernels over two items, one with features that both share; loss = <gradient, output>."""

    def __init__(self, rng, shapes=("vector", "matrix"), normalization="symmetric"):
        size = 0.1 if normalization == "none" else 1.0
        self.normalization = normalization
        self.logits = rng.normal(size=(B, C, H, W)).astype(np.float32)
        self.gradient = rng.normal(size=(B, C, H, W)).astype(np.float32)
        self.features = [
            rng.normal(size=(n, H * W, d)).astype(np.float32) for n, d in ((1, 2), (B, 3))
        ]
        self.couplings = [
            size * rng.uniform(-0.5, 1.5, (C,) if shape == "vector" else (C, C)).astype(np.float32)
            for shape in shapes
        ]

    def tensors(self, **options):
        """(logits, features, couplings), all of which require gradients."""
        one = torch.tensor(self.logits, requires_grad=True, **options)
        features = [torch.tensor(f, requires_grad=True, **options) for f in self.features]
        couplings = [torch.tensor(m, requires_grad=True, **options) for m in self.couplings]
        return one, features, couplings

    def loss_of(self, logits, couplings, output="logits"):
        """In float64, by dense matrices."""
        total = 0.0
        for i in range(B):
            kernels = [
                lattice_matrix(f[i % len(f)], normalization=self.normalization)
                for f in self.features
            ]
            mus = [-np.diag(m) if m.ndim == 1 else -m for m in couplings]
            model = Model(logits[i].reshape(C, -1), kernels, [np.ones(())] * len(mus), mus)
            z = logits_after(model, T)
            found = z if output == "logits" else softmax(z)
            total += float((found * self.gradient[i].reshape(C, -1)).sum())
        return total


@pytest.mark.parametrize("output", ["logits", "marginals"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_are_the_difference_quotients(rng, normalization, output):
    problem = Problem(rng, normalization=normalization)
    logits, features, couplings = problem.tensors()
    found = mean_field(logits, features, couplings, T, normalization=normalization, output=output)
    loss = (found * torch.from_numpy(problem.gradient)).sum()
    assert loss.item() == pytest.approx(
        problem.loss_of(problem.logits, problem.couplings, output), rel=1e-4, abs=1e-4
    )
    loss.backward()
    by_logits = slopes(lambda x: problem.loss_of(x, problem.couplings, output), problem.logits)
    assert_slopes(logits.grad.numpy(), by_logits)
    for k, coupling in enumerate(problem.couplings):

        def loss_with(value, k=k):
            changed = [value if j == k else m for j, m in enumerate(problem.couplings)]
            return problem.loss_of(problem.logits, changed, output)

        assert_slopes(couplings[k].grad.numpy(), slopes(loss_with, coupling))


@pytest.mark.parametrize("form", ["exact", "smooth"])
def test_gradients_of_features_are_those_of_the_core(rng, form):
    """Which are held to brute force in their own tests."""
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    sigmas = [torch.tensor([1.5]), torch.tensor([2.0, 0.5])]
    groups = [[0, 0], [0, 1, 1]]
    found = mean_field(
        logits, features, couplings, T, sigmas=sigmas, groups=groups, feature_gradient=form
    )
    found.backward(torch.from_numpy(problem.gradient))
    shared = 0.0
    for i, by_features in enumerate(core_gradients(problem, sigmas, groups, features=form)):
        shared = shared + by_features[0].features / 1.5
        scales = np.array([2.0, 0.5, 0.5])
        np.testing.assert_allclose(
            features[1].grad[i].numpy(), by_features[1].features / scales, rtol=1e-6
        )
    np.testing.assert_allclose(features[0].grad[0].numpy(), shared, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [0.05, 0.0])
def test_gradients_of_sigmas_are_those_of_the_core(rng, step):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    sigmas = [torch.tensor([1.5], requires_grad=True), torch.tensor([2.0, 0.5], requires_grad=True)]
    groups = [[0, 0], [0, 1, 1]]
    found = mean_field(
        logits, [f.detach() for f in features], couplings, T, sigmas=sigmas, groups=groups,
        sigma_step=step,
    )  # fmt: skip
    found.backward(torch.from_numpy(problem.gradient))
    how = {"step": step} if step else {"features": "exact"}
    items = core_gradients(problem, sigmas, groups, sigmas=[[[0, 1]], [[0], [1, 2]]], **how)
    for k, sigma in enumerate(sigmas):
        by_log = sum(item[k].log_sigmas for item in items)
        np.testing.assert_allclose(sigma.grad.numpy(), by_log / sigma.detach().numpy(), rtol=1e-5)


def core_gradients(problem, divisors, groups, **how):
    """Of both items, each kernel's."""
    items = []
    for i in range(B):
        scaled = [
            f[i % len(f)] / s.detach().numpy()[g]
            for f, s, g in zip(problem.features, divisors, groups, strict=True)
        ]
        kernels = [
            Kernel(f, 1.0, m if m.ndim == 1 else -m)
            for f, m in zip(scaled, problem.couplings, strict=True)
        ]
        tape = unroll(problem.logits[i], kernels, T)
        items.append(tape.backward(problem.gradient[i], **how).kernels)
    return items


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.cat([x, x], dim=3)[..., :W],
    "every other": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "expanded": lambda x: x[:1].expand(B, C, H, W),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_strides_do_not_matter(rng, name):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    other = LAYOUTS[name](logits.detach()).requires_grad_()
    plain = other.detach().contiguous().requires_grad_()
    found = [mean_field(x, features, couplings, T) for x in (plain, other)]
    assert torch.equal(*found)
    gradient = torch.from_numpy(problem.gradient)
    for one, layout in zip(found, (gradient, LAYOUTS[name](gradient)), strict=True):
        one.backward(layout if name != "expanded" else gradient)
    assert torch.equal(plain.grad, other.grad)


def test_the_layout_is_kept(rng):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    found = mean_field(logits.to(memory_format=torch.channels_last), features, couplings)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16"])
def test_other_dtypes_are_converted_at_the_border(rng, name):
    problem = Problem(rng)
    dtype = getattr(torch, name)
    given = problem.tensors(dtype=dtype)
    rounded = tuple(
        [t.detach().float().requires_grad_() for t in one] if isinstance(one, list)
        else one.detach().float().requires_grad_()
        for one in given
    )  # fmt: skip
    found, expected = mean_field(*given, T), mean_field(*rounded, T)
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    found.sum().backward()
    expected.sum().backward()
    assert given[0].grad.dtype == given[2][0].grad.dtype == dtype
    assert torch.equal(given[0].grad, rounded[0].grad.to(dtype))
    assert torch.equal(given[1][1].grad, rounded[1][1].grad.to(dtype))


def test_items_do_not_know_of_each_other(rng):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    whole = mean_field(logits, features, couplings, T)
    for i in range(B):
        own = [f[i : i + 1] if len(f) > 1 else f for f in features]
        assert torch.equal(mean_field(logits[i : i + 1], own, couplings, T)[0], whole[i])


def test_volumes_and_clouds_are_points_too(rng):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    plain = mean_field(logits, features, couplings, T)
    cloud = mean_field(logits.flatten(2), features, couplings, T)
    volume = mean_field(logits.reshape(B, C, 2, 3, 4), features, couplings, T)
    assert torch.equal(cloud, plain.flatten(2))
    assert torch.equal(volume.flatten(2), plain.flatten(2))


def gradients_of(problem, **how):
    logits, features, couplings = problem.tensors()
    found = mean_field(logits, features, couplings, 7, **how)
    found.backward(torch.from_numpy(problem.gradient))
    return [t.grad for t in (logits, *features, *couplings)]


def test_recomputed_marginals_are_the_same(rng):
    problem = Problem(rng)
    for kept, found in zip(
        gradients_of(problem), gradients_of(problem, recompute=True), strict=True
    ):
        assert torch.equal(kept, found)


def test_truncated_gradients_are_those_of_the_core(rng):
    problem = Problem(rng)
    by_logits, *_ = gradients_of(problem, last=2)
    kernels = [
        Kernel(f[0], 1.0, m if m.ndim == 1 else -m)
        for f, m in zip(problem.features, problem.couplings, strict=True)
    ]
    expected = unroll(problem.logits[0], kernels, 7, last=2).backward(problem.gradient[0])
    np.testing.assert_array_equal(by_logits[0].numpy(), expected.unary)


def test_implicit_gradients_are_those_of_many_steps(rng):
    problem = Problem(rng)
    problem.couplings = [0.3 * m for m in problem.couplings]
    logits, features, couplings = problem.tensors()
    still = mean_field(logits, features, couplings, 300, implicit=True, tolerance=1e-7)
    by_still = torch.autograd.grad(still.square().sum(), [logits, *couplings])
    unrolled = mean_field(logits, features, couplings, 60)
    by_steps = torch.autograd.grad(unrolled.square().sum(), [logits, *couplings])
    for one, other in zip(by_still, by_steps, strict=True):
        assert_slopes(one.numpy(), other.numpy())


def test_a_fixed_point_that_is_none_is_told(rng):
    problem = Problem(rng)
    problem.couplings = [-20 * np.ones(C, np.float32), np.zeros((C, C), np.float32)]
    logits, features, couplings = problem.tensors()
    found = mean_field(0.01 * logits, features, couplings, 20, implicit=True)
    with pytest.warns(RuntimeWarning, match=r"\[mean_field\] implicit=True, but the marginals"):
        found.sum().backward()


def test_what_is_kept_goes_with_the_graph(rng):
    problem = Problem(rng)
    before = n_tapes()
    found = mean_field(*problem.tensors(), T)
    assert n_tapes() == before + B
    found.sum().backward()
    assert n_tapes() == before
    with torch.no_grad():
        found = mean_field(*problem.tensors(), T)
    assert n_tapes() == before


def n_tapes():
    gc.collect()
    return sum(type(one) is Tape for one in gc.get_objects())


def test_a_token_leads_to_what_is_kept_and_its_copies_to_nothing():
    kept = {"anything"}
    token = _tapes.token_of(kept)
    assert _tapes.kept_by(token.detach()[:]) is kept
    assert token.tolist() == _tapes.token_of(None).tolist() == [0]
    for copy in (token.clone(), deepcopy(token), pickle.loads(pickle.dumps(token))):
        assert copy.tolist() == [0]
        assert _tapes.kept_by(copy) is None


def test_the_way_forth_is_gone_again_where_what_it_left_is_lost(rng):
    """Hooks that move saved tensors elsewhere leave nothing but copies."""
    problem = Problem(rng)
    expected = gradients_of(problem)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        found = gradients_of(problem)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_graph_may_be_gone_back_twice(rng):
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    found = mean_field(logits, features, couplings, T).sum()
    first, second = (torch.autograd.grad(found, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_gradients_that_are_not_finite_pass_through(rng):
    """As scalers of losses in half precision rely on."""
    problem = Problem(rng)
    logits, features, couplings = problem.tensors()
    gradient = torch.full((B, C, H, W), torch.inf)
    mean_field(logits, features, couplings, T).backward(gradient)
    assert not logits.grad.isfinite().any()


def test_checkpoints_go_forth_again(rng):
    """torch.utils.checkpoint drops what is kept and runs the op anew."""
    problem = Problem(rng)
    expected = gradients_of(problem)
    logits, features, couplings = problem.tensors()

    def run(logits):
        return mean_field(logits, features, couplings, 7)

    found = checkpoint(run, logits, use_reentrant=False)
    found.backward(torch.from_numpy(problem.gradient))
    assert torch.equal(logits.grad, expected[0])
