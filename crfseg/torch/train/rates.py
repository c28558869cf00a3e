# SPDX-License-Identifier: MIT
"""Which parameter learns how fast: Caffe's multipliers, and first layers that see large numbers.

Weights learn at the rate and decay, biases at twice the rate and do not; layers that give scores
learn ten times as fast (weights x 10, biases x 20).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from crfseg import _check as check

from .options import Options

_WHERE: Final = "fit"
# Of the networks of crfseg.torch.models: DeepLab and its branches, FCN, U-Net; SegNet.
_SCORES: Final = re.compile(
    r"(.*\.)?(fc8|score|score_fr|score_pool\d|\w+_ms|decoder\.4\.conv1_1_D)"
)
# Layers that see the image itself.
_FIRST: Final = re.compile(r"(.*\.)?(trunk\.conv1_1|data_conv|encoder\.0\.conv1_1|down\.0\.conv1)")
INPUT_UNIT: Final = 64.0  # levels; a power of two scales without rounding


def parameter_groups(
    model: nn.Module, options: Options, crf: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Groups for an optimizer; ``base`` is a group's rate before the schedule.

    Raises:
        ValueError: if no layer gives scores, or none sees the image, by the names that are known.
    """
    scores = score_layers(model, options) if options.classifier_factor != 1.0 else frozenset()
    first = _first_layers(model) if options.input_unit != 1.0 else frozenset()
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer, _, part = name.rpartition(".")
            factor = options.classifier_factor if layer in scores else 1.0
            decay = options.weight_decay
            if part == "bias":
                factor, decay = 2 * factor, 0.0
            elif layer in first:
                unit = options.input_unit
                factor, decay = factor / unit**2, decay * unit**2
            found.setdefault((options.rate * factor, decay), []).append(parameter)
    groups = [_group(parameters, *key) for key, parameters in found.items()]
    if crf is not None:
        learned = [parameter for parameter in crf.parameters() if parameter.requires_grad]
        groups.append(_group(learned, options.crf_rate, 0.0))
    return groups


@torch.no_grad()
def scale_first_layers(model: nn.Module, unit: float = INPUT_UNIT) -> None:
    """Make random weights, which are meant for inputs of a deviation near 1, ones for levels.

    The first layer's are divided by the unit. Trained with ``Options(input_unit=unit)`` the network
    does what it would do, unscaled, with its input divided by the unit: to the last bit if the unit
    is a power of two.

    Raises:
        ValueError: if no layer is known to see the image, by its name.
    """
    for name in _first_layers(model):
        weight = model.get_submodule(name).weight
        weight.mul_(1 / unit)  # type: ignore[operator]


def score_layers(model: nn.Module, options: Options) -> frozenset[str]:
    """Names of the modules that give scores."""
    layers = dict(model.named_modules())
    if options.classifier is not None:
        for name in options.classifier:
            if name not in layers:
                raise check.invalid(
                    _WHERE, f"classifier has {check.show(name)}, which model has no module of"
                )
        return frozenset(options.classifier)
    return _matching(
        layers, _SCORES, "gives scores", "options.classifier, their names, or classifier_factor=1"
    )


def _first_layers(model: nn.Module) -> frozenset[str]:
    return _matching(dict(model.named_modules()), _FIRST, "sees the image", "input_unit=1")


def _matching(
    layers: Mapping[str, nn.Module], pattern: re.Pattern[str], what: str, expected: str
) -> frozenset[str]:
    found = frozenset(name for name in layers if pattern.fullmatch(name))
    if not found:
        raise check.invalid(
            _WHERE, f"model has no layer of which is known that it {what}; expected {expected}"
        )
    return found


def _group(parameters: list[nn.Parameter], base: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": base, "base": base, "weight_decay": decay}
