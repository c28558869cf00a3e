# SPDX-License-Identifier: MIT
"""Dense CRFs: sharpen segmentations with a fully connected CRF, fast on CPUs.

``refine`` is the one call; ``DenseCRF`` the model behind it; ``Lattice`` the filter behind that.
``crfseg.torch``, imported on its own, is the differentiable layer for PyTorch.
"""

from . import cams, graphs, labels, presets
from ._fault_device import CudaError
from ._info import info
from ._native import core, get_num_threads, set_num_threads
from .cache import clear_cache, set_cache_limit
from .compatibility import Potts
from .crf import DenseCRF
from .dataset import refine_dataset
from .lattice import Lattice
from .pairwise import Bilateral, Features, Gaussian
from .points import refine_points
from .refine import CUSTOMARY, refine
from .solvers import FrankWolfe, MeanField
from .unary import unary_from_labels, unary_from_logits, unary_from_probs

Error = core.Error
Error.__doc__ = "What the native core raises where it cannot go on."

__version__ = "0.1.0"

__all__ = [
    "CUSTOMARY",
    "Bilateral",
    "CudaError",
    "DenseCRF",
    "Error",
    "Features",
    "FrankWolfe",
    "Gaussian",
    "Lattice",
    "MeanField",
    "Potts",
    "__version__",
    "cams",
    "clear_cache",
    "get_num_threads",
    "graphs",
    "info",
    "labels",
    "presets",
    "refine",
    "refine_dataset",
    "refine_points",
    "set_cache_limit",
    "set_num_threads",
    "unary_from_labels",
    "unary_from_logits",
    "unary_from_probs",
]
