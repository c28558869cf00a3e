# SPDX-License-Identifier: MIT
"""The README's lines on PyTorch run as printed, one block after the other."""

import numpy as np
import pytest

import crfseg
from snippets import ROOT, blocks

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch.models import deeplab_v1  # noqa: E402 - needs torch

README = ROOT / "README.md"


def torch_blocks():
    return [block for block in blocks(README) if "crfseg.torch" in block]


def test_the_lines_on_training():
    network = torch.nn.Conv2d(3, 21, 1)
    before = network.weight.detach().clone()
    target = torch.randint(0, 21, (2, 16, 24))
    target[:, ::2] = 255
    is_labelled = target != 255
    names = {
        "network": network,
        "photos": torch.randint(0, 256, (2, 3, 16, 24)).float(),
        "target": target.where(is_labelled, 0),
    }
    first, second, _ = torch_blocks()
    exec(compile(first, "README.md", "exec"), names)
    assert not torch.equal(network.weight, before)
    assert names["logits"].shape == (2, 21, 16, 24)
    names["target"] = target
    exec(compile(second, "README.md", "exec"), names)
    names["loss"].backward()
    assert names["loss"].isfinite()


def test_the_lines_on_networks(tmp_path, monkeypatch, capsys):
    *_, third = torch_blocks()
    monkeypatch.chdir(tmp_path)
    torch.save(deeplab_v1().half().state_dict(), "deeplab_largefov.pth")
    names = {"image": np.zeros((17, 33, 3), np.uint8)}
    exec(compile(third, "README.md", "exec"), names)
    assert names["labels"].shape == (17, 33)
    assert "41 x 41" in capsys.readouterr().out


def test_it_names_what_there_is():
    text = README.read_text(encoding="utf-8")
    for name in crfseg.torch.__all__:
        assert f"`{name}`" in text
