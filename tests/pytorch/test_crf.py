# SPDX-License-Identifier: MIT
"""``crfseg.torch.CRF``: the layer against refine, brute force and CRF-RNN's own formula."""

import copy
import io

import numpy as np
import pytest

import crfseg
from native import lattice_matrix
from reference import softmax
from reference_gradients import assert_slopes, slopes
from shapes import some_shapes

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch import CRF, mean_field  # noqa: E402 - needs torch

N, C, H, W = 2, 3, 5, 6
# torch.compile warns of what it itself still uses.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def some_batch(rng, n=N, channels=3, size=(H, W)):
    logits = torch.tensor(rng.normal(size=(n, C, *size)), dtype=torch.float32, requires_grad=True)
    image = torch.tensor(rng.integers(0, 256, (n, channels, *size)), dtype=torch.uint8)
    return logits, image


def randomize(crf, rng):
    """Other values than a layer begins with; sigmas stay."""
    with torch.no_grad():
        for name, parameter in crf.named_parameters():
            if "log" not in name:
                parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape))))


def matrices(crf, image, normalization="symmetric"):
    """(N, N) spatial and bilateral filters of an image, by the lattice."""
    _, height, width = image.shape
    y, x = np.indices((height, width)).reshape(2, -1)
    xy = np.stack([x, y], axis=1)
    colours = image.reshape(len(image), -1).T
    spatial = float(crf.spatial_log_sigma.exp())
    near, alike = crf.bilateral_log_sigmas.exp().tolist()
    features = [xy / spatial, np.concatenate([xy / near, colours / alike], axis=1)]
    return [lattice_matrix(f.astype(np.float32), normalization=normalization) for f in features]


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_it_is_refine_with_customary_parameters_to_begin_with(rng, normalization):
    """As ``refine`` does it with a tolerance, in logits.

    Else it multiplies probabilities by exp(messages), which is 1e-4 off float64 where random scores
    are at a tipping point: half a unit in the last place of the logits is 1e-5 to 5e-5 there.
    """
    logits, image = some_batch(rng, 3, size=(20, 30))
    crf = CRF(C, output="marginals", normalization=normalization).eval()
    expected = crfseg.refine(
        logits.detach(),
        image.permute(0, 2, 3, 1),
        kind="logits",
        returns="probs",
        normalization=normalization,
        tolerance=1e-30,
        **crfseg.CUSTOMARY,
    )
    torch.testing.assert_close(crf(logits, image).detach(), expected, rtol=0, atol=1e-4)


def test_fewer_iterations_in_training(rng):
    logits, image = some_batch(rng)
    by_mode = [CRF(C).train(mode)(logits, image) for mode in (True, False)]
    named = [CRF(C, training_iterations=t, eval_iterations=t)(logits, image) for t in (5, 10)]
    assert torch.equal(by_mode[0], named[0])
    assert torch.equal(by_mode[1], named[1])
    assert not torch.equal(*by_mode)


def loss_of(crf, parameters, logits, image, gradient):
    """In float64, by the formula of the docstring."""
    total = 0.0
    mu = parameters.get("compatibility", -np.eye(C))
    for x, one, g in zip(logits, image, gradient, strict=True):
        kernels = matrices(crf, one)
        z = x.reshape(C, -1).astype(np.float64)
        for _ in range(crf.training_iterations):
            q = softmax(z)
            z = x.reshape(C, -1).astype(np.float64)
            for name, kernel in zip(("spatial", "bilateral"), kernels, strict=True):
                weight = parameters[f"{name}_weight"]
                weight = np.diag(np.broadcast_to(weight, C)) if weight.ndim < 2 else weight
                z = z - mu @ weight @ (q @ kernel.T)
        total += float((z * g.reshape(C, -1)).sum())
    return total


@pytest.mark.parametrize("compatibility", ["matrix", "potts"])
@pytest.mark.parametrize("weights", ["scalar", "class", "matrix"])
def test_gradients_of_parameters_are_the_difference_quotients(rng, weights, compatibility):
    crf = CRF(C, weights=weights, compatibility=compatibility, training_iterations=2)
    randomize(crf, rng)
    logits, image = some_batch(rng)
    gradient = torch.tensor(rng.normal(size=(N, C, H, W)), dtype=torch.float32)
    crf(logits, image).backward(gradient)
    arrays = (logits.detach().numpy(), image.numpy().astype(float), gradient.numpy())
    found = {name: p for name, p in crf.named_parameters() if p.requires_grad}
    values = {name: p.detach().numpy().astype(np.float64) for name, p in found.items()}
    assert crf(logits, image).mul(gradient).sum().item() == pytest.approx(
        loss_of(crf, values, *arrays), rel=1e-4, abs=1e-3
    )
    for name, parameter in found.items():

        def loss_with(value, name=name):
            return loss_of(crf, values | {name: value}, *arrays)

        assert_slopes(parameter.grad.numpy(), slopes(loss_with, values[name]))


def test_what_is_learned_is_chosen(rng):
    for learn in ((), ("weights",), ("sigmas", "compatibility"), ["weights", "sigmas"]):
        crf = CRF(C, learn=learn)
        learned = {name for name, p in crf.named_parameters() if p.requires_grad}
        expected = set()
        for what, names in {
            "weights": {"spatial_weight", "bilateral_weight"},
            "compatibility": {"compatibility"},
            "sigmas": {"spatial_log_sigma", "bilateral_log_sigmas"},
        }.items():
            expected |= names if what in learn else set()
        assert learned == expected
        if learn:
            crf(*some_batch(rng)).square().sum().backward()
            assert all(p.grad.abs().sum() > 0 for p in crf.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("options", "nearness"),
    [
        ({}, 0.1),
        ({"sigma_step": 0.0, "image_gradient": "smooth"}, 0.3),
        ({"sigma_step": 0.0, "image_gradient": "exact"}, 0.5),
    ],
)
def test_gradients_of_sigmas_are_near_the_slopes_of_the_loss(rng, options, nearness):
    """Over a tenth of a sigma to either side; difference quotients are the default, and nearest."""
    image, labels = map(torch.from_numpy, some_shapes(rng, 2, 40))
    logits = torch.eye(4)[labels].permute(0, 3, 1, 2)
    logits = logits + 1.5 * torch.tensor(rng.normal(size=(2, 4, 40, 40)), dtype=torch.float32)
    crf = CRF(4, spatial=(3.0, 1.0), bilateral=(15.0, 40.0, 3.0), learn=("sigmas",), **options)

    def loss():
        return torch.nn.functional.cross_entropy(crf(logits, image), labels)

    loss().backward()
    learned = [p for p in crf.parameters() if p.requires_grad]
    quotients = []
    for parameter in learned:
        for i in range(len(parameter)):
            bounds = []
            for step in (0.1, -0.2):
                with torch.no_grad():
                    parameter[i] += step
                    bounds.append(loss().item())
            with torch.no_grad():
                parameter[i] += 0.1
            quotients.append((bounds[0] - bounds[1]) / 0.2)
    found = torch.cat([p.grad for p in learned]).numpy()
    assert_slopes(found, np.array(quotients), relative=nearness)


@pytest.mark.parametrize("form", ["exact", "smooth"])
def test_images_get_gradients_where_asked_for(rng, form):
    logits, image = some_batch(rng)
    image = (image / 4.0).requires_grad_()
    crf = CRF(C, image_gradient=form)
    crf(logits, image).square().sum().backward()
    assert image.grad.abs().sum() > 0
    flat = image.detach().flatten(2).transpose(1, 2)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    xy = torch.stack([x, y], dim=-1).reshape(1, H * W, 2).float()
    bilateral = torch.cat([xy.expand(N, -1, -1), flat], dim=2) / torch.tensor(
        [80.0, 80.0, 13.0, 13.0, 13.0]
    )
    bilateral.requires_grad_()
    couplings = [3.0 * torch.eye(C), 10.0 * torch.eye(C)]
    found = mean_field(logits, [xy / 3, bilateral], couplings, feature_gradient=form)
    found.square().sum().backward()
    expected = (bilateral.grad[..., 2:] / 13.0).transpose(1, 2).reshape(N, 3, H, W)
    assert_slopes(image.grad.numpy(), expected.numpy(), relative=1e-3)


def test_any_batch_image_and_number_of_classes(rng):
    crf = CRF(C)
    for n, channels in ((1, 1), (3, 3), (2, 7)):
        logits, image = some_batch(rng, n, channels)
        whole = crf(logits, image)
        assert torch.equal(whole, crf(logits, image.double()))
        for i in range(n):
            assert torch.equal(crf(logits[i : i + 1], image[i : i + 1])[0], whole[i])


def test_one_class_is_refused_and_two_are_a_foreground(rng):
    with pytest.raises(
        ValueError, match=r"^\[CRF\] num_classes is 1, and .* expected 2 for a fore"
    ):
        CRF(1)
    logits, image = some_batch(rng)
    x = logits[:, :1].detach()
    found = CRF(2, output="marginals").eval()(torch.cat([0 * x, x], 1), image)
    foreground, pictures = x[:, 0].sigmoid(), image.permute(0, 2, 3, 1)
    expected = crfseg.refine(foreground, pictures, kind="mask", **crfseg.CUSTOMARY)
    torch.testing.assert_close(found[:, 1].detach(), expected, rtol=0, atol=1e-4)


def test_a_batch_may_be_empty():
    crf = CRF(C)
    logits = torch.zeros(0, C, H, W, requires_grad=True)
    found = crf(logits, torch.zeros(0, 3, H, W))
    found.sum().backward()
    assert found.shape == logits.grad.shape == (0, C, H, W)
    assert not crf.spatial_weight.grad.any()


def test_a_kernel_may_be_left_out(rng):
    logits, image = some_batch(rng)
    spatial = CRF(C, bilateral=None)
    assert "bilateral_weight" not in spatial.state_dict()
    features = CRF(C, bilateral=(80.0, 13.0, 0.0))
    torch.testing.assert_close(spatial(logits, image), features(logits, image))
    nothing = CRF(C, spatial=None, bilateral=None)(logits, image)
    torch.testing.assert_close(nothing, logits)


KEYS = [
    "spatial_weight",
    "spatial_log_sigma",
    "bilateral_weight",
    "bilateral_log_sigmas",
    "compatibility",
]


def test_the_state_has_these_names_and_shapes(rng):
    """Files that users have saved rely on them."""
    crf = CRF(C)
    assert list(crf.state_dict()) == KEYS
    shapes = [tuple(value.shape) for value in crf.state_dict().values()]
    assert shapes == [(C,), (1,), (C,), (2,), (C, C)]
    randomize(crf, rng)
    file = io.BytesIO()
    torch.save(crf.state_dict(), file)
    file.seek(0)
    other = CRF(C)
    other.load_state_dict(torch.load(file))
    given = some_batch(rng)
    assert torch.equal(other(*given), crf(*given))
    assert torch.equal(copy.deepcopy(crf)(*given), crf(*given))


def crfrnn(parameters, logits, image, crf, sign, iterations):
    """Zheng et al.'s layer as its ports write it: weights, sum, compatibility, sum."""
    spatial, bilateral, mu = parameters
    found = []
    for x, one in zip(logits.detach().numpy(), image.numpy().astype(float), strict=True):
        kernels = matrices(crf, one, "after")
        z = unary = x.reshape(C, -1)
        for _ in range(iterations):
            q = softmax(z)
            message = spatial @ (q @ kernels[0].T) + bilateral @ (q @ kernels[1].T)
            z = unary + sign * (mu @ message)
        found.append(z.reshape(x.shape))
    return np.stack(found)


@pytest.mark.parametrize("layout", ["pytorch", "keras", "caffe", "short names"])
@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_parameters_of_crfrnn_are_loaded(rng, layout, form):
    sign = 1.0 if layout == "pytorch" else -1.0
    weights = [rng.uniform(0.5, 2, (C, C)) for _ in range(2)]
    if form == "diagonal":
        weights = [w * np.eye(C) for w in weights]
    mu = sign * (np.eye(C) + 0.1 * rng.normal(size=(C, C)))
    parameters = [p.astype(np.float32) for p in (*weights, mu)]
    names = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")
    given = {
        "pytorch": {f"crfrnn.{n}": torch.tensor(p) for n, p in zip(names, parameters, strict=True)},
        "keras": {f"crfrnn/{n}:0": p for n, p in zip(names, parameters, strict=True)},
        "caffe": parameters,
        "short names": {n.replace("_ker", ""): p for n, p in zip(names, parameters, strict=True)},
    }[layout]
    weights = "class" if form == "diagonal" else "matrix"
    crf = CRF.from_preset("crf-rnn", C, weights=weights)
    crf.load_crfrnn(given)
    logits, image = some_batch(rng)
    expected = crfrnn(parameters, logits, image, crf, sign, 5)
    np.testing.assert_allclose(crf(logits, image).detach().numpy(), expected, rtol=0, atol=1e-4)


def test_parameters_that_do_not_fit_are_refused(rng):
    eye = np.eye(C, dtype=np.float32)
    names = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")
    crf = CRF.from_preset("crf-rnn", C)
    full = dict(zip(names, (eye + 1, eye, eye), strict=True))
    for given, words in (
        (full, r"\[CRF.load_crfrnn\] spatial weights are not diagonal; .*weights='matrix'"),
        ({names[0]: eye}, r"parameters has 0 names that end in 'bilateral_ker_weights' or"),
        ([eye[:2], eye, eye], r"spatial has shape \(2, 3\); expected \(3, 3\)"),
        ([eye * np.nan, eye, eye], "spatial has values that are not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            crf.load_crfrnn(given)
    with pytest.raises(TypeError, match="expected a mapping of names to arrays, or a list of"):
        crf.load_crfrnn(7)
    with pytest.raises(ValueError, match="the layer lacks a part; expected both kernels and"):
        CRF(C, compatibility="potts").load_crfrnn([eye, eye, eye])


def test_presets_begin_with_published_values():
    crf = CRF.from_preset("crf-rnn", C, training_iterations=3)
    near, alike = crf.bilateral_log_sigmas.exp().tolist()
    assert (round(near), round(alike), crf.bilateral_weight[0].item()) == (160, 3, 5.0)
    assert (crf.normalization, crf.training_iterations) == ("after", 3)
    assert crf.eval_iterations == 10
    assert CRF.from_preset("mrbrains", C).spatial_weight is None
    with pytest.raises(ValueError, match=r"preset is 'crfrnn'; the nearest name is 'crf-rnn'"):
        CRF.from_preset("crfrnn", C)


@pytest.mark.parametrize("options", [{}, {"learn": ("sigmas",), "image_gradient": "smooth"}])
def test_the_compiled_layer_does_the_same(rng, options):
    torch.compiler.reset()
    crf = CRF(C, **options)
    compiled = torch.compile(crf, fullgraph=True, dynamic=True)
    for size in ((5, 6), (7, 4)):
        logits, image = some_batch(rng, size=size)
        image = image.float().requires_grad_(bool(options))
        inputs = [logits, *(p for p in crf.parameters() if p.requires_grad)]
        found, expected = compiled(logits, image), crf(logits, image)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_layer_is_exported(rng):
    logits, image = some_batch(rng)
    crf = CRF(C).eval()
    batch = torch.export.Dim("batch", min=1)
    dims = {"logits": {0: batch}, "image": {0: batch}}
    program = torch.export.export(crf, (logits.detach(), image), dynamic_shapes=dims).module()
    more = some_batch(rng, 5)
    torch.testing.assert_close(program(*more), crf(*more), rtol=1e-5, atol=1e-5)


def test_autocast_leaves_the_layer_in_float32(rng):
    logits, image = some_batch(rng)
    crf = CRF(C, weights="matrix")
    with torch.autocast("cpu", torch.bfloat16):
        found = crf(logits, image)
    assert torch.equal(found, crf(logits, image))


def test_memory_light_ways_give_the_gradients_that_they_should(rng):
    logits, image = some_batch(rng)
    gradients = {}
    for name, options in {
        "all": {},
        "recompute": {"recompute": True},
        "last": {"last": 5},
        "two": {"last": 2},
    }.items():
        crf = CRF(C, **options)
        crf(logits, image).square().sum().backward()
        gradients[name] = [p.grad for p in crf.parameters() if p.requires_grad]
    for name in ("recompute", "last"):
        for one, other in zip(gradients[name], gradients["all"], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(gradients["two"][0], gradients["all"][0])


def test_an_implicit_layer_is_one_of_many_steps(rng):
    logits, image = some_batch(rng)
    options = {"spatial": (3.0, 0.5), "bilateral": (8.0, 60.0, 0.5)}
    still = CRF(C, **options, training_iterations=300, implicit=True)
    steps = CRF(C, **options, training_iterations=60)
    gradients = []
    for crf in (still, steps):
        crf(logits, image).square().sum().backward()
        gradients.append([p.grad.numpy() for p in crf.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        assert_slopes(one, other, relative=1e-3)


def test_it_says_what_it_is():
    assert repr(CRF(21)) == (
        "CRF(21, spatial sigma 3, bilateral sigma 80 13, iterations 5 in training and 10 in "
        "evaluation, normalization 'symmetric')"
    )
