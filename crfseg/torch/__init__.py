# SPDX-License-Identifier: MIT
"""Dense CRFs in PyTorch: a layer, losses, and the differentiable ops they are made of.

``CRF`` is the layer (CRF-as-RNN); ``DenseCRFLoss`` and ``GatedCRFLoss`` train with weak labels;
``mean_field`` and ``filter`` take any features. Networks are in ``crfseg.torch.models``. Nothing
outside this folder imports torch.
"""

from .crf import CRF
from .functional import filter, mean_field  # noqa: A004 - what the field calls it
from .losses import DenseCRFLoss, GatedCRFLoss

__all__ = ["CRF", "DenseCRFLoss", "GatedCRFLoss", "filter", "mean_field"]
