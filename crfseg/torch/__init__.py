# SPDX-License-Identifier: MIT
"""Dense CRFs in PyTorch: a layer, losses, and the differentiable ops they are made of.

``CRF`` is the layer (CRF-as-RNN); ``DenseCRFLoss`` and ``GatedCRFLoss`` train with weak labels;
``mean_field``, ``infer`` (any solver) and ``filter`` take any features. Networks are in
``crfseg.torch.models``. Nothing outside this folder imports torch.
"""

from .crf import CRF
from .functional import filter, mean_field  # noqa: A004 - what the field calls it
from .losses import DenseCRFLoss, GatedCRFLoss
from .solvers import infer

__all__ = ["CRF", "DenseCRFLoss", "GatedCRFLoss", "filter", "infer", "mean_field"]
