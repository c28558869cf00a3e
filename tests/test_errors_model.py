# SPDX-License-Identifier: MIT
"""Bad input of the parts below refine(): terms, DenseCRF, Lattice, unaries. Each is named."""

import numpy as np
import pytest

from bad_input import (
    GIANT,
    IMAGE,
    LABELS,
    LOGITS,
    POINTS,
    PROBS,
    UNARY,
    C,
    assert_named,
    case,
    giant,
    put,
)
from crfseg import (
    Bilateral,
    DenseCRF,
    Features,
    Gaussian,
    Lattice,
    Potts,
    refine,
    unary_from_labels,
    unary_from_logits,
    unary_from_probs,
)
from crfseg import _memory as memory

PARTS = [
    case("sigma", lambda: Gaussian(0), ValueError, "[Gaussian] sigma_xy is 0"),
    case("weight", lambda: Gaussian(3, -1), ValueError, "[Gaussian] weight is -1"),
    case("term normalization", lambda: Gaussian(normalization="sum"), ValueError,
         "[Gaussian] normalization is 'sum'"),
    case("sigma_rgb", lambda: Bilateral(IMAGE, 80, np.nan), ValueError,
         "[Bilateral] sigma_rgb is nan"),
    case("range without image", lambda: Bilateral(image_range=(0, 1)), ValueError,
         "[Bilateral] image_range is (0, 1) but image is None"),
    case("Potts weight", lambda: Potts("3"), TypeError, "[Potts] weight is '3' (str)"),
    case("features 1-D", lambda: Features(POINTS[:, 0]), ValueError,
         "[Features] features has shape (24,); expected (N, d) or (*spatial, d)"),
    case("features sigmas", lambda: Features(POINTS, 0), ValueError, "[Features] sigmas is 0"),
    case("features sigma count", lambda: DenseCRF(UNARY, [Features(POINTS, (1, 2, 3))]),
         ValueError, "[DenseCRF] Features sigmas has 3 entries", "or 2, one per feature"),
    case("features NaN", lambda: DenseCRF(UNARY, [Features(put(POINTS, (5, 1), np.nan))]),
         ValueError, "[DenseCRF] feature 1 is nan at point 5; expected finite values"),
    case("bilateral without image", lambda: DenseCRF(UNARY, [Bilateral()]), ValueError,
         "[DenseCRF] image is None"),
    case("unary ndim", lambda: DenseCRF(UNARY[0, 0], []), ValueError,
         "[DenseCRF] unary has shape (6,); expected (C, *spatial)"),
    case("unary None", lambda: DenseCRF(None, []), TypeError, "[DenseCRF] unary is None"),
    case("unary int", lambda: DenseCRF(UNARY.astype(int), []), TypeError,
         "[DenseCRF] unary has dtype int64; expected float energies"),
    case("unary without labels", lambda: DenseCRF(UNARY[:0], []), ValueError,
         "[DenseCRF] unary has 0 labels"),
    case("unary empty", lambda: DenseCRF(UNARY[:, :0], []), ValueError,
         "[DenseCRF] unary is empty (shape (3, 0, 6))"),
    case("labels beyond all", lambda: DenseCRF(giant((2**20 + 1, 1)), []), ValueError,
         "[DenseCRF] unary has 1048577 labels (shape (1048577, 1)); expected at most 1048576"),
    case("unary NaN", lambda: DenseCRF(put(UNARY, (1, 2, 3), np.nan), []), ValueError,
         "[DenseCRF] unary has nan at label 1, row 2, column 3"),
    case("unary -inf", lambda: DenseCRF(put(UNARY, (1, 2, 3), -np.inf), []), ValueError,
         "[DenseCRF] unary has -inf at label 1, row 2, column 3"),
    case("unary all inf", lambda: DenseCRF(put(UNARY, (slice(None), 2, 3), np.inf), []),
         ValueError, "[DenseCRF] unary is inf for every label at row 2, column 3"),
    case("exclude_self", lambda: DenseCRF(UNARY, [], exclude_self=1), TypeError,
         "[DenseCRF] exclude_self is 1 (int); expected True or False"),
    case("pairwise None", lambda: DenseCRF(UNARY, None), TypeError, "[DenseCRF] pairwise is None"),
    case("solver", lambda: DenseCRF(UNARY, []).infer(solver="newton"), ValueError,
         "[DenseCRF.infer] solver is 'newton'; expected 'mean-field', 'damped',"),
    case("solver of a step", lambda: DenseCRF(UNARY, []).step(PROBS, solver=0.5), TypeError,
         "[DenseCRF.step] solver is 0.5 (float); expected MeanField, FrankWolfe, 'mean-field',"),
    case("expected energy shape",
         lambda: DenseCRF(UNARY, []).expected_energy(PROBS[:2]), ValueError,
         "[DenseCRF.expected_energy] q has shape (2, 4, 6); expected (3, 4, 6)"),
    case("start shape", lambda: DenseCRF(UNARY, []).infer(start=PROBS[:2]), ValueError,
         "[DenseCRF.infer] start has shape (2, 4, 6); expected (3, 4, 6)"),
    case("start sums", lambda: DenseCRF(UNARY, []).infer(start=PROBS * 2), ValueError,
         "[DenseCRF.infer] start sums to 2 over the labels"),
    case("trace", lambda: DenseCRF(UNARY, []).infer(trace="yes"), TypeError,
         "[DenseCRF.infer] trace is 'yes' (str)"),
    case("step None", lambda: DenseCRF(UNARY, []).step(None), TypeError,
         "[DenseCRF.step] q is None"),
    case("step shape", lambda: DenseCRF(UNARY, []).step(PROBS.reshape(C, -1)), ValueError,
         "[DenseCRF.step] q has shape (3, 24); expected (3, 4, 6)"),
    case("free energy NaN",
         lambda: DenseCRF(UNARY, []).free_energy(put(PROBS, (0, 0, 0), np.nan)), ValueError,
         "[DenseCRF.free_energy] q has nan at label 0, row 0, column 0"),
    case("energy shape", lambda: DenseCRF(UNARY, []).energy(LABELS.ravel()), ValueError,
         "[DenseCRF.energy] labels has shape (24,); expected (4, 6)"),
    case("energy range", lambda: DenseCRF(UNARY, []).energy(LABELS + 1), ValueError,
         "[DenseCRF.energy] labels has label 3", "expected 0 to 2"),
    case("energy dtype", lambda: DenseCRF(UNARY, []).energy(PROBS[0]), TypeError,
         "[DenseCRF.energy] labels has dtype float32; expected integer labels"),
    case("lattice 1-D", lambda: Lattice(POINTS[:, 0]), ValueError,
         "[Lattice] features has shape (24,); expected (N, d)"),
    case("lattice empty", lambda: Lattice(POINTS[:0]), ValueError,
         "[Lattice] features is empty (shape (0, 2))"),
    case("lattice NaN", lambda: Lattice(put(POINTS, (3, 0), np.nan)), ValueError,
         "[Lattice] features[:, 0] is nan at point 3"),
    case("lattice 17-D", lambda: Lattice(np.ones((5, 17))), ValueError,
         "[Lattice] features has 17 feature dimensions; expected at most 16"),
    case("lattice turned", lambda: Lattice(POINTS.T), ValueError,
         "[Lattice] features has 24 feature dimensions; expected at most 16: features.T"),
    case("lattice range", lambda: Lattice(np.array([[0.0], [1e30]])), ValueError,
         "[Lattice] features[:, 0] reaches 1e+30 sigmas", "exact lattice keys"),
    case("fill", lambda: Lattice(POINTS, fill=-1), ValueError, "[Lattice] fill is -1"),
    case("passes", lambda: Lattice(POINTS, passes=0), ValueError, "[Lattice] passes is 0"),
    case("lattice normalization", lambda: Lattice(POINTS, normalization="l2"), ValueError,
         "[Lattice] normalization is 'l2'"),
    case("values shape", lambda: Lattice(POINTS).filter(np.ones(5)), ValueError,
         "[Lattice.filter] values has shape (5,); expected (24,) or (24, C)"),
    case("values NaN", lambda: Lattice(POINTS).filter_transpose(put(POINTS, (1, 1), np.nan)),
         ValueError, "[Lattice.filter_transpose] values has nan at index (1, 1)"),
    case("values empty", lambda: Lattice(POINTS).filter(np.ones((24, 0))), ValueError,
         "[Lattice.filter] values is empty"),
]  # fmt: skip

NO_USE = [
    case("compatibility without terms", lambda: DenseCRF(UNARY, [], compatibility=np.ones(4)),
         ValueError, "[DenseCRF] compatibility has shape (4,); expected Potts(weight)"),
    case("compatibility of refine without terms",
         lambda: refine(PROBS, IMAGE, pairwise=[], compatibility="potts"), ValueError,
         "[refine] compatibility is 'potts'; expected Potts(weight)"),
    case("ragged compatibility", lambda: DenseCRF(UNARY, [], compatibility=[[1, 2], [3]]),
         ValueError, "[DenseCRF] compatibility is [[1, 2], [3]], whose rows differ in length; "
         "expected Potts(weight)"),
]  # fmt: skip

NUMBERS = [
    case("integer beyond floats", lambda: Gaussian(10**400), ValueError,
         "[Gaussian] sigma_xy is an integer of 1329 bits; expected a positive finite number"),
    case("integer beyond floats as a count", lambda: DenseCRF(UNARY, []).infer(10**5000),
         ValueError, "[DenseCRF.infer] iterations is an integer of 16610 bits"),
    case("set of sigmas", lambda: Gaussian({3.0, 4.0}), TypeError,
         "[Gaussian] sigma_xy is {", "(set); expected a positive finite number"),
    case("0-d sigma", lambda: Gaussian(np.array(-1.0)), ValueError, "[Gaussian] sigma_xy is -1"),
]  # fmt: skip

UNARIES = [
    case("probs NaN", lambda: unary_from_probs(put(PROBS, (1, 2, 3), np.nan)), ValueError,
         "[unary_from_probs] probs has nan at label 1, row 2, column 3"),
    case("probs label axis last", lambda: unary_from_probs(PROBS.transpose(1, 2, 0)), ValueError,
         "[unary_from_probs] probs sums to", "expected the label axis first"),
    case("log-probs", lambda: unary_from_probs(np.log(PROBS)), ValueError,
         "[unary_from_probs] probs holds log-probabilities", "unary_from_logits"),
    case("int probs", lambda: unary_from_probs(LABELS), TypeError,
         "[unary_from_probs] probs has dtype int64; expected floats"),
    case("clip 0", lambda: unary_from_probs(PROBS, clip=0), ValueError,
         "[unary_from_probs] clip is 0; expected a number above 0 and below 1"),
    case("logits inf", lambda: unary_from_logits(put(LOGITS, (0, 0, 0), np.inf)), ValueError,
         "[unary_from_logits] logits has inf at index (0, 0, 0)"),
    case("logits 1-D", lambda: unary_from_logits(LOGITS[:, 0, 0]), ValueError,
         "[unary_from_logits] logits has shape (3,)"),
    case("logits without labels", lambda: unary_from_logits(LOGITS[:0]), ValueError,
         "[unary_from_logits] logits has 0 labels"),
    case("labels -1", lambda: unary_from_labels(put(LABELS, (0, 1), -1), 3), ValueError,
         "[unary_from_labels] labels has label -1 at row 0, column 1"),
    case("labels 255", lambda: unary_from_labels(put(LABELS, (0, 1), 255), 3), ValueError,
         "[unary_from_labels] labels has label 255", "ignore_index=255"),
    case("float labels", lambda: unary_from_labels(LABELS / 1, 3), TypeError,
         "[unary_from_labels] labels has dtype float64; expected integer labels"),
    case("empty labels", lambda: unary_from_labels(LABELS[:0], 3), ValueError,
         "[unary_from_labels] labels is empty"),
    case("n_labels 0", lambda: unary_from_labels(LABELS, 0), ValueError,
         "[unary_from_labels] n_labels is 0; expected an integer of at least 1"),
    case("confidence 1", lambda: unary_from_labels(LABELS, 3, 1.0), ValueError,
         "[unary_from_labels] confidence is 1"),
    case("ignore_index", lambda: unary_from_labels(LABELS, 3, 0.7, "255"), TypeError,
         "[unary_from_labels] ignore_index is '255' (str); expected an integer"),
]  # fmt: skip

MEMORY = [
    case("unary of 10^7 x 10^7", lambda: DenseCRF(giant((21, GIANT, GIANT)), [Gaussian()]),
         MemoryError, "[DenseCRF] a unary of shape (21, 10000000, 10000000)"),
    case("features of 10^12 points", lambda: Lattice(giant((10**12, 5))), MemoryError,
         "[Lattice] a lattice over features of shape (1000000000000, 5)"),
    case("probs of 10^7 x 10^7", lambda: unary_from_probs(giant((2, GIANT, GIANT))), MemoryError,
         "[unary_from_probs] probs of shape"),
    case("logits of 10^7 x 10^7", lambda: unary_from_logits(giant((2, GIANT, GIANT))),
         MemoryError, "[unary_from_logits] logits of shape"),
    case("labels of 10^14 points", lambda: unary_from_labels(giant((10**14,), 0, int), 2),
         MemoryError, "[unary_from_labels] labels of shape"),
]  # fmt: skip


@pytest.mark.parametrize("limit", ["physical", "free", "container", "old container"])
def test_the_least_of_all_limits_counts(limit, monkeypatch, tmp_path):
    """A job of 1 GiB is refused by whichever source says that there is less."""
    kilobytes = 2**19 if limit == "free" else 2**30
    meminfo = f"MemAvailable: {kilobytes} kB\nSwapFree: 0 kB\nSwapTotal: 0 kB\nHugePages: 3\n"
    (tmp_path / "meminfo").write_text(meminfo, encoding="ascii")
    (tmp_path / "new").write_text(str(2**29) if limit == "container" else "max", encoding="ascii")
    if limit == "old container":
        (tmp_path / "old").write_text(str(2**29), encoding="ascii")
    pages = {"SC_PHYS_PAGES": 2**17 if limit == "physical" else 2**28, "SC_PAGE_SIZE": 2**12}
    monkeypatch.setattr(memory.os, "sysconf", pages.get)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "new", tmp_path / "old"))
    memory.require("refine", "x", 2**29)
    with pytest.raises(MemoryError, match=r"\[refine\] x needs about 1.0 GiB; .* 0.5 GiB"):
        memory.require("refine", "x", 2**30)


def test_a_silent_machine_has_no_limit(monkeypatch, tmp_path):
    monkeypatch.delattr(memory.os, "sysconf")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", ())
    memory.require("refine", "x", 2**62)


@pytest.mark.parametrize(
    ("call", "error", "fragments"), [*PARTS, *NO_USE, *NUMBERS, *UNARIES, *MEMORY]
)
def test_bad_input_is_named(call, error, fragments):
    assert_named(call, error, fragments)


class OutOfMemory:
    """A native object that fails as one does where malloc gives nothing."""

    n_vertices = 1

    def __getattr__(self, name):
        return self

    def __call__(self, *arguments):
        raise MemoryError("std::bad_alloc")


@pytest.mark.parametrize("part", ["Lattice", "MeanField"])
@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("refine", lambda: refine(PROBS, IMAGE)),
        ("DenseCRF", lambda: DenseCRF(UNARY, [Gaussian()])),
    ],
    ids=["refine", "DenseCRF"],
)
def test_native_code_without_memory_is_explained(part, where, call, monkeypatch):
    monkeypatch.setattr(f"crfseg._native.core.{part}", OutOfMemory())
    assert_named(call, MemoryError, [f"[{where}] ", "ran out of memory; expected fewer points"])


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("infer", lambda crf: crf.infer()),
        ("step", lambda crf: crf.step(PROBS)),
        ("free_energy", lambda crf: crf.free_energy(PROBS)),
        ("energy", lambda crf: crf.energy(LABELS)),
    ],
    ids=["infer", "step", "free_energy", "energy"],
)
def test_inference_without_memory_is_explained(where, call, monkeypatch):
    crf = DenseCRF(UNARY, [])
    monkeypatch.setattr(crf, "_field", OutOfMemory())
    sentence = f"[DenseCRF.{where}] a model of shape (3, 4, 6) ran out of memory"
    assert_named(lambda: call(crf), MemoryError, [sentence])


def test_vertices_of_many_labels_are_refused_once_they_are_counted(monkeypatch):
    """Points far apart have vertices of their own, and each takes three rows of labels."""
    points = np.arange(0.0, 20_000.0, 2.0).reshape(100, 100, 1)
    unary = np.zeros((24, 100, 100), np.float32)
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    monkeypatch.setattr(memory, "_SMALL", 2**19)
    monkeypatch.setattr(memory, "mean_field_bytes", lambda *_: 0)
    with pytest.raises(MemoryError, match=r"a model of 24 labels at \d+ lattice vertices needs"):
        DenseCRF(unary, [Features(points), Gaussian(0.3)])
    assert memory.vertex_bytes(10, 5) == 3 * 10 * 4 * 8


def test_a_0_d_array_is_a_sigma():
    assert Gaussian(np.array(3.0)).sigma_xy == 3.0
