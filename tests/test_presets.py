# SPDX-License-Identifier: MIT
"""Presets: what they hold, how keywords override them, files, and what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest

import crfseg
from crfseg import Gaussian, Potts, presets, refine
from crfseg.compat.pydensecrf._terms import lattice_of_points
from crfseg.presets import Preset

NAMES = list(presets.list())
OWN = Preset(
    "own", "of these tests", "here", {"spatial": (2, 4), "bilateral": None, "iterations": 3}
)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_taken_and_says_where_it_stands(name, probs, image):
    preset = presets.get(name)
    found = refine(probs, image, preset=name)
    np.testing.assert_array_equal(found, refine(probs, image, **preset.options))
    assert np.abs(found - refine(probs, image)).max() > 0.01
    assert preset.name == name
    assert preset.source.startswith(("https://github.com/", "Chen et al., ", "Zheng et al., "))
    assert "\n" not in preset.description
    assert {"spatial", "bilateral", "iterations", "normalization"} < set(preset.options)
    assert preset.options["keep_thin"] == 0


@pytest.mark.parametrize(
    ("name", "spatial", "bilateral", "iterations", "normalization", "confidence"),
    [
        ("deeplab-v1", (3, 3), (50, 10, 5), 10, "after", None),
        ("deeplab-v1-largefov", (3, 3), (121, 5, 4), 10, "after", None),
        ("deeplab-v1-msc-largefov", (3, 3), (83, 5, 4), 10, "after", None),
        ("deeplab-v1-coco-largefov", (3, 3), (69, 5, 5), 10, "after", None),
        ("deeplab-v2", (1, 3), (67, 3, 4), 10, "symmetric", None),
        ("crf-rnn", (3, 3), (160, 3, 5), 10, "after", None),
        ("irn-labels", (3, 3), (50, 5, 10), 10, "symmetric", 0.7),
        ("psa", (3, 3), (80, 13, 10), 10, "symmetric", None),
        ("stego", (1, 3), (67, 3, 4), 10, "symmetric", None),
        ("cutler", (3, 7), (50, 5, 10), 10, "symmetric", np.e / (1 + np.e)),
        ("clip-es", (1, 3), (67, 3, 4), 10, "symmetric", None),
        ("pydensecrf", (3, 3), (80, 13, 10), 5, "symmetric", 0.7),
    ],
)
def test_the_numbers_are_the_published_ones(
    name, spatial, bilateral, iterations, normalization, confidence
):
    options = presets.get(name).options
    assert options["spatial"] == spatial
    assert options["bilateral"] == bilateral
    assert (options["iterations"], options["normalization"]) == (iterations, normalization)
    assert options.get("confidence") == (None if confidence is None else pytest.approx(confidence))


def test_the_list_names_them_all_and_prints_as_a_table():
    listed = presets.list()
    wanted = """deeplab-v1-largefov deeplab-v1-msc-largefov deeplab-v2 deeplab-coco crf-rnn psa
                irn-labels stego cutler clip-es pydensecrf unet mctformer"""
    assert set(wanted.split()) <= set(listed)
    lines = str(listed).splitlines()
    assert [line.split()[0] for line in lines] == list(listed)
    assert max(map(len, lines)) <= 130
    assert lines[NAMES.index("psa")].endswith(listed["psa"])
    assert "bilateral=(80.0, 13.0, 10.0)" in str(presets.get("psa"))


def test_the_customary_parameters_are_a_preset():
    options = presets.get("pydensecrf").options
    assert {name: options[name] for name in crfseg.CUSTOMARY} == crfseg.CUSTOMARY


def test_weights_without_normalization_have_the_gain_of_pydensecrf(rng):
    options = presets.get("manga-image-translator").options
    for dim, weight, published in ((2, options["spatial"][1], 3), (5, options["bilateral"][2], 20)):
        lattice = lattice_of_points("test", rng.normal(size=(dim, 9)).astype(np.float32), 9, 1)
        gain = 2.0 ** (dim + 1) / (1 + 2.0**-dim) / lattice.gain
        assert weight == pytest.approx(published * gain, rel=1e-6)


# --- overriding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"iterations": 10},  # the default of refine, which is not the preset's
        {"spatial": (3.0, 6.0)},
        {"bilateral": (30.0, 13.0, 10.0)},
        {"normalization": "symmetric"},
        {"keep_thin": "auto", "spatial": (3.0, 6.0), "bilateral": (30.0, 13.0, 10.0)},
        {"spatial": None},
    ],
)
def test_keywords_go_first_even_where_they_are_the_default(given, probs, image):
    preset = Preset("p", "", "", {**presets.get("crf-rnn").options, "iterations": 3})
    found = refine(probs, image, preset=preset, **given)
    np.testing.assert_array_equal(found, refine(probs, image, **{**preset.options, **given}))
    assert np.abs(found - refine(probs, image, preset=preset)).max() > 1e-3


def test_terms_of_the_caller_replace_those_of_the_preset(probs, image):
    terms = [Gaussian(2, 5)]
    found = refine(probs, image, preset="crf-rnn", pairwise=terms)
    options = {"iterations": 10, "normalization": "after", "keep_thin": 0}
    np.testing.assert_array_equal(found, refine(probs, image, pairwise=terms, **options))


def test_no_preset_is_no_preset(probs, image, refined):
    np.testing.assert_array_equal(refine(probs, image, preset=None), refined)


def test_batches_take_presets(probs, image):
    batch, images = np.stack([probs, probs[::-1]]), np.stack([image, image[::-1]])
    found = refine(batch, images, preset="irn-labels")
    for one, x, own in zip(found, batch, images, strict=True):
        np.testing.assert_array_equal(one, refine(x, own, preset="irn-labels"))


# --- files ----------------------------------------------------------------------------------------


def test_saved_presets_come_back(tmp_path, probs, image):
    path = tmp_path / "own.json"
    presets.save(path, OWN)
    assert presets.get(path) == presets.get(str(path)) == presets.load(path) == OWN
    assert json.loads(path.read_text())["source"] == "here"
    expected = refine(probs, image, spatial=(2, 4), bilateral=None, iterations=3)
    for preset in (path, str(path), OWN):
        np.testing.assert_array_equal(refine(probs, image, preset=preset), expected)


@pytest.mark.parametrize("name", NAMES)
def test_published_presets_survive_a_file(name, tmp_path):
    presets.save(tmp_path / "copy.json", name)
    assert presets.load(tmp_path / "copy.json") == presets.get(name)


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    options = {"spatial": (np.float32(2), 1), "compatibility": np.eye(2), "iterations": np.int64(3)}
    presets.save(tmp_path / "a.json", Preset("a", "", "", options))
    found = presets.load(tmp_path / "a.json").options
    assert found == {"spatial": (2, 1), "compatibility": ((1, 0), (0, 1)), "iterations": 3}


def test_presets_cannot_be_changed_and_travel_to_other_processes():
    for twin in (pickle.loads(pickle.dumps(OWN)), copy.deepcopy(OWN)):
        assert twin == OWN
    with pytest.raises(TypeError):
        OWN.options["iterations"] = 4
    with pytest.raises(AttributeError):
        OWN.name = "other"
    given = {"spatial": [2, 4]}
    preset = Preset("p", "", "", given)
    given["spatial"][0] = 9
    assert preset.options["spatial"] == (2, 4)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deeplab-largefov", "deeplab-v1-largefov"),
        ("pydenscrf", "pydensecrf"),
        ("CutLER", "cutler"),
        ("crfrnn", "crf-rnn"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(typed, meant, probs, image):
    words = rf"^\[refine\] preset is '{typed}'; the nearest name is '{meant}' "
    with pytest.raises(ValueError, match=words):
        refine(probs, image, preset=typed)
    with pytest.raises(ValueError, match=r"^\[presets.get\] preset is"):
        presets.get(typed)


def test_a_preset_of_another_type_is_refused(probs, image):
    with pytest.raises(
        TypeError, match=r"^\[refine\] preset is 7 \(int\); expected a name, the path"
    ):
        refine(probs, image, preset=7)


@pytest.mark.parametrize("name", ["sigma_xy", "preset", "x"])  # a preset has no preset
def test_options_that_refine_does_not_have_are_named(name, probs, image):
    with pytest.raises(ValueError, match=rf"^\[refine\] preset 'odd' has the option '{name}'; exp"):
        refine(probs, image, preset=Preset("odd", "", "", {name: "psa"}))


def test_values_of_options_are_checked_as_if_they_were_given(probs, image):
    with pytest.raises(ValueError, match=r"^\[refine\] iterations is -1"):
        refine(probs, image, preset=Preset("odd", "", "", {"iterations": -1}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ("[1]", "holds something else; expected an object with name, description, source, options"),
        ('{"name": "a", "options": {}}', "holds 'name' or 'options'; expected an object with"),
        (
            '{"name": 1, "description": "", "source": "", "options": {}}',
            "name is 1; expected a str",
        ),
        (
            '{"name": "", "description": "", "source": "", "options": []}',
            r"options is \[\]; expected",
        ),
    ],
)
def test_files_that_hold_no_preset_are_named(text, words, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^\[presets.load\] .*bad.json: .*{words}"):
        presets.get(path)


def test_a_missing_file_is_the_systems_error(tmp_path, probs, image):
    with pytest.raises(FileNotFoundError):
        refine(probs, image, preset=str(tmp_path / "none.json"))


def test_what_a_file_cannot_hold_is_not_written(tmp_path):
    path = tmp_path / "p.json"
    for option in (
        {"compatibility": Potts(2)},
        {"spatial": (np.nan, 1)},
        {"pairwise": [Gaussian()]},
    ):
        with pytest.raises(TypeError, match=rf"^\[presets.save\] option {next(iter(option))} is "):
            presets.save(path, Preset("p", "", "", option))
    with pytest.raises(
        ValueError, match=r"^\[presets.save\] path is .*; expected a name that ends"
    ):
        presets.save(tmp_path / "p.txt", OWN)
    assert list(tmp_path.iterdir()) == []


def test_presets_are_made_of_texts_and_a_mapping():
    with pytest.raises(TypeError, match=r"^\[Preset\] source is None; expected a string"):
        Preset("a", "", None, {})
    for options in ([], {1: 2}):
        with pytest.raises(
            TypeError, match=r"^\[Preset\] options is .*; expected a mapping of keyw"
        ):
            Preset("a", "", "", options)
