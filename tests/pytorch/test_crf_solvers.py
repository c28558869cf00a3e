# SPDX-License-Identifier: MIT
"""``crfseg.torch.CRF`` with other solvers than mean field."""

import pytest

from crfseg import FrankWolfe
from reference_gradients import assert_slopes
from shapes import N_CLASSES, some_shapes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch import CRF, _filters  # noqa: E402 - needs torch

B, C, H, W = 2, 3, 4, 5
SEARCHED = FrankWolfe(step="line-search")
# torch.compile warns of what it itself still uses.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("solver", "backend", "recompute"),
    [
        ("damped", "aot_eager", False),
        (SEARCHED, "aot_eager", True),
        (FrankWolfe("euclidean", "line-search"), "inductor", False),
    ],
)
def test_the_compiled_layer_does_the_same(rng, monkeypatch, solver, backend, recompute):
    torch.compiler.reset()
    crf = CRF(C, solver=solver, training_iterations=2, recompute=recompute)
    compiled = torch.compile(crf, fullgraph=True, backend=backend)
    logits = torch.tensor(rng.normal(size=(B, C, H, W)), dtype=torch.float32, requires_grad=True)
    image = torch.tensor(rng.integers(0, 256, (B, 3, H, W)), dtype=torch.uint8)
    inputs = [logits, *(p for p in crf.parameters() if p.requires_grad)]
    found, expected = compiled(logits, image), crf(logits, image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    build, built = _filters.lattices_of, []
    monkeypatch.setattr(_filters, "lattices_of", lambda *a: built.append(a) or build(*a))
    compiled(logits, image).sum().backward()
    assert len(built) == 2


@pytest.mark.parametrize("solver", ["damped", "frank-wolfe", FrankWolfe("euclidean", 0.5)])
def test_a_layer_learns_through_any_solver(rng, solver):
    image, labels = map(torch.from_numpy, some_shapes(rng, 4, 32))
    noise = torch.tensor(rng.normal(size=(4, N_CLASSES, 32, 32)), dtype=torch.float32)
    logits = torch.eye(N_CLASSES)[labels].permute(0, 3, 1, 2) + 1.5 * noise
    learn = ("weights", "compatibility", "sigmas")
    crf = CRF(
        N_CLASSES, spatial=(3.0, 1.0), bilateral=(15.0, 40.0, 1.0), solver=solver, learn=learn
    )
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.1)
    before = crf.bilateral_log_sigmas.detach().clone()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(crf(logits, image), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(crf.bilateral_log_sigmas, before)


@pytest.mark.parametrize("form", ["exact", "smooth"])
def test_images_get_gradients_where_asked_for(rng, form):
    logits = torch.tensor(rng.normal(size=(B, C, H, W)), dtype=torch.float32)
    image = torch.tensor(rng.uniform(0, 64, (B, 3, H, W)), dtype=torch.float32, requires_grad=True)
    gradients = []
    for solver in ("mean-field", FrankWolfe(step=1.0)):
        crf = CRF(C, output="marginals", image_gradient=form, solver=solver)
        gradients += torch.autograd.grad(crf(logits, image).square().sum(), image)
    assert_slopes(gradients[1].numpy(), gradients[0].numpy(), relative=1e-3)


def test_a_batch_may_be_empty():
    logits = torch.zeros(0, C, H, W, requires_grad=True)
    found = CRF(C, solver=SEARCHED)(logits, torch.zeros(0, 3, H, W))
    found.sum().backward()
    assert found.shape == logits.grad.shape == (0, C, H, W)


def test_the_layer_says_how_it_solves():
    assert repr(CRF(C, solver="damped")).endswith("'symmetric', solver MeanField(damping=0.5))")
