# SPDX-License-Identifier: MIT
"""Which parameter learns how fast: Caffe's multipliers, and first layers that see large numbers.

Weights learn at the rate and decay, biases at twice the rate and do not; layers that give scores
learn ten times as fast (weights x 10, biases x 20).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from crfseg import _check as check

from .options import Options

_WHERE: Final = "fit"
# Of the networks of crfseg.torch.models: DeepLab, FCN, U-Net; SegNet. Scores of DeepLab's branches
# are not among them: in the authors' network definitions they learn as the layers before.
_SCORES: Final = re.compile(r"(.*\.)?(fc8|score|score_fr|score_pool\d|decoder\.4\.conv1_1_D)")
# Layers that see the image itself. Not data_conv: its first weights are made for levels.
_FIRST: Final = re.compile(r"(.*\.)?(trunk\.conv1_1|encoder\.0\.conv1_1|down\.0\.conv1)")
_STATISTICS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
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


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Parameters of these modules require no gradient from here on.

    Returns:
        Their batch normalisations, which learn in training mode, gradients or not.

    Raises:
        ValueError: if a module is not there, or nothing is left to learn.
    """
    frozen = [part for name in names for part in _module(model, "frozen", name).modules()]
    for part in frozen:
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise check.invalid(_WHERE, f"frozen is {check.show(tuple(names))}, which is all of model")
    return [part for part in frozen if isinstance(part, _STATISTICS)]


@torch.no_grad()
def scale_first_layers(model: nn.Module, unit: float = INPUT_UNIT) -> None:
    """Make random weights, which are meant for inputs of a deviation near 1, ones for levels.

    The first layer's are divided by the unit. Trained with ``Options(input_unit=unit)`` the network
    does what it would do, unscaled, with its input divided by the unit: to the last bit if the unit
    is a power of two.

    Raises:
        ValueError: if no layer is known to see the image, by its name.
    """
    unit = check.positive("scale_first_layers", "unit", unit)
    for name in _first_layers(model):
        weight = model.get_submodule(name).weight
        weight.mul_(1 / unit)  # type: ignore[operator]


def score_layers(model: nn.Module, options: Options) -> frozenset[str]:
    """Names of the modules that give scores."""
    if options.classifier is not None:
        for name in options.classifier:
            _module(model, "classifier", name)
        return frozenset(options.classifier)
    expected = "options.classifier, their names, or classifier_factor=1"
    return _matching(dict(model.named_modules()), _SCORES, "gives scores", expected)


def _module(model: nn.Module, option: str, name: str) -> nn.Module:
    """Of a name that an option has."""
    found = dict(model.named_modules()).get(name)
    if found is None:
        parts = check.options(part for part, _ in model.named_children())
        raise check.invalid(
            _WHERE,
            f"{option} has {check.show(name)}, which model has no module of; expected {parts}, or "
            "a module in them",
        )
    return found


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
