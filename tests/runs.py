# SPDX-License-Identifier: MIT
"""What tests of training share: pictures of shapes, a small network, few iterations."""

import numpy as np
import torch

from crfseg.torch.models import unet
from crfseg.torch.train import Options, Sample, scale_first_layers
from shapes import N_CLASSES, some_shapes


def shapes_for(seed, n, size=64):
    images, labels = some_shapes(np.random.default_rng(seed), n, size)
    levels = torch.from_numpy(images.round()).to(torch.uint8)
    return list(map(Sample, levels, torch.from_numpy(labels)))


def small(seed=0):
    torch.manual_seed(seed)
    model = unet(N_CLASSES, padding=True, width=4, dropout=0.5)
    scale_first_layers(model)
    return model


def options(**given):
    return Options(
        **{"iterations": 6, "batch_size": 2, "crop": 32, "rate": 0.01, "input_unit": 64.0} | given
    )
