# SPDX-License-Identifier: MIT
"""Stochastic gradient descent, from random weights or from where a run was interrupted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from crfseg import _check as check
from crfseg.torch import _arguments as arguments

from . import checkpoint
from .draws import Sample, SampleSource, batches, check_classes
from .grids import grid
from .networks import device_of, is_centred, network_input
from .options import Options
from .progress import Log
from .rates import freeze, parameter_groups
from .schedules import factor
from .validation import Scores, prepared, summary, validate

_WHERE: Final = "fit"
CHECKPOINT: Final = "checkpoint.pth"
LOG: Final = "log.jsonl"
Event = Mapping[str, Any]


def fit(
    model: nn.Module,
    source: SampleSource,
    options: Options | None = None,
    *,
    folder: str | Path,
    crf: nn.Module | None = None,
    validation: SampleSource | None = None,
    refine: Mapping[str, Any] | None = None,
    resume: bool = False,
    report: Callable[[Event], None] | None = None,
) -> Scores:
    """Train a network, with a CRF layer behind it if one is given.

    On a CPU a run that was interrupted goes on as if it had not been, to the last bit: parameters,
    momentum, schedule, random numbers and the place in the epoch are those of the checkpoint.

    Args:
        model: takes (N, 3, H, W) and gives scores before softmax: of every pixel, or of those over
            which DeepLab's stand, which are compared with the labels there. If it has a method
            ``preprocess``, that makes its input of RGB levels; else that is BGR less the means of
            ImageNet. It is moved to ``options.device``.
        source: pictures and labels, such as ``Pictures``.
        options: None for DeepLab's.
        folder: gets checkpoint.pth and log.jsonl; made if missing.
        crf: ``crfseg.torch.CRF``, trained at a rate of its own. It sees scores stretched to the
            pixels, and levels 0..255; the loss is then that of every pixel. It stays where it is.
        validation: pictures that are not for training.
        refine: arguments of ``crfseg.refine`` for validation, see ``validate``.
        resume: go on with the checkpoint in the folder. Its options and its network must be the
            same; ``iterations`` may change if the schedule does not depend on it.
        report: called with what the log gets, a dict: ``iteration``, ``loss`` and ``rate`` after
            each step; ``iteration`` and ``validation``.

    Returns:
        The last validation's counts, see ``validate``; nothing without ``validation``.

    Raises:
        OSError: if files cannot be read or written, or the folder has a run that is not resumed.
        TypeError: if ``source`` gives no tensors, or ``refine`` names no argument of refine.
        ValueError: if files, levels, labels, scores or a value in ``refine`` are not as expected,
            or the loss is no number any more.
    """
    arguments.module(_WHERE, "model", model)
    options = Options() if options is None else options
    if not isinstance(options, Options):
        raise check.mistyped(_WHERE, f"options is {check.show(options)}; expected Options or None")
    if len(source) == 0:
        raise check.invalid(_WHERE, "source is empty; expected one picture at least")
    if validation is not None:
        prepared(model, validation, refine)  # to fail now, not after hours of training
    path = Path(folder) / CHECKPOINT
    run = _Run(model.to(options.device), crf, options, len(source))
    if resume:
        run.resume(path)
    else:
        run.begin(path)
    log = Log(path.with_name(LOG))

    def tell(event: Event) -> None:
        log.write(event)
        if report is not None:
            report(event)

    def scored() -> Scores:
        if validation is None:
            return {}
        found = validate(
            model, validation, crf=crf, refine=refine, ignore_index=options.ignore_index
        )
        tell({"iteration": run.iteration, "validation": summary(found)})
        return found

    if resume:
        tell({"iteration": run.iteration, "resumed": True})
    for batch in batches(source, options, run.iteration):
        tell(run.step(batch))
        is_last = run.iteration == options.iterations
        if is_last or run.iteration % options.save_every == 0:
            checkpoint.save(path, run.state())
        if not is_last and run.iteration % (options.validate_every or math.inf) == 0:
            scored()
    return scored()


class _Run:
    """All that changes while a network is trained."""

    def __init__(
        self, model: nn.Module, crf: nn.Module | None, options: Options, n_pictures: int
    ) -> None:
        self._model, self._crf = model, crf
        self._options, self._n_pictures = options, n_pictures
        self._still = freeze(model, options.frozen)
        groups = parameter_groups(model, options, crf)
        self._optimizer = torch.optim.SGD(groups, momentum=options.momentum)
        self._device = torch.device(options.device)
        self.iteration = 0

    def begin(self, path: Path) -> None:
        """Where nothing has been trained."""
        if path.exists():
            raise FileExistsError(
                f"{path}: is there already; expected another folder, or resume (--resume) to go on"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self._options.seed)

    def resume(self, path: Path) -> None:
        """Go on with a checkpoint."""
        state = checkpoint.load(path)
        checkpoint.restore(path, "network", self._model, state["model"])
        if self._crf is not None or state["crf"] is not None:
            checkpoint.restore(path, "CRF layer", self._crf or nn.Module(), state["crf"])
        checkpoint.check_same_run(path, state, self._options, self._n_pictures)
        self._optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        torch.set_rng_state(state["rng"])
        if self._device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self._device)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        is_cuda = self._device.type == "cuda"
        return {
            "iteration": self.iteration,
            "model": self._model.state_dict(),
            "crf": None if self._crf is None else self._crf.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "options": {**asdict(self._options), "pictures": self._n_pictures},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._device) if is_cuda else None,
        }

    def step(self, batch: Sample | Exception) -> Event:
        """One iteration."""
        if isinstance(batch, Exception):
            raise batch
        for module in filter(None, (self._model, self._crf)):
            module.train()
        for module in self._still:
            module.eval()
        rate = factor(self._options, self.iteration)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * rate
        self._optimizer.zero_grad()
        loss = self._loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise check.invalid(
                _WHERE,
                f"loss is {value} in iteration {self.iteration + 1}; expected a number "
                "(a smaller rate may help)",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.iteration += 1
        return {"iteration": self.iteration, "loss": value, "rate": self._options.rate * rate}

    def _loss(self, batch: Sample) -> Tensor:
        scores = self._model(network_input(self._model, batch.levels))
        check_classes(batch.labels, scores.shape[1], self._options.ignore_index)
        where = grid(scores, batch.labels, is_centred=is_centred(self._model))
        if self._crf is None:
            labels = where.at_points(batch.labels)
        else:
            labels = where.between(batch.labels)
            device = device_of(self._crf)
            levels = where.between(batch.levels).to(device)
            scores = self._crf(where.stretched(scores).to(device), levels)
        return cross_entropy(scores, labels.to(scores.device), self._options.ignore_index)


def cross_entropy(scores: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Mean over pixels with a label; 0 where there is none."""
    total = functional.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)
