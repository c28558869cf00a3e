# SPDX-License-Identifier: MIT
"""``crfseg.refine`` of tensors that require gradients."""

import numpy as np
import pytest

import crfseg
from crfseg import Bilateral, Features, FrankWolfe, Gaussian, refine

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

N, C, H, W = 2, 3, 16, 20


@pytest.fixture
def image(rng):
    blocks = rng.integers(0, 256, (N, H // 4, W // 4, 3))
    return blocks.repeat(4, 1).repeat(4, 2).astype(np.uint8)


@pytest.fixture
def logits(rng):
    return torch.tensor(rng.normal(size=(N, C, H, W)), dtype=torch.float32)


def check(x, image, *, atol=1e-4, **options):
    """The same as without a gradient, whose gradient is the slope along a direction."""
    expected = refine(x, image, **options)
    given = x.clone().requires_grad_()
    found = refine(given, image, **options)
    assert found.requires_grad
    assert found.dtype == x.dtype
    assert found.shape == expected.shape
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=atol)
    found.square().sum().backward()
    assert given.grad.shape == x.shape
    assert given.grad.dtype == x.dtype
    return given.grad, found


def slope_along(x, image, direction, step=1e-2, **options):
    """By ``refine`` alone, which knows nothing of gradients."""
    ends = [
        refine(x + s * direction, image, **options).double().square().sum() for s in (step, -step)
    ]
    return float(ends[0] - ends[1]) / (2 * step)


# Weak enough to leave marginals in between 0 and 1, where slopes are.
WEAK = {"spatial": (2.0, 0.5), "bilateral": (10.0, 30.0, 1.0)}


def test_logits(rng, logits, image):
    gradient, _ = check(logits, image, kind="logits", returns="probs", **WEAK)
    direction = torch.tensor(rng.normal(size=logits.shape), dtype=torch.float32)
    expected = slope_along(logits, image, direction, kind="logits", returns="probs", **WEAK)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2)
    check(logits, image, kind="logits", atol=2e-3)


def test_probabilities(rng, logits, image):
    probs = (0.5 * logits).softmax(1)
    gradient, _ = check(probs, image, **WEAK)
    direction = torch.tensor(rng.normal(size=logits.shape), dtype=torch.float32)
    direction = 0.1 * probs * (direction - (probs * direction).sum(1, keepdim=True))
    expected = slope_along(probs, image, direction, **WEAK)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2)


def test_foreground_probabilities(logits, image):
    mask = logits[:, 0].sigmoid()
    check(mask, image, kind="mask")
    check(mask[:, None], image, kind="mask")
    check(mask[0], image[0], kind="mask")


def test_layouts_dtypes_and_strides(logits, image):
    probs = logits.softmax(1)
    _, whole = check(probs, image)
    for one, own, back in (
        (probs.movedim(1, 3), image, lambda q: q.movedim(3, 1)),
        (probs.movedim(1, 3).contiguous(), image, lambda q: q.movedim(3, 1)),
        (probs.to(memory_format=torch.channels_last), image, lambda q: q),
    ):
        _, found = check(one, own)
        assert torch.equal(back(found), whole)
    _, found = check(probs[1].movedim(0, 2), image[1])
    assert torch.equal(found.movedim(2, 0), whole[1])
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        check(probs.to(dtype), image, atol=1e-2)


@pytest.mark.parametrize("alignment", ["half-pixel", "align-corners"])
@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_coarse_scores(logits, image, alignment, kind):
    coarse = logits[:, :, :4, :5]
    coarse = coarse.softmax(1) if kind == "probs" else coarse
    check(coarse, image, kind=kind, layout="NCHW", upsample=alignment, returns="probs")


def test_models(rng, logits, image):
    depth = rng.normal(size=(H, W, 1))
    options = {"kind": "logits", "returns": "probs", "layout": "NCHW"}
    check(logits, image, **options, compatibility=rng.normal(size=(C, C)), spatial=(2.0, 1.0))
    check(logits, image, **options, compatibility=rng.uniform(0, 1, C), normalization="after")
    check(logits, image, **options, bilateral=None, iterations=3, accuracy="fine")
    check(logits, image, **options, spatial=None, bilateral=((30.0, 20.0), 10.0, 2.0))
    check(logits, image[0], **options, spatial=None)
    own = Bilateral(image[1].astype(np.float32) / 255, 10.0, 20.0, 3.0)
    check(logits, None, **options, pairwise=[Gaussian(2.0, 1.0), own, Features(depth, 0.5, 2.0)])
    check(logits, None, **options, pairwise=[])
    check(logits, image.astype(np.float32), **options, image_range=(0.0, 300.0))


SOLVERS = ("damped", "frank-wolfe", FrankWolfe("euclidean", "diminishing", 0.5))


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers(rng, logits, image, solver):
    """The native ones, and their slopes, along steps too short for many points to meet a kink."""
    options = {"kind": "logits", "returns": "probs", "iterations": 3, "solver": solver, **WEAK}
    for more in ({}, {"compatibility": np.eye(C) * 0.5}, {"normalization": "after"}):
        gradient, _ = check(logits, image, **options, **more)
    direction = torch.tensor(rng.normal(size=logits.shape), dtype=torch.float32)
    expected = slope_along(logits, image, direction, normalization="after", step=1e-4, **options)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2, abs=0.05)
    options["returns"] = "same"
    check(logits, image, atol=2e-3, **options)
    check(logits[:, 0].sigmoid(), image, kind="mask", solver=solver)


def test_what_has_no_gradient_is_refined_as_ever(logits, image):
    learned = logits.softmax(1).requires_grad_()
    assert refine(learned, image, returns="labels").dtype == torch.uint8
    with torch.no_grad():
        assert not refine(learned, image).requires_grad
    empty = logits[:0].softmax(1).requires_grad_()
    assert refine(empty, image[:0]).shape == (0, C, H, W)


def test_training_by_refine_alone(logits, image):
    """A step downhill lowers the loss."""
    learned = logits.clone().requires_grad_()
    target = torch.zeros(N, H, W, dtype=torch.int64)

    def loss():
        return torch.nn.functional.nll_loss(refine(learned, image, kind="logits"), target)

    first = loss()
    first.backward()
    with torch.no_grad():
        learned -= 0.1 * learned.grad / learned.grad.abs().max()
    assert loss() < first


def test_what_is_not_differentiated_is_named(logits, image):
    learned = logits.softmax(1).requires_grad_()
    moving = torch.tensor(image, dtype=torch.float32).div(255).requires_grad_()
    mixed = [Gaussian(normalization="after"), Gaussian(normalization="none")]
    for options, words in (
        ({"tolerance": 1e-3}, "x requires a gradient but tolerance is 0.001; expected tolerance=0"),
        ({"image": moving}, r"image requires a gradient, which .*; expected image.detach\(\), or"),
        ({"compatibility": torch.ones(C, requires_grad=True)}, "compatibility requires a gradient"),
        ({"pairwise": mixed}, "x requires a gradient but its terms differ in normalization"),
    ):
        given = {"image": image} | options
        with pytest.raises(ValueError, match=rf"^\[refine\] {words}"):
            refine(learned, **given)


def test_elsewhere_gradients_are_not_lost_without_a_word(logits):
    unary = logits[0].clone().requires_grad_()
    points = torch.zeros(4, 2, requires_grad=True)
    for call, words in (
        (lambda: crfseg.DenseCRF(unary, []), r"\[DenseCRF\] unary requires a gradient, which it"),
        (
            lambda: crfseg.Lattice(points),
            r"\[Lattice\] features requires .*features.detach\(\), or",
        ),
        (lambda: crfseg.unary_from_logits(unary), r"\[unary_from_logits\] logits requires a grad"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
        with torch.no_grad():
            call()


def test_bad_values_are_named_as_ever(logits, image):
    for x, kind, words in (
        (logits.softmax(1) * 2, "probs", r"^\[refine\] x\[0\] .*sum"),
        (logits / 0.0, "logits", r"logits\[0\] .*; expected finite"),
    ):
        with pytest.raises(ValueError, match=words):
            refine(x.requires_grad_(), image, kind=kind)


def test_threads_do_not_matter(logits, image):
    found = []
    for threads in (1, 2):
        crfseg.set_num_threads(threads)
        found.append(check(logits.softmax(1), image)[0])
    crfseg.set_num_threads(None)
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_thin_structures_are_held_and_have_gradients(kind):
    labels = torch.zeros(40, 60, dtype=torch.long)
    labels[:, :25], labels[5:35, 42:46] = 1, 2
    probs = 0.25 + 0.25 * torch.nn.functional.one_hot(labels).movedim(-1, 0)
    photo = np.full((40, 60, 3), 90, np.uint8)
    x = probs if kind == "probs" else probs.log()
    grad, found = check(x, photo, kind=kind)
    pole = labels == 2
    assert (found.detach().argmax(0)[pole] == 2).float().mean() > 0.9
    assert (grad[:, pole] != 0).any()
