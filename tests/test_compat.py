# SPDX-License-Identifier: MIT
"""crfseg.compat.pydensecrf against pydensecrf2 1.1: programs give the same Q with either.

As in test_parity, agreement is on labels and on mean |dQ|.
"""

import numpy as np
import pytest

import crfseg
from compat_cases import EVERY, PROGRAMS, RECORDING, Problem, crf_of, divergences, problem
from crfseg.compat.pydensecrf import densecrf, eigen, utils
from photos import recorded_problem
from subprocesses import run_script

LABELS_EQUAL = 0.9985
MEAN_DQ = 1e-3
SIGNIFICANT = 1e-4  # of a divergence: float32 sums in another order, and Q's own difference


@pytest.fixture(scope="module")
def peer():
    reason = "pydensecrf2 is not installed; recorded outputs are compared"
    theirs = pytest.importorskip("pydensecrf.densecrf", reason=reason)
    return theirs, pytest.importorskip("pydensecrf.utils")


def assert_same(q, theirs):
    assert q.shape == theirs.shape
    equal = float((q.argmax(axis=0) == theirs.argmax(axis=0)).mean())
    dq = float(np.abs(q - theirs).mean())
    assert equal >= LABELS_EQUAL, f"labels equal on {equal:.4%}, mean |dQ| {dq:.2e}"
    assert dq < MEAN_DQ, f"labels equal on {equal:.4%}, mean |dQ| {dq:.2e}"


def random_problem(seed, n_labels):
    """An image of patches and probabilities that follow it now and then."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 70, 2)
    cells = rng.integers(0, 256, (9, 9, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    image = np.clip(cells + rng.normal(0, 12, cells.shape), 0, 255).astype(np.uint8)
    scores = rng.normal(size=(n_labels, height, width))
    scores += rng.normal(size=(n_labels, 9, 9)).repeat(8, 1).repeat(8, 2)[:, :height, :width]
    e = np.exp(scores)
    return Problem(image, (e / e.sum(axis=0)).astype(np.float32))


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_give_what_the_installed_peer_gives(name, peer):
    given = problem()
    assert_same(PROGRAMS[name](densecrf, utils, given), PROGRAMS[name](*peer, given))


@pytest.mark.parametrize("name", ["no_normalization", "normalize_symmetric", "two_labels"])
def test_a_larger_photograph(name, peer):
    given = Problem(*recorded_problem("coffee"))
    assert_same(PROGRAMS[name](densecrf, utils, given), PROGRAMS[name](*peer, given))


def random_compat(rng, n_labels, scale):
    """Potts of either sign, a vector, or a matrix."""
    matrix = rng.uniform(0, scale, (n_labels, n_labels)) * (1 - np.eye(n_labels))
    numbers = (float(rng.uniform(0, scale)), -float(rng.uniform(0, scale / 8)))
    arrays = (-rng.uniform(0, scale, n_labels).astype(np.float32), matrix.astype(np.float32))
    return (*numbers, *arrays)[rng.integers(4)]


def random_features(rng, given):
    """Some of y, x, red, green, blue and noise, at scales that happen to be."""
    height, width = given.image.shape[:2]
    rows = [
        np.indices((height, width)).reshape(2, -1) / rng.uniform(2, 30),
        given.image.reshape(-1, 3).T / rng.uniform(5, 40),
        rng.normal(size=(1, height * width)),
    ]
    chosen = rng.permutation(6)[: rng.integers(1, 7)]
    return np.ascontiguousarray(np.concatenate(rows)[chosen], np.float32)


def random_terms(rng, given):
    """Names and arguments of up to three calls that add kernels."""
    for _ in range(rng.integers(1, 4)):
        normalization, kernel = int(rng.integers(4)), int(rng.integers(3))
        compat = random_compat(rng, len(given.probs), 0.03 if normalization == 0 else 4.0)
        name, first = [
            ("addPairwiseGaussian", (tuple(rng.uniform(0.7, 12, 2)),)),
            (
                "addPairwiseBilateral",
                (float(rng.uniform(3, 90)), tuple(rng.uniform(3, 40, 3)), given.image),
            ),
            ("addPairwiseEnergy", (random_features(rng, given),)),
        ][rng.integers(3)]
        yield name, (*first, compat, kernel, normalization)


@pytest.mark.parametrize("seed", range(16))
def test_random_models(seed, peer):
    rng = np.random.default_rng(seed)
    given = random_problem(seed, n_labels=int(rng.integers(1, 12)))
    terms, iterations = list(random_terms(rng, given)), int(rng.integers(1, 12))
    answers, energies = [], []
    for modules in ((densecrf, utils), peer):
        crf = crf_of(*modules, given)
        for name, arguments in terms:
            getattr(crf, name)(*arguments)
        answers.append(np.array(crf.inference(iterations)))
        energies.append(crf.klDivergence(crf.startInference()[0]))
    assert_same(*answers)
    assert energies[0] == pytest.approx(energies[1], rel=SIGNIFICANT, abs=0.1)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 6, 8])
def test_the_gain_of_raw_sums_in_every_dimension(dim, peer):
    rng = np.random.default_rng(dim)
    features = rng.normal(scale=1.5, size=(dim, 900)).astype(np.float32)
    unary = rng.normal(size=(3, 900)).astype(np.float32)

    def answer(dcrf):
        crf = dcrf.DenseCRF(900, 3)
        crf.setUnaryEnergy(unary)
        crf.addPairwiseEnergy(features, compat=0.05, normalization=dcrf.NO_NORMALIZATION)
        return np.array(crf.inference(3))

    assert_same(answer(densecrf), answer(peer[0]))


def test_divergences_are_the_peers(peer):
    given = problem()
    ours, theirs = (np.array(divergences(*modules, given)) for modules in ((densecrf, utils), peer))
    np.testing.assert_allclose(ours, theirs, rtol=SIGNIFICANT)


def test_features_and_energies_of_utils_are_the_peers(peer):
    theirs, rng = peer[1], np.random.default_rng(0)
    volume = rng.integers(0, 256, (3, 4, 5, 2))
    probs = rng.dirichlet(np.ones(3), (4, 5)).transpose(2, 0, 1)
    probs[0, 0, 0] = 0
    labels = rng.integers(0, 4, (4, 5))
    calls = [
        ("create_pairwise_gaussian", ((2, 3, 5), (4, 5, 6))),
        ("create_pairwise_bilateral", ((2, 3, 5), (7, 9), volume, 3)),
        ("create_pairwise_bilateral", ((2, 3, 5), 0.5, np.moveaxis(volume, 3, 0), 0)),
        ("create_pairwise_bilateral", ((2, 3), 4, volume[..., 0, 0])),
        ("create_pairwise_bilateral", ((2, 3), (5,), volume, 3)),
        ("unary_from_softmax", (probs,)),
        ("unary_from_softmax", (probs, 0.8, None)),
        ("unary_from_softmax", (probs.astype(np.float32), None, 0.01)),
        ("unary_from_labels", (labels, 3, 0.7)),
        ("unary_from_labels", (labels, 4, 0.7, False)),
        ("compute_unary", (labels, 3)),
        ("softmax_to_unary", (probs, 0.9)),
    ]
    for name, arguments in calls:
        ours, expected = (getattr(module, name)(*arguments) for module in (utils, theirs))
        assert ours.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7, err_msg=name)


def test_every_public_name_of_the_peer_is_there(peer):
    eigen_of_peer = pytest.importorskip("pydensecrf.eigen")
    for ours, theirs in ((densecrf, peer[0]), (utils, peer[1]), (eigen, eigen_of_peer)):
        modules = {"np", "eigen", "Number", "warning", "OrderedDict"}
        public = {name for name in dir(theirs) if not name.startswith("_")} - modules
        assert public <= set(dir(ours)), sorted(public - set(dir(ours)))
    for kind in ("CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL", *map(str.upper, PROGRAMS)):
        if hasattr(peer[0], kind):
            assert int(getattr(densecrf, kind)) == int(getattr(peer[0], kind))


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_give_what_was_recorded(name):
    q = PROGRAMS[name](densecrf, utils, problem())
    with np.load(RECORDING) as stored:
        labels, sample = stored[f"{name} labels"], stored[f"{name} q"] / 65535
    assert float((q.argmax(axis=0) == labels).mean()) >= LABELS_EQUAL
    assert np.abs(q[:, ::EVERY] - sample).mean() < MEAN_DQ


def test_divergences_are_the_recorded_ones():
    with np.load(RECORDING) as stored:
        expected = stored["divergences"]
    found = divergences(densecrf, utils, problem())
    np.testing.assert_allclose(found, expected, rtol=SIGNIFICANT)


def test_the_readme_program_is_refine_under_another_name():
    """What ties the two interfaces together where no peer is."""
    given = problem()
    q = PROGRAMS["normalize_symmetric"](densecrf, utils, given).reshape(given.probs.shape)
    own = crfseg.refine(
        given.probs.clip(1e-5, 1), given.image, spatial=(3, 5), bilateral=(40, 13, 5)
    )
    np.testing.assert_allclose(q, own, atol=1e-4)


def test_install_puts_them_under_the_other_name():
    run_script("""
    import crfseg.compat
    crfseg.compat.install()
    crfseg.compat.install()
    import pydensecrf.densecrf as dcrf
    from pydensecrf import eigen
    from pydensecrf.utils import unary_from_labels, create_pairwise_bilateral
    from crfseg.compat.pydensecrf import densecrf
    assert dcrf is densecrf is __import__("pydensecrf").densecrf
    assert eigen.MatrixXf().shape == (0, 0)
    import importlib
    assert importlib.import_module("pydensecrf.utils").unary_from_labels is unary_from_labels
    """)


def test_install_refuses_where_another_one_has_been_imported():
    run_script("""
    import types
    import crfseg.compat
    sys.modules["pydensecrf"] = types.ModuleType("pydensecrf")
    try:
        crfseg.compat.install()
    except ImportError as error:
        assert "pydensecrf has been imported already, from somewhere else" in str(error), error
        assert "pydensecrf.densecrf" not in sys.modules
    else:
        raise AssertionError
    """)


def test_importing_crfseg_does_not_take_the_name():
    run_script("""
    import crfseg.compat.pydensecrf.densecrf
    assert not any(name.startswith("pydensecrf") for name in sys.modules)
    """)
