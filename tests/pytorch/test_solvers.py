# SPDX-License-Identifier: MIT
"""``crfseg.torch.infer``: every solver, values and gradients, against float64 on dense kernels."""

import numpy as np
import pytest

from crfseg import FrankWolfe, MeanField
from native import lattice_matrix
from reference import NORMALIZATIONS, Term, frank_wolfe
from reference import mean_field as dense_mean_field
from reference import sparsemax as dense_sparsemax
from reference_gradients import assert_slopes, slopes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch import _filters, infer, mean_field  # noqa: E402 - needs torch
from crfseg.torch.solvers import sparsemax  # noqa: E402

B, C, H, W, T = 2, 3, 4, 5, 3
STEPS = (0.7, "diminishing", "line-search")
SOLVERS = {
    "damped": MeanField(0.4),
    **{f"entropy, {step}": FrankWolfe(step=step, strength=0.8) for step in STEPS},
    **{f"euclidean, {step}": FrankWolfe("euclidean", step, 1.5) for step in STEPS},
}
SEARCHED = SOLVERS["entropy, line-search"]
SIGMAS, GROUPS = [np.array([1.5]), np.array([2.0, 0.5])], [[0, 0], [0, 1, 1]]
# torch.compile warns of what it itself still uses.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def solve(solver, unary, terms, iterations=T, start=None, first=0):
    """Marginals of (C, N) energies, from those at step ``first`` on if these are given."""
    steps = iterations - first
    if isinstance(solver, MeanField):
        how = {"damping": solver.damping, "start": start, "traced": False}
        return dense_mean_field(unary, terms, steps, **how).qs[-1]
    how = {"regularizer": solver.regularizer, "step": solver.step, "strength": solver.strength}
    return frank_wolfe(unary, terms, steps, start=start, first=first, **how)[-1]


class Problem:
    """Two kernels over two items, one with features that both share; loss = <gradient, output>.

    Labels repel their like in one kernel, so that energies have their least value inside.
    """

    def __init__(self, rng, normalization="symmetric"):
        size = 0.1 if normalization == "none" else 1.0
        self.normalization = normalization
        self.logits = rng.normal(size=(B, C, H, W)).astype(np.float32)
        self.gradient = rng.normal(size=(B, C, H, W)).astype(np.float32)
        self.features = [
            rng.normal(size=(n, H * W, d)).astype(np.float32) for n, d in ((1, 2), (B, 3))
        ]
        bounds = ((-3.0, -1.0), (-0.5, 1.0))
        self.couplings = [
            size * rng.uniform(*bound, shape).astype(np.float32)
            for bound, shape in zip(bounds, ((C,), (C, C)), strict=True)
        ]

    def tensors(self, **options):
        """(logits, features, couplings, sigmas), all of which require gradients."""
        one = torch.tensor(self.logits, requires_grad=True, **options)
        lists = (self.features, self.couplings, SIGMAS)
        return one, *([torch.tensor(a, dtype=one.dtype, requires_grad=True) for a in arrays]
                      for arrays in lists)  # fmt: skip

    def found(self, solver, tensors, output="marginals", **options):
        logits, features, couplings, sigmas = tensors
        return infer(
            logits, features, couplings, T, solver=solver, sigmas=sigmas, groups=GROUPS,
            output=output, normalization=self.normalization, **options,
        )  # fmt: skip

    def kernels(self, sigmas=SIGMAS):
        """Of each item."""
        scaled = [
            f / s[g].astype(np.float32)
            for f, s, g in zip(self.features, sigmas, GROUPS, strict=True)
        ]
        return [
            [lattice_matrix(f[i % len(f)], normalization=self.normalization) for f in scaled]
            for i in range(B)
        ]

    def model(self, i, kernels, logits=None, couplings=None):
        """Energies and terms of an item."""
        given = self.logits if logits is None else logits
        mus = [-np.diag(m) if m.ndim == 1 else -m for m in couplings or self.couplings]
        terms = [Term(kernel, 1.0, mu) for kernel, mu in zip(kernels, mus, strict=True)]
        return -given[i].reshape(C, -1).astype(np.float64), terms

    def loss(self, solver, kernels, logits=None, couplings=None, starts=(None,) * B, first=0):
        """In float64."""
        total = 0.0
        for i in range(B):
            model = self.model(i, kernels[i], logits, couplings)
            found = solve(solver, *model, start=starts[i], first=first)
            total += float((found * self.gradient[i].reshape(C, -1)).sum())
        return total

    def by_kernels(self, solver):
        """DLoss by the entries of each item's kernels."""
        kernels = self.kernels()

        def loss_with(value, i, k):
            changed = [value if j == k else own for j, own in enumerate(kernels[i])]
            found = solve(solver, *self.model(i, changed))
            return float((found * self.gradient[i].reshape(C, -1)).sum())

        return [
            [slopes(lambda v, i=i, k=k: loss_with(v, i, k), kernels[i][k]) for k in range(2)]
            for i in range(B)
        ]


@pytest.mark.parametrize("name", SOLVERS)
def test_values_and_gradients_are_those_of_the_dense_model(rng, name):
    solver, problem = SOLVERS[name], Problem(rng)
    tensors = problem.tensors()
    check(problem, solver, tensors, problem.found(solver, tensors))


@pytest.mark.parametrize("name", SOLVERS)
def test_logits_are_those_of_the_marginals(rng, name):
    problem = Problem(rng)
    tensors = problem.tensors()
    x, logits = (problem.found(SOLVERS[name], tensors, output=o) for o in ("marginals", "logits"))
    expected = (x + 1e-9).log() if "damped" not in name else x.log() + logits.logsumexp(1, True)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    if "damped" in name:
        return
    by_logits, by_x = (
        torch.autograd.grad(y.sum(), tensors[2], retain_graph=True) for y in (logits, expected)
    )
    for one, other in zip(by_logits, by_x, strict=True):
        assert_slopes(one.numpy(), other.numpy())


def test_zeros_have_a_logarithm(rng):
    solver, problem = FrankWolfe("euclidean", 1.0, 0.3), Problem(rng)
    x, logits = (
        problem.found(solver, problem.tensors(), output=o) for o in ("marginals", "logits")
    )
    assert x.count_nonzero() < x.numel()
    torch.testing.assert_close(logits, (x + 1e-9).log())


def test_damped_logits_are_mean_fields_where_damping_is_next_to_nothing(rng):
    problem = Problem(rng)
    logits = [problem.found(solver, problem.tensors(), output="logits")
              for solver in (MeanField(1e-9), "mean-field")]  # fmt: skip
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_all_normalizations(normalization):
    """From a seed whose searched directions stay long: a short one is a difference in float32."""
    problem = Problem(np.random.default_rng(2), normalization)
    tensors = problem.tensors()
    check(problem, SEARCHED, tensors, problem.found(SEARCHED, tensors))


def check(problem, solver, tensors, found, **how):
    kernels = problem.kernels()
    loss = (found * torch.from_numpy(problem.gradient)).sum()
    expected = problem.loss(solver, kernels, **how)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    loss.backward()

    def loss_of(logits, couplings):
        return problem.loss(solver, kernels, logits, couplings, **how)

    by_logits = slopes(lambda x: loss_of(x, problem.couplings), problem.logits)
    assert_slopes(tensors[0].grad.numpy(), by_logits)
    for k, coupling in enumerate(problem.couplings):

        def loss_with(value, k=k):
            return loss_of(
                problem.logits, [value if j == k else m for j, m in enumerate(problem.couplings)]
            )

        assert_slopes(tensors[2][k].grad.numpy(), slopes(loss_with, coupling))


def shares(model, solver):
    """The steps it takes, as parts of whole ones."""
    found, whole = [], FrankWolfe(solver.regularizer, 1.0, solver.strength)
    for k in range(T):
        x, after = solve(solver, *model, k), solve(solver, *model, k + 1)
        r = solve(whole, *model, 1, start=x) - x
        found.append(float(((after - x) * r).sum() / (r * r).sum()))
    return found


def test_line_search_takes_a_step_for_each_item(rng):
    """And some of them lie inside, where they are differentiated."""
    problem = Problem(rng)
    steps = [shares(problem.model(i, own), SEARCHED) for i, own in enumerate(problem.kernels())]
    assert any(0.01 < share < 0.99 for own in steps for share in own)
    assert not np.allclose(*steps, atol=1e-2)
    logits, features, couplings, sigmas = problem.tensors()
    whole = problem.found(SEARCHED, (logits, features, couplings, sigmas))
    for i in range(B):
        own = [f[i : i + 1] if len(f) > 1 else f for f in features]
        alone = problem.found(SEARCHED, (logits[i : i + 1], own, couplings, sigmas))
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["damped", "entropy, line-search"])
def test_gradients_of_features_are_those_of_the_filter(rng, name):
    """Whose kernel is asked for its gradient once, by what the loss makes of its entries."""
    solver, problem = SOLVERS[name], Problem(rng)
    tensors = problem.tensors()
    found = problem.found(solver, tensors)
    found.backward(torch.from_numpy(problem.gradient))
    by_kernels = problem.by_kernels(solver)
    for k, features in enumerate(tensors[1]):
        sigmas = tensors[3][k].detach()[GROUPS[k]].float()
        expected = torch.zeros_like(features)
        for i in range(B):
            scaled = (features.detach()[[i % len(features)]] / sigmas).requires_grad_()
            through = torch.ops.crfseg.filter(
                torch.eye(H * W)[None], scaled, torch.zeros(1), "symmetric", "fast", "exact", False
            )
            through.backward(torch.tensor(by_kernels[i][k].T, dtype=torch.float32)[None])
            expected[i % len(features)] += scaled.grad[0] / sigmas
        assert_slopes(features.grad.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["damped", "entropy, line-search"])
def test_gradients_of_sigmas_are_difference_quotients_of_the_kernels(rng, name):
    solver, problem = SOLVERS[name], Problem(rng)
    tensors = problem.tensors()
    found = problem.found(solver, tensors, sigma_step=0.05)
    found.backward(torch.from_numpy(problem.gradient))
    by_kernels = problem.by_kernels(solver)
    for k, sigmas in enumerate(SIGMAS):
        expected = np.zeros(len(sigmas))
        for g in range(len(sigmas)):
            ends = []
            for factor in (1.05, 1 / 1.05):
                moved = [s.copy() for s in SIGMAS]
                moved[k][g] *= factor
                ends.append(problem.kernels(moved))
            for i in range(B):
                slope = (ends[0][i][k] - ends[1][i][k]) / (2 * np.log(1.05))
                expected[g] += (by_kernels[i][k] * slope).sum() / sigmas[g]
        assert_slopes(tensors[3][k].grad.numpy(), expected)


def test_sigmas_may_take_the_chain_rule(rng):
    problem = Problem(rng)
    tensors = problem.tensors()
    problem.found(SEARCHED, tensors, sigma_step=0.0).backward(torch.from_numpy(problem.gradient))
    for features, sigmas, group in zip(tensors[1], tensors[3], GROUPS, strict=True):
        by_axis = -(features * features.grad).sum((0, 1)) / sigmas[group]
        expected = torch.zeros(len(sigmas)).index_add(0, torch.tensor(group), by_axis)
        assert_slopes(sigmas.grad.numpy(), expected.detach().numpy())


def test_whole_steps_with_entropy_are_mean_field(rng):
    problem = Problem(rng)
    gradient = torch.from_numpy(problem.gradient)
    gradients, outputs = [], []
    for solver in (FrankWolfe(step=1.0), "mean-field"):
        tensors = problem.tensors()
        outputs.append(problem.found(solver, tensors))
        outputs[-1].backward(gradient)
        gradients.append([t.grad for one in tensors for t in (one if type(one) is list else [one])])
    torch.testing.assert_close(*outputs, rtol=0, atol=2e-6)
    for one, other in zip(*gradients, strict=True):
        assert_slopes(one.numpy(), other.numpy())


def test_undamped_mean_field_is_the_op(rng):
    problem = Problem(rng)
    logits, features, couplings, _ = problem.tensors()
    expected = mean_field(logits, features, couplings, T)
    for solver in ("mean-field", MeanField(), MeanField(damping=0.0)):
        assert torch.equal(infer(logits, features, couplings, T, solver=solver), expected)


@pytest.mark.parametrize("name", SOLVERS)
def test_steps_may_be_done_again_on_the_way_back(rng, name):
    problem, gradients = Problem(rng), []
    for recompute in (False, True):
        tensors = problem.tensors()
        found = problem.found(SOLVERS[name], tensors, recompute=recompute)
        found.backward(torch.from_numpy(problem.gradient))
        gradients.append([t.grad for one in tensors for t in (one if type(one) is list else [one])])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["damped", "entropy, line-search", "euclidean, diminishing"])
def test_the_last_steps_alone_are_differentiated(rng, name):
    solver, problem = SOLVERS[name], Problem(rng)
    tensors = problem.tensors()
    starts = [
        solve(solver, *problem.model(i, own), T - 2) for i, own in enumerate(problem.kernels())
    ]
    found = problem.found(solver, tensors, last=2)
    check(problem, solver, tensors, found, starts=starts, first=T - 2)


def test_steps_that_are_constant_find_no_slopes_of_sigmas(rng, monkeypatch):
    apply, calls = _filters.apply, []
    monkeypatch.setattr(_filters, "apply", lambda *a, **k: calls.append(k) or apply(*a, **k))
    problem, counts = Problem(rng), []
    for last in (1, 2):
        calls.clear()
        problem.found(SOLVERS["damped"], problem.tensors(), last=last)
        counts.append(len(calls))
    n_sigmas = sum(len(set(group)) for group in GROUPS)
    assert counts[1] - counts[0] == 2 * n_sigmas


def counted(monkeypatch):
    """Names of features whose lattices are built from here on."""
    build, names = _filters.lattices_of, []
    monkeypatch.setattr(_filters, "lattices_of", lambda *a: names.append(a[1]) or build(*a))
    return names


def test_lattices_are_built_once(rng, monkeypatch):
    built = counted(monkeypatch)
    problem = Problem(rng)
    logits, features, couplings, sigmas = problem.tensors()
    problem.found(SEARCHED, (logits, features, couplings, sigmas), sigma_step=0.0).sum().backward()
    assert built == ["features[0]", "features[1]"]
    built.clear()
    problem.found(SEARCHED, (logits, features, couplings, sigmas), recompute=True).sum().backward()
    assert built == ["features[0]"] * 3 + ["features[1]"] * 5


def test_other_dtypes_and_shapes(rng):
    problem = Problem(rng)
    logits, features, couplings, sigmas = problem.tensors()
    expected = problem.found(SEARCHED, (logits, features, couplings, sigmas))
    for dtype in (torch.float64, torch.bfloat16):
        given = logits.detach().to(dtype).requires_grad_()
        found = problem.found(SEARCHED, (given, features, couplings, sigmas))
        assert found.dtype == dtype
        found.sum().backward()
        assert given.grad.dtype == dtype
    volume = logits.reshape(B, C, 2, 2, 5).transpose(2, 3).contiguous().transpose(2, 3)
    found = problem.found(SEARCHED, (volume, features, couplings, sigmas))
    assert torch.equal(found.flatten(2), expected.flatten(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = problem.found(SEARCHED, (logits.bfloat16(), features, couplings, sigmas))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    meta = logits.detach().to("meta")
    others = [[t.detach().to("meta") for t in one] for one in (features, couplings, sigmas)]
    assert problem.found(SEARCHED, (meta, *others)).shape == logits.shape


@pytest.mark.parametrize("name", SOLVERS)
def test_labels_that_are_out_of_the_question_stay_finite(rng, name):
    problem = Problem(rng)
    problem.logits[:, 1, 1:] = -1e30
    problem.logits[:, 2] += 1e4
    tensors = problem.tensors()
    found = problem.found(SOLVERS[name], tensors)
    found.backward(torch.from_numpy(problem.gradient))
    for tensor in (found, tensors[0].grad, *(t.grad for one in tensors[1:] for t in one)):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("name", ["entropy, line-search", "euclidean, diminishing"])
def test_a_common_offset_of_a_point_costs_no_digits(rng, name):
    problem = Problem(rng)
    logits, *others = problem.tensors()
    exact = (logits.detach() * 64).round() / 64
    expected = problem.found(SOLVERS[name], (exact, *others))
    assert torch.equal(problem.found(SOLVERS[name], (exact + 2.0**14, *others)), expected)


def test_sparsemax_is_the_projection_on_the_simplex(rng):
    scores = rng.normal(size=(B, 7, 50)) * rng.choice([0.1, 1.0, 10.0], (B, 1, 50))
    scores[:, :3, :9] = scores[:, 3:6, :9]  # ties
    scores[:, 4:, 5:20] = -1e30
    given = torch.tensor(scores.swapaxes(1, 2), requires_grad=True)
    found = sparsemax(given)
    expected = np.stack([dense_sparsemax(item).T for item in scores])
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    single = sparsemax(given.detach().float())
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-6)
    assert single.count_nonzero() < single.numel() / 2
    few = torch.tensor(rng.normal(size=(8, 5)), requires_grad=True)
    assert torch.autograd.gradcheck(sparsemax, (few,))
