# SPDX-License-Identifier: MIT
"""Training networks, with or without a CRF layer: ``python -m crfseg.torch.train``.

``fit(model, source, options, folder=...)`` is what the command calls; ``Pictures`` reads folders,
``Options`` has all numbers, ``validate`` scores a network with and without a CRF.
"""

from .draws import Sample
from .loop import fit
from .options import Options
from .pictures import Pictures
from .rates import parameter_groups, scale_first_layers
from .validation import validate

__all__ = [
    "Options",
    "Pictures",
    "Sample",
    "fit",
    "parameter_groups",
    "scale_first_layers",
    "validate",
]
