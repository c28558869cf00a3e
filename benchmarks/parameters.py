# SPDX-License-Identifier: MIT
"""Sets of kernel parameters that people use: spatial xy/weight + bilateral xy/rgb/weight."""

from typing import NamedTuple

ITERATIONS = 10


class Parameters(NamedTuple):
    """(sigma_xy, weight) and (sigma_xy, sigma_rgb, weight) of the two kernels; Potts model."""

    spatial: tuple[float, float]
    bilateral: tuple[float, float, float]


PARAMETERS = {
    "3/3+80/13/10": Parameters((3.0, 3.0), (80.0, 13.0, 10.0)),  # pydensecrf's example, PSA
    "3/3+50/5/10": Parameters((3.0, 3.0), (50.0, 5.0, 10.0)),  # IRN
    "1/3+67/3/4": Parameters((1.0, 3.0), (67.0, 3.0, 4.0)),  # deeplab-pytorch, STEGO, CLIP-ES
    "3/3+121/5/4": Parameters((3.0, 3.0), (121.0, 5.0, 4.0)),  # DeepLab-LargeFOV
}
DEFAULT = "3/3+80/13/10"
CUSTOMARY = PARAMETERS[DEFAULT]


def in_words(parameters: Parameters) -> str:
    """As the names above: ``3/3+80/13/10``."""
    return "+".join("/".join(f"{number:g}" for number in kernel) for kernel in parameters)
