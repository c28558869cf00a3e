# SPDX-License-Identifier: MIT
"""The Python lines of docs/ run as printed, one block after the other, and print what they say."""

import re

import numpy as np
import pytest

import crfseg
from scene import photograph, shares, truth
from snippets import DOCUMENTS, blocks, run

pytest.importorskip("PIL", reason="the demo's photograph is a JPEG")
PICTURES = DOCUMENTS / "pictures"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    """Documents write files where they are run, and may change what the process keeps."""
    monkeypatch.chdir(tmp_path)
    yield
    crfseg.set_cache_limit(0)


def all_blocks(name, names, *, without=()):
    for block in blocks(DOCUMENTS / f"{name}.md"):
        if not any(word in block for word in without):
            run(block, names, f"{name}.md")
    return names


def doubtful(labels):
    """Probabilities at every pixel, in steps, and of the classes of `labels` alone."""
    return (0.7 * shares(labels) + 0.1).repeat(4, 1).repeat(4, 2)


def test_first_refinement(tmp_path):
    names = all_blocks("start", {})
    assert (tmp_path / "before.png").exists()
    assert (tmp_path / "after.png").exists()
    assert not np.array_equal(names["as_in_deeplab"], names["labels"])


def test_parameters(tmp_path):
    several = [truth(), truth(36, 60)]
    examples = [(doubtful(one), photograph(one), one) for one in several]
    probs, image, _ = examples[0]
    names = all_blocks("parameters", {"examples": examples, "probs": probs, "image": image})
    assert (tmp_path / "mine.json").exists()
    np.testing.assert_array_equal(
        names["labels"], crfseg.refine(probs, image, returns="labels", **names["best"])
    )


def test_every_preset_is_in_the_table_as_it_is():
    all_blocks("presets", {})
    rows = (DOCUMENTS / "presets.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row.startswith("| `")] == [
        preset_row(crfseg.presets.get(name)) for name in crfseg.presets.list()
    ]


def preset_row(preset):
    """A line of the table."""
    options = dict(preset.options)
    kernels = [
        "none" if kernel is None else " / ".join(f"{number:g}" for number in kernel)
        for kernel in (options["spatial"], options["bilateral"])
    ]
    confidence = f"{options['confidence']:.5g}" if "confidence" in options else ""
    model = (*kernels, str(options["iterations"]), options["normalization"], confidence)
    return f"| {' | '.join((f'`{preset.name}`', *model, preset.description, preset.source))} |"


def test_determinism_and_memory():
    all_blocks("determinism", {})
    assert crfseg.info()["cache_bytes"] == 0


def test_migrating():
    labels = truth()
    names = {"probs": doubtful(labels), "photo": photograph(labels)}
    all_blocks("migrating", names, without=("crfseg.torch",))
    assert names["labels"].shape == labels.shape
    np.testing.assert_allclose(names["monai_like"].sum(0), 1, atol=1e-5)


def test_migrating_from_crf_rnn():
    pytest.importorskip("torch", reason="torch is not installed (make torch)")
    labels = truth()
    names = {"probs": doubtful(labels), "photo": photograph(labels)}
    all_blocks("migrating", names)
    assert names["out"].shape == (1, 3, *labels.shape)


def test_labels_with_unsure_pixels_migrate_as_the_table_says():
    import crfseg.compat.pydensecrf.densecrf as dcrf
    from crfseg.compat.pydensecrf.utils import unary_from_labels

    labels = truth() + 1
    labels[::3, ::2] = 0  # unsure
    photo = photograph(truth())
    model = dcrf.DenseCRF2D(labels.shape[1], labels.shape[0], 3)
    model.setUnaryEnergy(unary_from_labels(labels, 3, gt_prob=0.7, zero_unsure=True))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=80, srgb=13, rgbim=photo, compat=10)
    old = np.array(model.inference(5)).reshape(3, *labels.shape)
    new = crfseg.refine(
        labels, photo, preset="pydensecrf", ignore_index=0, n_labels=4, returns="probs"
    )
    np.testing.assert_allclose(new[1:], old, atol=1e-3)
    assert new[0].max() < 1e-6


def test_features_matrices_and_the_divergence_migrate_as_the_table_says(rng):
    import crfseg.compat.pydensecrf.densecrf as dcrf

    n_labels, n_points, weight = 3, 200, 2.0
    unary = 4 * rng.random((n_labels, n_points)).astype(np.float32)
    features = rng.normal(size=(4, n_points)).astype(np.float32)
    costs = rng.normal(size=(n_labels, n_labels)).astype(np.float32)
    old = dcrf.DenseCRF(n_points, n_labels)
    old.setUnaryEnergy(unary)
    old.addPairwiseEnergy(features, compat=costs)
    new = crfseg.DenseCRF(
        unary, [crfseg.Features(features.T, weight=1)], compatibility=(costs + costs.T) / 2
    )
    np.testing.assert_allclose(new.infer(3).q, old.inference(3), atol=1e-5)

    potts = dcrf.DenseCRF(n_points, n_labels)
    potts.setUnaryEnergy(unary)
    potts.addPairwiseEnergy(features, compat=weight)
    new = crfseg.DenseCRF(unary, [crfseg.Features(features.T, weight=weight)])
    pairs = []
    for q in (potts.inference(0), potts.inference(4)):
        marginals = np.array(q, np.float64)
        alone = (marginals * (np.log(np.maximum(marginals, 1e-20)) + unary)).sum()
        agreement = potts.klDivergence(q) - alone
        pairs.append((agreement, 2 * (new.free_energy(np.array(q)) - alone)))
    assert pairs[0][0] < 0
    assert abs(pairs[0][0] - pairs[1][0]) > 1
    # What agrees and what disagrees are all pairs.
    assert pairs[0][1] - pairs[0][0] == pytest.approx(pairs[1][1] - pairs[1][0], rel=1e-4)


def test_the_order_of_axes_in_sigmas_is_as_the_table_says():
    import crfseg.compat.pydensecrf.densecrf as dcrf
    from crfseg.compat.pydensecrf.utils import create_pairwise_gaussian, unary_from_softmax

    probs = doubtful(truth())
    _, height, width = probs.shape
    by_name, by_features = dcrf.DenseCRF2D(width, height, 3), dcrf.DenseCRF(width * height, 3)
    by_name.addPairwiseGaussian(sxy=(2, 7), compat=2.0)
    by_features.addPairwiseEnergy(create_pairwise_gaussian((7, 2), (height, width)), compat=2.0)
    asked = {"layout": "CHW", "bilateral": None, "iterations": 3}
    new = crfseg.refine(probs, None, spatial=((2, 7), 2), **asked)
    other_way = crfseg.refine(probs, None, spatial=((7, 2), 2), **asked)
    for old in (by_name, by_features):
        old.setUnaryEnergy(unary_from_softmax(probs))
        found = np.array(old.inference(3)).reshape(probs.shape)
        # The order of features turns the lattice, which then errs in other places.
        assert np.abs(found - new).mean() < 0.1 * np.abs(found - other_way).mean()


def test_sums_without_normalization_migrate_as_the_table_says():
    import crfseg.compat.pydensecrf.densecrf as dcrf
    from crfseg.compat.pydensecrf.utils import unary_from_softmax

    gains = [float(g) for g in re.findall(r"weights times (\S+) \(spatial\) and (\S+) ", text())[0]]
    labels = truth()
    probs, photo = doubtful(labels), photograph(labels)
    model = dcrf.DenseCRF2D(labels.shape[1], labels.shape[0], 3)
    model.setUnaryEnergy(unary_from_softmax(probs))
    none = {"normalization": dcrf.NO_NORMALIZATION}
    model.addPairwiseGaussian(sxy=2, compat=0.05, **none)
    model.addPairwiseBilateral(sxy=5, srgb=20, rgbim=photo, compat=0.05, **none)
    old = np.array(model.inference(5)).reshape(probs.shape)
    new = crfseg.refine(
        probs,
        photo,
        spatial=(2, 0.05 * gains[0]),
        bilateral=(5, 20, 0.05 * gains[1]),
        normalization="none",
        iterations=5,
    )
    assert np.abs(old - probs).max() > 0.1
    np.testing.assert_allclose(new, old, atol=5e-3)


def text():
    return (DOCUMENTS / "migrating.md").read_text(encoding="utf-8")


def test_the_index_names_every_page_and_every_link_leads_somewhere():
    pages = {path.name for path in DOCUMENTS.glob("*.md")} - {"README.md"}
    index = (DOCUMENTS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) == pages
    for page in DOCUMENTS.glob("*.md"):
        for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
            path, _, section = link.partition("#")
            target = (DOCUMENTS / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if section:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                assert section in [title.lower().replace(" ", "-") for title in headings], link


def test_pictures_are_small_and_drawn_by_the_script():
    image_module = pytest.importorskip("PIL.Image")
    script = (DOCUMENTS.parent / "benchmarks" / "panels.py").read_text(encoding="utf-8")
    drawn = re.findall(r'^    "(\w+)": \[', script, re.MULTILINE)
    page = (DOCUMENTS / "parameters.md").read_text(encoding="utf-8")
    assert drawn == re.findall(r"\(pictures/(\w+)\.jpg\)", page)
    for name in drawn:
        path = PICTURES / f"{name}.jpg"
        assert path.stat().st_size < 150_000
        with image_module.open(path) as picture:
            assert picture.width > 1000
