# SPDX-License-Identifier: MIT
"""What all adapters are tried with: a photograph, its truth, and coarse scores for it.

Regions are so placed that no flip or swap of axes leads back to the truth, and off the scores'
grid, so that only the image says where they end.
"""

import importlib
import sys
import warnings

import numpy as np
import pytest

STRIDE, CLASSES = 4, 3
COLOURS = np.array([[200, 40, 30], [40, 180, 60], [30, 60, 210]])
SHARP = {"spatial": (1, 1), "bilateral": (12, 20, 12)}  # kernels for a picture as small as this


def truth(height=32, width=48):
    """(height, width) labels: background, a post on the left, a block on the lower right."""
    labels = np.zeros((height, width), np.int64)
    labels[: height - 6, 5:14] = 1
    labels[11:, 22 : width - 3] = 2
    return labels


def photograph(labels):
    """(H, W, 3) uint8 with a little noise."""
    noise = np.random.default_rng(5).integers(-8, 9, (*labels.shape, 3))
    return (COLOURS[labels] + noise).astype(np.uint8)


def shares(labels):
    """(CLASSES, H / STRIDE, W / STRIDE) float32: how much of each cell is of which label."""
    height, width = (n // STRIDE for n in labels.shape)
    one_hot = (labels == np.arange(CLASSES)[:, None, None]).astype(np.float32)
    return one_hot.reshape(CLASSES, height, STRIDE, width, STRIDE).mean((2, 4))


def logits(labels):
    """Coarse scores before softmax, as unsure as a network is between cells."""
    return 6 * shares(labels) - 3


def full_logits(labels):
    """The same at every pixel, in steps."""
    return logits(labels).repeat(STRIDE, 1).repeat(STRIDE, 2)


def normalized(photo, mean, std):
    """(1, 3, H, W) as networks take it, of values in 0..1."""
    values = (photo / 255 - np.array(mean)) / np.array(std)
    return values.transpose(2, 0, 1)[None].astype(np.float32)


def framework(name):
    """Import a framework, or skip the test that asks for it: `make adapters` installs them all."""
    torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import they warn of each other
        _mend_torchvision(torch)
        return pytest.importorskip(name, reason=f"{name} is not installed (make adapters)")


def _mend_torchvision(torch):
    """Let it be imported beside a torch for which its wheel was not compiled.

    PyPI's wheel is for torch with CUDA; beside a CPU build its compiled ops, boxes for detection,
    are missing. What is tested needs none of them, but the import asks for the names of two.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for op in ("nms", "qnms"):
            signature = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{op}", signature)
