# SPDX-License-Identifier: MIT
"""What programs written against pydensecrf rely on, and what crashed there, call by call."""

import pickle
import re

import numpy as np
import pytest

from compat_cases import crf_of, problem
from crfseg.compat.pydensecrf import densecrf as dcrf
from crfseg.compat.pydensecrf import eigen, utils

W, H, L = 7, 5, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
UNARY = RNG.random((L, H * W)).astype(np.float32)


def crf_2d(unary=UNARY, cls=dcrf.DenseCRF2D, image=IMAGE):
    crf = cls(W, H, L)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(sxy=2, compat=3)
    crf.addPairwiseBilateral(sxy=4, srgb=30, rgbim=image, compat=2)
    return crf


EXPECTED = np.array(crf_2d().inference(4))


def test_q_is_a_buffer_of_labels_by_points():
    q = crf_2d().inference(4)
    assert isinstance(q, eigen.MatrixXf)
    view = memoryview(q)
    assert (view.shape, view.format, view.readonly) == ((L, H * W), "f", False)
    for result in (np.array(q), np.argmax(q, axis=0), np.exp(q), np.reshape(q, (L, H, W)), q > 0.5):
        assert type(result) is np.ndarray
    np.testing.assert_allclose(np.sum(q, axis=0), 1, atol=1e-6)
    assert np.asarray(q).base is not None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(q)), q)


def test_steps_are_taken_in_place_and_lead_where_inference_does():
    crf = crf_2d()
    q, tmp1, tmp2 = crf.startInference()
    np.testing.assert_array_equal(np.array(q), np.array(crf.inference(0)))
    view = np.asarray(q)
    for _ in range(4):
        crf.stepInference(q, tmp1, tmp2)
    np.testing.assert_allclose(view, EXPECTED, atol=1e-5)
    assert np.array(tmp1).shape == np.array(tmp2).shape == (0, 0)
    strided = np.zeros((2 * L, H * W), np.float32)[::2]
    strided[...] = crf.inference(3)
    crf.stepInference(strided, tmp1, tmp2)
    np.testing.assert_allclose(strided, EXPECTED, atol=1e-5)


def test_without_a_unary_inference_starts_even_and_steps_from_zeros():
    crf = dcrf.DenseCRF2D(W, H, L)
    crf.addPairwiseGaussian(sxy=2, compat=np.array([-1, -2, -3], np.float32))
    uneven = np.array(crf.inference(2))
    assert uneven[2].min() > uneven[0].max()
    np.testing.assert_allclose(np.array(crf.inference(0)), 1 / L, rtol=1e-6)
    q, tmp1, tmp2 = crf.startInference()
    assert np.array(q).max() == 0
    crf.stepInference(q, tmp1, tmp2)
    np.testing.assert_allclose(np.array(q), 1 / L, rtol=1e-6)
    crf.setUnaryEnergy(UNARY)
    crf.setUnary(dcrf.Unary())
    np.testing.assert_array_equal(np.array(crf.inference(2)), uneven)


def test_a_unary_is_copied_and_its_object_may_serve_twice():
    unary = UNARY.copy()
    crf, other = crf_2d(unary), dcrf.DenseCRF2D(W, H, L)
    given = dcrf.ConstUnary(unary)
    unary[:] = 0
    np.testing.assert_array_equal(np.array(crf.inference(4)), EXPECTED)
    other.setUnary(given)
    crf.setUnary(given)
    np.testing.assert_array_equal(np.array(crf.inference(4)), EXPECTED)
    np.testing.assert_array_equal(np.array(other.inference(1)), np.array(crf.inference(0)))


def test_logistic_energies_either_way():
    weights, features = RNG.random((L, 4)), RNG.random((4, H * W))
    crf = crf_2d(weights @ features)
    expected = np.array(crf.inference(2))
    crf.setUnaryEnergy(weights, features)
    np.testing.assert_allclose(np.array(crf.inference(2)), expected, atol=1e-5)
    crf.setUnary(dcrf.LogisticUnary(weights, features))
    np.testing.assert_allclose(np.array(crf.inference(2)), expected, atol=1e-5)


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "unary",
    [
        frozen(UNARY),
        UNARY.astype(np.float64),
        np.asfortranarray(UNARY),
        np.repeat(UNARY, 2, axis=1)[:, ::2],
        UNARY[::-1].copy()[::-1],
        UNARY.astype(">f4"),
        UNARY.tolist(),
    ],
    ids=["read-only", "float64", "fortran", "strided", "reversed", "big-endian", "list"],
)
def test_energies_of_any_kind(unary):
    np.testing.assert_allclose(np.array(crf_2d(unary).inference(4)), EXPECTED, atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        frozen(IMAGE),
        IMAGE.astype(np.float64),
        IMAGE.astype(np.int32),
        np.asfortranarray(IMAGE),
        IMAGE[..., ::-1].copy()[..., ::-1],
    ],
    ids=["read-only", "float64", "int32", "fortran", "reversed"],
)
def test_images_of_any_kind(image):
    np.testing.assert_allclose(np.array(crf_2d(image=image).inference(4)), EXPECTED, atol=1e-5)


def test_features_of_any_kind():
    features = utils.create_pairwise_bilateral((4, 4), 30, IMAGE, chdim=2)
    answers = []
    for given in (features, features.astype(np.float64), np.asfortranarray(frozen(features))):
        crf = dcrf.DenseCRF(H * W, L)
        crf.setUnaryEnergy(UNARY)
        crf.addPairwiseEnergy(given, compat=2)
        answers.append(np.array(crf.inference(4)))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-6)
    np.testing.assert_array_equal(answers[2], answers[0])


class Named(dcrf.DenseCRF2D):
    """With arguments and a method of its own."""

    def __init__(self, w, h, nlabels, name="crf"):
        super().__init__(w, h, nlabels, name)
        self.name = name

    def refined(self):
        return np.array(self.inference(4))


def test_subclasses_work():
    crf = crf_2d(cls=Named)
    np.testing.assert_array_equal(crf.refined(), EXPECTED)
    assert crf.name == "crf"
    plain = type("Mine", (dcrf.DenseCRF,), {})(H * W, L)
    assert np.array(plain.inference(1)).shape == (L, H * W)


def test_one_label_takes_everything():
    crf = dcrf.DenseCRF2D(W, H, 1)
    crf.setUnaryEnergy(np.ones((1, H * W)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    np.testing.assert_array_equal(np.array(crf.inference(3)), 1)


def test_map_gives_the_labels_of_inference():
    given = problem()
    crf = crf_of(dcrf, utils, given)
    crf.addPairwiseBilateral(40, 13, given.image, 5)
    labels = crf.map(5)
    np.testing.assert_array_equal(labels, np.argmax(crf.inference(5), axis=0))


def test_the_kernel_type_says_nothing_to_inference():
    for kernel in (dcrf.CONST_KERNEL, dcrf.FULL_KERNEL, 1, np.int64(0)):
        crf = dcrf.DenseCRF2D(W, H, L)
        crf.setUnaryEnergy(UNARY)
        crf.addPairwiseGaussian(sxy=2, compat=3, kernel=kernel, normalization=3)
        crf.addPairwiseBilateral(4, 30, IMAGE, 2, kernel)
        np.testing.assert_array_equal(np.array(crf.inference(4)), EXPECTED)
    assert dcrf.KernelType.FULL_KERNEL == dcrf.FULL_KERNEL == 2
    assert dcrf.NormalizationType(0) is dcrf.NO_NORMALIZATION


def test_infinite_sigmas_leave_features_out():
    crf, other = dcrf.DenseCRF2D(W, H, L), dcrf.DenseCRF(H * W, L)
    crf.addPairwiseBilateral(np.inf, 20, IMAGE, 3)
    features = np.vstack([np.zeros((2, H * W)), IMAGE.reshape(-1, 3).T / 20])
    other.addPairwiseEnergy(features, 3)
    for model in (crf, other):
        model.setUnaryEnergy(UNARY)
    np.testing.assert_allclose(crf.inference(3), other.inference(3), atol=1e-5)


def test_an_infinite_energy_forbids_a_label():
    unary = UNARY.copy()
    unary[1, 4] = np.inf
    crf = crf_2d(unary)
    assert np.array(crf.inference(3))[1, 4] == 0
    assert np.isfinite(crf.klDivergence(crf.inference(3)))


def test_nan_is_refused_by_every_inference():
    unary = UNARY.copy()
    unary[1, 4] = np.nan
    crf = crf_2d(unary)
    for call in (lambda: crf.inference(3), lambda: crf.map(2), crf.startInference):
        for _ in range(2):
            with pytest.raises(ValueError, match=r"setUnaryEnergy\] u has nan at label 1, point 4"):
                call()
    crf.setUnaryEnergy(UNARY)
    np.testing.assert_array_equal(np.array(crf.inference(4)), EXPECTED)


def test_eigen_copies_float32_and_nothing_else():
    vector, matrix = RNG.random(4).astype(np.float32), UNARY[:, :4]
    for make, given in ((eigen.vectorXf, vector), (eigen.matrixXf, matrix)):
        made = make(given)
        np.testing.assert_array_equal(np.array(made), given)
        assert not np.shares_memory(made, given)
    assert eigen.VectorXf().shape == (0,)
    for given in (matrix.astype(np.float64), matrix[None], matrix[0]):
        with pytest.raises(ValueError, match=r"\[eigen.matrixXf\] arr has"):
            eigen.matrixXf(given)
    for given in (None, matrix.tolist()):
        with pytest.raises(TypeError, match="which is not an array"):
            eigen.matrixXf(given)


def add(**changed):
    arguments = {"sxy": 3, "srgb": 13, "rgbim": IMAGE, "compat": 3, **changed}
    return lambda: dcrf.DenseCRF2D(W, H, L).addPairwiseBilateral(**arguments)


def add_features(features, compat=3):
    return lambda: dcrf.DenseCRF(H * W, L).addPairwiseEnergy(features, compat)


def float32(*shape):
    return np.ones(shape, np.float32)


REFUSED = {
    "sizes": [
        (lambda: dcrf.DenseCRF2D(0, 5, 2), ValueError, "w is 0"),
        (lambda: dcrf.DenseCRF2D(5, -3, 2), ValueError, "h is -3"),
        (lambda: dcrf.DenseCRF2D(5.0, 3, 2), TypeError, "w is 5"),
        (lambda: dcrf.DenseCRF(5, 0), ValueError, "nlabels is 0"),
        (lambda: dcrf.DenseCRF(0, 5), ValueError, "nvar is 0"),
        (lambda: dcrf.DenseCRF2D(500000, 500000, 100), MemoryError, "needs about"),
    ],
    "unaries": [
        (lambda: crf_2d(UNARY[:2]), ValueError, "u has shape (2, 35); expected (3, 35)"),
        (lambda: crf_2d(UNARY.T), ValueError, "u has shape (35, 3); expected (3, 35)"),
        (lambda: crf_2d(UNARY.reshape(L, H, W)), ValueError, "labels first: u.reshape(3, -1)"),
        (lambda: crf_2d(None), TypeError, "u is None"),
        (lambda: crf_2d(UNARY > 0), TypeError, "u has dtype bool"),
        (lambda: crf_2d().setUnary(None), TypeError, "u is None (NoneType)"),
        (lambda: crf_2d().setUnary(UNARY), TypeError, "expected a ConstUnary"),
        (lambda: crf_2d().setUnary(dcrf.ConstUnary(UNARY.T)), ValueError, "(35, 3)"),
        (lambda: dcrf.LogisticUnary(float32(3, 4), float32(5, 9)), ValueError, "f has shape"),
        (lambda: crf_2d().setUnaryEnergy(float32(3, 2), float32(2, 9)), ValueError, "(3, 9)"),
        (lambda: crf_2d(UNARY * -np.inf).inference(1), ValueError, "u has -inf"),
        (lambda: crf_2d(UNARY + np.inf).inference(1), ValueError, "inf for every label"),
    ],
    "sigmas": [
        (add(sxy=0), ValueError, "sxy is 0; expected a positive"),
        (add(sxy=-3), ValueError, "sxy is -3"),
        (add(sxy=np.nan), ValueError, "sxy is nan"),
        (add(sxy=1e-9), ValueError, "sxy = 1e-09 is too small"),
        (add(sxy=1e-60), ValueError, "sxy = 1e-60 is too small"),
        (add(srgb=1e-8), ValueError, "srgb = 1e-08 is too small"),
        (add(srgb=0), ValueError, "srgb is 0"),
        (add(srgb=(3, 4)), ValueError, "srgb has 2 entries; expected one number, or 3"),
        (add(sxy=(3, 4, 5)), ValueError, "sxy has 3 entries"),
        (add(sxy="3"), TypeError, "sxy is '3'"),
    ],
    "images": [
        (add(rgbim=None), TypeError, "rgbim is None"),
        (add(rgbim=IMAGE[..., 0]), ValueError, "rgbim has shape (5, 7)"),
        (add(rgbim=IMAGE.transpose(1, 0, 2)), ValueError, "takes the width first"),
        (add(rgbim=np.dstack([IMAGE, IMAGE])), ValueError, "create_pairwise_bilateral"),
        (add(rgbim=IMAGE / 255), ValueError, "neither normalised nor within 0..1"),
        (add(rgbim=IMAGE - 120.0), ValueError, "expected levels of 0..255"),
        (add(rgbim=IMAGE * np.nan), ValueError, "rgbim has values from nan"),
        (add(rgbim=IMAGE > 9), TypeError, "rgbim has dtype bool"),
    ],
    "compats": [
        (add(compat=float32(2)), ValueError, "compat has shape (2,); expected a number, (3,)"),
        (add(compat=float32(9)), ValueError, "compat has shape (9,)"),
        (add(compat=float32(2, 3)), ValueError, "compat has shape (2, 3)"),
        (add(compat=float32(0)), ValueError, "compat has shape (0,)"),
        (add(compat=float32(3, 3, 3)), ValueError, "compat has shape (3, 3, 3)"),
        (add(compat=np.ones(3)), ValueError, "compat has dtype float64; expected float32"),
        (add(compat=float32(3) * np.nan), ValueError, "compat has nan"),
        (add(compat=[1, 2, 3]), TypeError, "compat is [1, 2, 3]"),
        (add(compat=None), TypeError, "compat is None"),
        (add(compat=np.inf), ValueError, "compat is inf"),
        (add(compat=1e12), ValueError, "expected at most 1e+08"),
    ],
    "kinds": [
        (add(kernel=99), ValueError, "kernel is 99"),
        (add(normalization=99), ValueError, "normalization is 99"),
        (add(normalization=-1), ValueError, "normalization is -1"),
        (add(normalization="symmetric"), TypeError, "normalization is 'symmetric'"),
    ],
    "features": [
        (add_features(float32(35, 2)), ValueError, "expected (D, 35)"),
        (add_features(float32(0, 35)), ValueError, "features is empty"),
        (add_features(float32(17, 35)), ValueError, "17 feature dimensions"),
        (add_features(float32(35)), ValueError, "features has shape (35,)"),
        (add_features(float32(2, 35) * np.nan), ValueError, "features[0] is nan at point 0"),
        (add_features(float32(2, 35) * np.inf), ValueError, "features[0] is inf at point 0"),
        (
            add_features(UNARY * np.float32(1e12)),
            ValueError,
            "further than exact lattice keys hold",
        ),
        (add_features(None), TypeError, "features is None"),
    ],
    "steps": [
        (lambda: crf_2d().inference(2.5), TypeError, "niter is 2.5"),
        (lambda: crf_2d().inference(None), TypeError, "niter is None"),
        (lambda: crf_2d().inference(2**40), ValueError, "at most 2147483647"),
        (lambda: crf_2d().stepInference(None, None, None), TypeError, "Q is None"),
        (lambda: crf_2d().stepInference(float32(2, 35)), ValueError, "Q has shape (2, 35)"),
        (lambda: crf_2d().stepInference(frozen(UNARY)), TypeError, "to be written to"),
        (lambda: crf_2d().klDivergence(eigen.MatrixXf()), ValueError, "Q has shape (0, 0)"),
        (lambda: crf_2d().klDivergence(None), TypeError, "Q is None"),
    ],
    "utils": [
        (lambda: utils.unary_from_labels([0, 255], 2, 0.7), ValueError, "reach from 0 to 255"),
        (lambda: utils.unary_from_labels([-1, 0], 2, 0.7), ValueError, "reach from -1 to 0"),
        (lambda: utils.unary_from_labels([0, 2], 2, 0.7, False), ValueError, "expected 0 to 1"),
        (lambda: utils.unary_from_labels([0.5], 2, 0.7), TypeError, "labels has dtype float64"),
        (lambda: utils.unary_from_labels([0, 1], 2, 1.0), ValueError, "gt_prob is 1"),
        (lambda: utils.unary_from_softmax(UNARY, 0), ValueError, "scale is 0"),
        (lambda: utils.unary_from_softmax(0.5), ValueError, "sm has shape ()"),
        (lambda: utils.unary_from_softmax(-UNARY), ValueError, "expected probabilities, not their"),
        (lambda: utils.create_pairwise_gaussian((3,), (4, 5)), ValueError, "sdims has 1 entries"),
        (
            lambda: utils.create_pairwise_bilateral((3, 3), 3, IMAGE[:, 0, 0]),
            ValueError,
            "sdims has 2 entries; expected one number, or 1",
        ),
        (
            lambda: utils.create_pairwise_bilateral((3, 3), (3,) * 4, IMAGE, 2),
            ValueError,
            "schan has 4 entries",
        ),
    ],
}


@pytest.mark.parametrize("topic", REFUSED)
def test_what_crashed_or_went_unnoticed_is_an_exception(topic):
    for call, kind, sentence in REFUSED[topic]:
        with pytest.raises(kind, match=re.escape(sentence)) as caught:
            call()
        assert str(caught.value).startswith("[")


def test_axes_without_a_sigma_keep_their_unit_and_the_log_is_told(caplog):
    features = utils.create_pairwise_bilateral((2, 4), (3,), IMAGE[None], chdim=-1)
    y, x, channel, value = features[1:].reshape(4, H, W, 3)
    np.testing.assert_allclose(y[1:3, 0, 0], [0.25, 0.5])
    np.testing.assert_array_equal(x[0, 1:3, 0], [1, 2])
    np.testing.assert_array_equal(channel[0, 0], [0, 1, 2])
    np.testing.assert_allclose(value, IMAGE / np.float32(3), rtol=1e-6)
    assert "sdims has 2 entries for 4" in caplog.text


def test_labels_of_bytes_do_not_wrap_around():
    labels = np.array([0, 1, 2, 0], np.uint8)
    energies = utils.unary_from_labels(labels, 2, 0.9)
    expected = -np.log([[0.5, 0.9, 0.1, 0.5], [0.5, 0.1, 0.9, 0.5]])
    np.testing.assert_allclose(energies, expected, rtol=1e-6)
    assert utils.unary_from_labels(labels % 2, 1, 0.5).shape == (1, 4)


def test_zeros_stay_possible_unless_told_otherwise():
    probs = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(utils.unary_from_softmax(probs)[0, 0], -np.log(1e-5), rtol=1e-6)
    assert utils.unary_from_softmax(probs, clip=None)[0, 0] == np.inf


@pytest.mark.parametrize("name", ["compute_unary", "softmax_to_unary"])
def test_old_names_warn_in_the_log(name, caplog):
    given = np.array([[0, 1]]) if name == "compute_unary" else np.full((2, 3), 0.5)
    arguments = (given, 2) if name == "compute_unary" else (given,)
    getattr(utils, name)(*arguments)
    assert f"{name} is deprecated" in caplog.text
