# SPDX-License-Identifier: MIT
"""The Python lines of docs/cuda.md run, on a device or where one is emulated."""

import contextlib

import numpy as np
import pytest

from snippets import DOCUMENTS, blocks, run
from test_device import scene

torch = pytest.importorskip("torch")


class Captured:
    """A graph of what has been done already."""

    def replay(self):
        """Nothing is left to do."""


def test_every_block(there, monkeypatch):
    pairs = [scene(seed=seed) for seed in range(2)]
    probs, images = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    if not there(torch.zeros(1)).is_cuda:
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Captured)
        monkeypatch.setattr(torch.cuda, "graph", lambda _: contextlib.nullcontext())
    logits = there(torch.from_numpy(probs).log())
    names = {"model": lambda _: logits, "batch": None, "images": there(torch.from_numpy(images))}
    for block in blocks(DOCUMENTS / "cuda.md"):
        run(block, names, "cuda.md")
    assert names["room"].max_vertices == images[..., 0].size // 2
