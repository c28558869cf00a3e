# SPDX-License-Identifier: MIT
"""The README's lines run as printed, one block after the other, and do what the text says."""

import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import crfseg
from crfseg import cli
from crfseg.io import read_labels, write_picture

README = Path(__file__).resolve().parent.parent / "README.md"
C, H, W = 3, 24, 32


def blocks(language):
    """What stands between fences, top to bottom."""
    text = README.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the README takes for granted; photo.jpg and scores.npy lie in the current folder."""
    pytest.importorskip("PIL")
    rng = np.random.default_rng(0)
    halves = np.where(np.arange(W)[:, None] < W // 2, [200, 30, 30], [30, 30, 200])
    photo = (halves + rng.integers(-9, 10, (H, W, 3))).astype(np.uint8)
    probs = rng.dirichlet(np.ones(C), (H, W)).transpose(2, 0, 1).astype(np.float32).copy()
    monkeypatch.chdir(tmp_path)
    write_picture("photo.jpg", photo)
    np.save("scores.npy", probs)
    yield {
        "probs": probs,
        "logits": np.log(probs),
        "p": probs[0],
        "label_map": np.where(probs.max(0) > 0.4, probs.argmax(0), 255),
        "coarse": probs.reshape(C, H // 8, 8, W // 8, 8).mean((2, 4)),
        "truth": probs.argmax(0).astype(np.uint8),
        "cams": np.concatenate([probs / probs.max((1, 2), keepdims=True), 0 * probs]),
        "features": rng.normal(size=(H * W, 5)).astype(np.float32),
        "values": rng.random((H * W, 2)).astype(np.float32),
        "volume_probs": np.moveaxis(rng.dirichlet(np.ones(C), (5, 8, 16)), -1, 0),
        "modalities": rng.integers(0, 256, (2, 5, 8, 16), dtype=np.uint8),
        "points": rng.random((60, 3)),
        "looks": rng.random((60, 6)),
        "point_labels": rng.integers(0, C, 60),
        "point_probs": rng.dirichlet(np.ones(C), 60),
    }
    crfseg.set_cache_limit(0)


def exact_filter(features, values):
    """Normalised Gaussian sums over all pairs."""
    kernel = np.exp(-((features[:, None] - features[None]).astype(float) ** 2).sum(-1) / 2)
    return kernel @ values / kernel.sum(1)[:, None]


def test_the_python_lines(given, capsys):
    names = dict(given)
    for block in blocks("python"):
        if "crfseg.torch" in block:  # tests/pytorch runs those
            continue
        exec(compile(block, "README.md", "exec"), names)
    image, probs, refined = names["image"], given["probs"], names["refined"]
    np.testing.assert_array_equal(refined, crfseg.refine(probs, image))
    np.testing.assert_array_equal(names["labels"], refined.argmax(0))
    assert names["foreground"].shape == (H, W)
    assert names["complete"].max() < C
    assert np.abs(names["sharper"] - refined).max() > 0.01
    assert names["upsampled"].shape == (C, H, W)
    assert names["sharp"].shape == (C, 5, 8, 16)
    assert (names["smooth_labels"] != given["point_labels"]).any()
    assert names["smooth_probs"].shape == (60, C)
    assert np.abs(names["marginals"] - names["fewer"]).max() > 0.01
    half = crfseg.refine(probs, image, bilateral=(80, 7, 5), spatial=(6, 6))
    np.testing.assert_array_equal(names["ours"], half)
    assert set(np.unique(names["pseudo"])) <= {0, 1, 2, 3, 255}
    assert set(np.unique(names["affinity"])) <= {0, 1, 2, 3, 255}
    # The terms spelt out are the customary ones.
    customary = crfseg.refine(probs, image, **crfseg.CUSTOMARY)
    np.testing.assert_allclose(names["q"], customary, atol=1e-4)
    np.testing.assert_allclose(names["found"].q, customary, atol=1e-5)
    assert capsys.readouterr().out.startswith(f"{(C, H, W)} ")
    exact = exact_filter(given["features"], given["values"])
    far, near = (np.linalg.norm(names[n] - exact) for n in ("smooth", "closer"))
    assert 2 * near < far < 0.05 * np.linalg.norm(exact)


def test_the_command_lines(given, capsys):
    commands = [line for block in blocks("") for line in block.splitlines()]
    ours = [shlex.split(line) for line in commands if "crfseg " in line]
    assert ours, "README.md shows no crfseg command"
    for command, *arguments in ours:
        assert command == "crfseg"  # python -m crfseg does not work everywhere
        assert cli.main(arguments) == 0, capsys.readouterr().err
    assert read_labels("labels.png").labels.shape == (H, W)


def test_the_parameters_that_it_names_are_the_defaults():
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert "a Gaussian term of 3 pixels and weight 6" in text
    assert "a bilateral term of 30 pixels, 13 colour levels and weight 10, ten iterations" in text
    assert "no square of 21 pixels fits" in text
    parameters = inspect.signature(crfseg.refine).parameters.values()
    defaults = {one.name: one.default for one in parameters}
    assert defaults["spatial"] == (3, 6)
    assert defaults["bilateral"] == (30, 13, 10)
    assert "3 pixels and weight 3, 80 pixels, 13 levels and weight 10." in text
    assert crfseg.CUSTOMARY["spatial"] == (3, 3)
    assert crfseg.CUSTOMARY["bilateral"] == (80, 13, 10)
    assert defaults["iterations"] == 10
