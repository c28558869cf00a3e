# SPDX-License-Identifier: MIT
"""Dense CRFs in PyTorch: a layer, losses, and the differentiable ops they are made of.

``CRF`` is the layer (CRF-as-RNN); ``DenseCRFLoss`` and ``GatedCRFLoss`` train with weak labels;
``mean_field``, ``infer`` (any solver) and ``filter`` take any features. Networks are in
``crfseg.torch.models``. Nothing outside this folder imports torch.
"""

try:
    from .crf import CRF
    from .functional import filter, mean_field  # noqa: A004 - what the field calls it
    from .losses import DenseCRFLoss, GatedCRFLoss
    from .solvers import infer
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sentence = "crfseg.torch needs PyTorch; install it with: pip install 'dense-crfseg[torch]'"
    raise ModuleNotFoundError(sentence, name="torch") from error

__all__ = ["CRF", "DenseCRFLoss", "GatedCRFLoss", "filter", "infer", "mean_field"]
