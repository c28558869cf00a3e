# SPDX-License-Identifier: MIT
"""Bad input gets a sentence that names the argument, input by input."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402 - needs torch

from crfseg._fault_device import CudaError  # noqa: E402 - needs torch
from crfseg.torch import CRF, DenseCRFLoss, GatedCRFLoss, infer, mean_field  # noqa: E402
from crfseg.torch import filter as filter_of  # noqa: E402

N, C, H, W = 2, 3, 4, 5


def rand(*shape, **options):
    return torch.rand(*shape, **options)


LOGITS, IMAGE = rand(N, C, H, W), 255 * rand(N, 3, H, W)
FEATURES, COUPLING = rand(N, H * W, 2), rand(C)


def field(logits=LOGITS, features=(FEATURES,), couplings=(COUPLING,), iterations=2, **options):
    return mean_field(logits, features, couplings, iterations, **options)


def damped(logits=LOGITS, features=FEATURES, couplings=(COUPLING,), **options):
    return infer(logits, [features], couplings, **({"solver": "damped"} | options))


def layer(logits=LOGITS, image=IMAGE, **options):
    return CRF(C, **options)(logits, image)


def grid(values=LOGITS, features=FEATURES, **options):
    return filter_of(values, features, **options)


def dense(probs=None, image=IMAGE, roi=None):
    return DenseCRFLoss()(LOGITS.softmax(1) if probs is None else probs, image, roi)


def gated(probs=None, image=IMAGE, **gates):
    return GatedCRFLoss()(LOGITS.softmax(1) if probs is None else probs, image, **gates)


META = {"device": "meta"}
NAN = LOGITS.clone()
NAN[1, 2, 3, 4] = torch.nan
CASES = {
    # what something is
    "logits a list": (
        field,
        {"logits": [1]},
        TypeError,
        r"\[mean_field\] logits is .*torch tensor",
    ),
    "logits integers": (
        field,
        {"logits": LOGITS.int()},
        TypeError,
        r"logits has dtype torch.int32",
    ),
    "logits sparse": (field, {"logits": LOGITS.to_sparse()}, TypeError, "logits has dtype .*dense"),
    "no batch": (
        field,
        {"logits": LOGITS[0, 0]},
        ValueError,
        r"logits has shape \(4, 5\); expected",
    ),
    "not finite": (
        field,
        {"logits": NAN},
        ValueError,
        r"\[mean_field\] logits\[1\] has nan at index \(2, 3",
    ),
    "empty": (field, {"logits": LOGITS[:, :0], "couplings": [rand(0)]}, ValueError, "is empty"),
    "devices": (
        field,
        {"features": [rand(N, H * W, 2, **META)]},
        ValueError,
        r"features\[0\] is on device meta but logits on cpu; expected them on one device",
    ),
    "coupling's device": (
        field,
        {"couplings": [rand(C, **META)]},
        ValueError,
        r"couplings\[0\] is on device meta but logits on cpu",
    ),
    "features not a list": (field, {"features": FEATURES}, TypeError, "features is an array of sh"),
    "features of other points": (
        field,
        {"features": [rand(N, 7, 2)]},
        ValueError,
        r"features\[0\] has shape \(2, 7, 2\); expected \(2, 20, d\) or \(1, 20, d\)",
    ),
    "too many features": (
        field,
        {"features": [rand(N, H * W, 17)]},
        ValueError,
        r"features\[0\] has 17 feature dimensions",
    ),
    "features not finite": (
        field,
        {"features": [FEATURES / 0]},
        ValueError,
        r"\[mean_field\] features\[0\]\[:, 0\] is inf",
    ),
    "features far apart": (
        field,
        {"features": [1e12 * FEATURES]},
        ValueError,
        r"\[mean_field\] features\[0\]\[:, .\] reaches",
    ),
    "coupling's shape": (
        field,
        {"couplings": [rand(C, C + 1)]},
        ValueError,
        r"couplings\[0\] has shape \(3, 4\); expected \(3,\) or \(3, 3\)",
    ),
    "couplings missing": (
        field,
        {"couplings": []},
        ValueError,
        "couplings has 0 entries; expected 1",
    ),
    "coupling not finite": (
        field,
        {"couplings": [COUPLING / 0]},
        ValueError,
        r"\[mean_field\] couplings\[0\] has inf",
    ),
    "strong coupling": (
        field,
        {"couplings": [1e9 + COUPLING]},
        ValueError,
        r"couplings\[0\] reaches 1e\+09; expected at most 1e\+08",
    ),
    "other solver's strong coupling": (
        damped,
        {"couplings": [1e9 + COUPLING]},
        ValueError,
        r"\[infer\] couplings\[0\] reaches 1e\+09; expected at most 1e\+08",
    ),
    "last at rest": (field, {"implicit": True, "last": 1}, ValueError, "last is 1 but implicit"),
    "no last step": (damped, {"last": 0}, ValueError, r"\[infer\] last is 0 but solver is Mean"),
    "sigmas missing": (field, {"sigmas": []}, ValueError, "sigmas has 0 entries; expected 1"),
    "sigma's shape": (field, {"sigmas": [rand(())]}, ValueError, r"sigmas\[0\] has shape \(\)"),
    "sigma of zero": (
        field,
        {"sigmas": [torch.zeros(1)]},
        ValueError,
        r"sigmas\[0\] has 0 at 0; expected positive finite numbers",
    ),
    "groups alone": (field, {"groups": [[0, 0]]}, ValueError, "groups is given but sigmas is None"),
    "groups too short": (
        field,
        {"sigmas": [rand(2)], "groups": [[0]]},
        ValueError,
        r"groups\[0\] has 1 entries; expected 2",
    ),
    "groups of nothing": (
        field,
        {"sigmas": [rand(2)], "groups": [[0, 2]]},
        ValueError,
        r"groups\[0\] is 2; expected an integer of at least 0 and at most 1",
    ),
    "iterations": (field, {"iterations": 2.0}, TypeError, r"iterations is 2 \(float\)"),
    "last": (field, {"last": 3}, ValueError, "last is 3; expected .* at most 2"),
    "implicit of nothing": (
        field,
        {"implicit": True, "iterations": 0},
        ValueError,
        "iterations is",
    ),
    "output": (field, {"output": "labels"}, ValueError, "output is 'labels'; expected 'logits' or"),
    "normalization": (field, {"normalization": "x"}, ValueError, "normalization is 'x'"),
    "form": (field, {"feature_gradient": None}, ValueError, "feature_gradient is None; expected"),
    "step": (
        field,
        {"sigma_step": 1.5},
        ValueError,
        "sigma_step is 1.5; expected a number of at least 0",
    ),
    # other solvers
    "solver": (damped, {"solver": "x"}, ValueError, r"^\[infer\] solver is 'x'; expected 'mean-f"),
    "solver's type": (damped, {"solver": 7}, TypeError, r"^\[infer\] solver is 7"),
    "implicit": (
        damped,
        {"implicit": True},
        ValueError,
        r"implicit is True but solver is MeanField\(damping=0.5\); expected solver='mean-field'",
    ),
    "damped, not finite": (
        damped,
        {"logits": NAN},
        ValueError,
        r"\[infer\] logits\[1\] has nan at index \(2, 3",
    ),
    "damped features": (
        damped,
        {"features": FEATURES / 0},
        ValueError,
        r"\[infer\] features\[0\]\[:, 0\] is inf",
    ),
    "damped couplings": (
        damped,
        {"couplings": [COUPLING / 0]},
        ValueError,
        r"\[infer\] couplings\[0\] has inf",
    ),
    "damped sigmas": (
        damped,
        {"sigmas": [torch.zeros(1)]},
        ValueError,
        r"\[infer\] sigmas\[0\] has 0 at 0; expected positive",
    ),
    "layer's solver": (
        layer,
        {"solver": "adam"},
        ValueError,
        r"\[CRF\] solver is 'adam'; expected",
    ),
    "implicit layer": (
        layer,
        {"solver": "frank-wolfe", "implicit": True},
        ValueError,
        r"\[CRF\] implicit is True but solver is FrankWolfe\(",
    ),
    # filter
    "values' shape": (
        grid,
        {"values": rand(3, 4)},
        ValueError,
        r"\[filter\] values has shape \(3, 4",
    ),
    "filter's devices": (
        grid,
        {"features": rand(N, H * W, 2, **META)},
        ValueError,
        "features is on",
    ),
    "filter's features": (
        grid,
        {"features": rand(N, 3, 2)},
        ValueError,
        r"features has shape \(2, 3",
    ),
    "no gradient": (
        grid,
        {"features": FEATURES.clone().requires_grad_(), "exclude_self": True},
        ValueError,
        "features requires a gradient, which a filter with exclude_self=True has not",
    ),
    # the layer
    "image without batch": (
        layer,
        {"image": IMAGE[0]},
        ValueError,
        r"\[CRF\] image has shape \(3, 4, 5\); expected \(2, 3, 4, 5\): image\[None\] is a batch",
    ),
    "logits without batch": (
        layer,
        {"logits": LOGITS[0]},
        ValueError,
        r"\[CRF\] logits has shape .*; expected \(N, 3, H, W\): logits\[None\] is a batch of one",
    ),
    "channels last": (
        layer,
        {"image": IMAGE.permute(0, 2, 3, 1)},
        ValueError,
        r"image has shape \(2, 4, 5, 3\); .*image.permute\(0, 3, 1, 2\)",
    ),
    "classes": (
        layer,
        {"logits": rand(N, 4, H, W)},
        ValueError,
        r"logits has shape \(2, 4, 4, 5\)",
    ),
    "image's batch": (layer, {"image": IMAGE[:1]}, ValueError, r"image has shape \(1, 3, 4, 5\)"),
    "coarse logits": (
        layer,
        {"image": IMAGE.repeat(1, 1, 8, 8)},
        ValueError,
        r"expected \(2, 3, 4, 5\), the size of the scores \(torch.nn.functional.interpolate",
    ),
    "image's size": (layer, {"image": rand(N, 3, 5, 5)}, ValueError, r"expected \(2, 3, 4, 5\)"),
    "image's dtype": (
        layer,
        {"image": IMAGE.int()},
        TypeError,
        "image has dtype torch.int32; .*uint8",
    ),
    "image's device": (
        layer,
        {"image": rand(N, 3, H, W, **META)},
        ValueError,
        "image is on device m",
    ),
    "the layer's device": (
        layer,
        {"logits": LOGITS.to("meta"), "image": IMAGE.to("meta")},
        ValueError,
        "the layer is on device cpu but logits on meta",
    ),
    "unit image": (
        layer,
        {"image": IMAGE / 255},
        ValueError,
        r"image has values from .*; expected",
    ),
    "whitened image": (layer, {"image": IMAGE / 50 - 2}, ValueError, "image has values from -[12]"),
    "nan image": (layer, {"image": IMAGE / 0}, ValueError, "image has values that are not finite"),
    "image's gradient": (
        layer,
        {"image": IMAGE.clone().requires_grad_()},
        ValueError,
        r"image requires a gradient but image_gradient is None; expected CRF\(image_gradient=",
    ),
    "learn": (layer, {"learn": ("sigma",)}, ValueError, "learn is 'sigma'; expected 'weights', "),
    "learn a word": (layer, {"learn": "sigmas"}, TypeError, "learn is 'sigmas'; expected a tuple"),
    "spatial": (
        layer,
        {"spatial": (3.0,)},
        ValueError,
        "spatial has 1 entries; expected .*sigma_xy",
    ),
    "sigma": (
        layer,
        {"bilateral": (0.0, 1, 1)},
        ValueError,
        "bilateral sigma_xy is 0; expected a po",
    ),
    "sigma_step": (lambda: CRF(C, sigma_step=2), {}, ValueError, r"\[CRF\] sigma_step is 2; expec"),
    "weights": (layer, {"weights": "full"}, ValueError, "weights is 'full'; expected 'scalar'"),
    # the losses
    "logits for probs": (
        dense,
        {"probs": 9 * LOGITS},
        ValueError,
        r"\[DenseCRFLoss\] probs has val",
    ),
    "probs' shape": (dense, {"probs": rand(3, 4, 5)}, ValueError, r"probs has shape \(3, 4, 5\)"),
    "roi's shape": (
        dense,
        {"roi": torch.ones(N, 5, 5)},
        ValueError,
        r"roi has shape \(2, 5, 5\); ex",
    ),
    "roi's device": (
        dense,
        {"roi": torch.ones(N, H, W, **META)},
        ValueError,
        "roi is on device me",
    ),
    "loss's image": (dense, {"image": IMAGE[0]}, ValueError, r"\[DenseCRFLoss\] image has shape"),
    "loss's unit image": (dense, {"image": IMAGE / 255}, ValueError, "image has values from"),
    "dense accuracy": (lambda: DenseCRFLoss(accuracy=""), {}, ValueError, r"\[D.*accuracy is ''"),
    "gated accuracy": (lambda: GatedCRFLoss(accuracy=""), {}, ValueError, r"\[G.*accuracy is ''"),
    "gated loss's empty image": (gated, {"image": IMAGE[:, :, :0]}, ValueError, "image is empty"),
    "gate's dtype": (
        gated,
        {"source": torch.ones(N, H, W, dtype=torch.int32)},
        TypeError,
        "source has dtype torch.int32; expected .*uint8, bool or int64",
    ),
    "gate's shape": (gated, {"source": torch.ones(N, 1, 2)}, ValueError, "source has shape"),
    "gated image": (
        gated,
        {"image": IMAGE.clone().requires_grad_()},
        ValueError,
        r"\[GatedCRFLoss\] image requires a gradient, which this loss has not",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named(name):
    call, arguments, error, words = CASES[name]
    with pytest.raises(error, match=words) as caught:
        call(**arguments)
    assert str(caught.value).startswith("[")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_without_kernels_is_named(monkeypatch):
    monkeypatch.setattr("crfseg._native.why_no_cuda", lambda: "nobody built it")
    with pytest.raises(CudaError, match=r"logits is on a CUDA device, .*: nobody built it; exp"):
        field(LOGITS.cuda(), [FEATURES.cuda()], [COUPLING.cuda()])


def test_fake_tensors_need_no_device():
    """Shapes of what will run elsewhere."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [torch.empty_like(t, device="cuda") for t in (LOGITS, FEATURES, COUPLING)]
        found = field(given[0], *([one] for one in given[1:]))
    assert (found.shape, found.device.type) == (LOGITS.shape, "cuda")
