# SPDX-License-Identifier: MIT
"""How a network is trained: every number in one place, with DeepLab's recipe as the defaults."""

from dataclasses import dataclass
from typing import Final

import torch

from crfseg import _check as check

from .schedules import SCHEDULES

_WHERE: Final = "Options"


@dataclass(frozen=True)
class Options:
    """The defaults are those that DeepLab-LargeFOV was trained with (Chen et al., ICLR 2015).

    Args:
        iterations: steps of the optimizer.
        batch_size: crops in a step.
        rate: of learning, for weights; biases learn twice as fast and do not decay, as in Caffe.
        schedule: "step", the rate times ``gamma`` after every ``step`` iterations; or "poly", times
            (1 - iteration / iterations)^power.
        step: see ``schedule``.
        gamma: see ``schedule``.
        power: see ``schedule``.
        momentum: of stochastic gradient descent.
        weight_decay: of weights.
        classifier_factor: the layers that give the scores learn so much faster.
        classifier: names of the modules that give the scores; None: as in ``crfseg.torch.models``.
        frozen: names of modules that do not learn, as ("trunk", "classifier") do not in DeepLab's
            multi-scale networks. Their dropout goes on, their batch normalisation does not.
        crf_rate: of learning of the CRF layer, if there is one; its parameters do not decay.
        input_unit: the first layer learns as if it saw levels in this unit, that is unit^2 times
            slower; 64 for networks that began with random weights, see ``scale_first_layers``.
        crop: side of the random crops; DeepLab takes 8 k + 1 pixels, its plain variants 8 k + 2.
            Smaller images are padded with the mean, their labels with ``ignore_index``.
        mirror: turn every other crop's left to its right.
        ignore_index: the label of pixels that do not count.
        seed: of the order, the crops, dropout.
        workers: processes that read pictures; 0 reads them between the steps.
        device: of the network, "cpu" or "cuda"; the CRF layer is where its parameters are.
        save_every: iterations between checkpoints; there is one at the end as well.
        validate_every: iterations between validations; None: at the end alone.
    """

    iterations: int = 6000
    batch_size: int = 30
    rate: float = 0.001
    schedule: str = "step"
    step: int = 2000
    gamma: float = 0.1
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    classifier_factor: float = 10.0
    classifier: tuple[str, ...] | None = None
    frozen: tuple[str, ...] = ()
    crf_rate: float = 0.001
    input_unit: float = 1.0
    crop: int = 321
    mirror: bool = True
    ignore_index: int = 255
    seed: int = 0
    workers: int = 0
    device: str = "cpu"
    save_every: int = 500
    validate_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "step", "crop", "save_every"):
            check.integer(_WHERE, name, getattr(self, name), at_least=1)
        for name in ("seed", "workers"):
            check.integer(_WHERE, name, getattr(self, name))
        if self.validate_every is not None:
            check.integer(_WHERE, "validate_every", self.validate_every, at_least=1)
        check.integer(_WHERE, "ignore_index", self.ignore_index, at_most=255)
        for name in ("rate", "gamma", "power", "classifier_factor", "crf_rate", "input_unit"):
            check.positive(_WHERE, name, getattr(self, name))
        check.between(_WHERE, "momentum", self.momentum, zero=True)
        check.non_negative(_WHERE, "weight_decay", self.weight_decay)
        check.choice(_WHERE, "schedule", self.schedule, SCHEDULES)
        check.flag(_WHERE, "mirror", self.mirror)
        _check_names("frozen", self.frozen)
        if self.classifier is not None:
            _check_names("classifier", self.classifier)
        _check_device(self.device)


def _check_names(option: str, names: object) -> None:
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise check.mistyped(
            _WHERE, f"{option} is {check.show(names)}; expected a tuple of names of modules"
        )


def _check_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except (RuntimeError, TypeError):
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise check.invalid(_WHERE, f"device is {check.show(name)}; expected 'cpu' or 'cuda'")
    if kind == "cuda" and not torch.cuda.is_available():
        raise check.invalid(
            _WHERE,
            f"device is {check.show(name)}, but PyTorch finds no such device; expected 'cpu'",
        )
