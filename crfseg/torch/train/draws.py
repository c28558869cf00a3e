# SPDX-License-Identifier: MIT
"""Random crops: draw number k is the same whoever makes it and whatever was drawn before.

Order, place and mirroring follow from the seed and the number alone, so a run goes on in the middle
of an epoch without drawing again what came before, and worker processes change nothing.
"""

from collections.abc import Sequence, Sized
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg.torch import _arguments as arguments
from crfseg.torch.models._levels import check_levels

from .options import Options

_ORDER, _CROP = 0, 1  # what a generator is for
_MEAN: Final = (123, 117, 104)  # RGB, of ImageNet, to a level: what networks see as 0


class Sample(NamedTuple):
    """A picture, (3, H, W) RGB levels, with its labels, (H, W); or a batch of them."""

    levels: Tensor
    labels: Tensor


class SampleSource(Sized, Protocol):
    """What pictures come from: a sequence of ``Sample``, or of (levels, labels)."""

    def __getitem__(self, index: int, /) -> Any:
        """Picture and labels, tensors of uint8 or floats and of integers."""


class Draws(Dataset[Any]):
    """Crops without end: every picture once in an epoch, in an order of its own."""

    def __init__(self, source: SampleSource, options: Options) -> None:
        self._source, self._options = source, options
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, number: int) -> Sample | Exception:
        """Draw a crop; a bad file comes as the error, for loaders would wrap it in tracebacks."""
        epoch, place = divmod(number, len(self._source))
        rng = np.random.default_rng((self._options.seed, _CROP, number))
        try:
            sample = opened(self._source, int(self._permutation(epoch)[place]))
        except (OSError, TypeError, ValueError, ImportError) as error:
            return error
        return drawn(sample, self._options, rng)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            rng = np.random.default_rng((self._options.seed, _ORDER, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self._source))
        return self._order


def opened(source: SampleSource, index: int) -> Sample:
    """A picture with its labels.

    Raises:
        TypeError: if these are no tensors, or labels no integers.
        ValueError: if levels are not in 0..255, or have another size than the labels.
    """
    sample = Sample(*source[index])
    name = f"source[{index}]"
    for part, tensor in zip(("levels", "labels"), sample, strict=True):
        arguments.any_tensor("fit", f"{name} {part}", tensor)
    if sample.labels.is_floating_point():
        raise fault.wrong_dtype("fit", f"{name} labels", sample.labels.dtype, "integers")
    if sample.levels.ndim != 3 or len(sample.levels) != 3:
        raise fault.wrong_shape("fit", f"{name} levels", sample.levels.shape, "(3, H, W)")
    if sample.labels.shape != sample.levels.shape[1:]:
        expected = f"{tuple(sample.levels.shape[1:])}, that of the levels"
        raise fault.wrong_shape("fit", f"{name} labels", sample.labels.shape, expected)
    check_levels("fit", f"{name} levels", sample.levels)
    return sample


def check_classes(labels: Tensor, n_classes: int, ignore_index: int) -> None:
    """Every label that counts is one of the network's classes.

    Raises:
        ValueError: if not.
    """
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= n_classes))
    if wrong.any():
        raise check.invalid(
            "fit",
            f"source has label {int(labels[wrong][0])}; expected 0 to {n_classes - 1}, for the "
            f"network has {n_classes} classes, or {ignore_index} where there is none",
        )


def batches(source: SampleSource, options: Options, first: int) -> DataLoader[Any]:
    """The batches from iteration ``first`` to the last."""
    start, stop = first * options.batch_size, options.iterations * options.batch_size
    return DataLoader(
        Draws(source, options),
        batch_size=options.batch_size,
        sampler=range(start, stop),
        num_workers=options.workers,
        collate_fn=_stacked,
        pin_memory=torch.device(options.device).type == "cuda",
        # Of its own: a loader draws a seed for its workers, which dropout must not notice.
        generator=torch.Generator(),
    )


def drawn(sample: Sample, options: Options, rng: np.random.Generator) -> Sample:
    """A crop at a random place, every other one mirrored; pixels and labels alike."""
    levels, labels = padded(sample, options)
    height, width = labels.shape
    top = int(rng.integers(height - options.crop + 1))
    left = int(rng.integers(width - options.crop + 1))
    is_mirrored = rng.random() < 0.5 and options.mirror
    rows, columns = slice(top, top + options.crop), slice(left, left + options.crop)
    levels, labels = levels[:, rows, columns], labels[rows, columns]
    if is_mirrored:
        levels, labels = levels.flip(-1), labels.flip(-1)
    return Sample(levels, labels.long())


def padded(sample: Sample, options: Options) -> Sample:
    """At least as large as a crop, with the mean and no labels at the bottom and on the right."""
    height, width = sample.labels.shape
    missing = (0, max(options.crop - width, 0), 0, max(options.crop - height, 0))
    if not any(missing):
        return sample
    mean = sample.levels.new_tensor(_MEAN)[:, None, None]
    inside = functional.pad(torch.ones(height, width, dtype=torch.bool), missing)
    levels = torch.where(inside, functional.pad(sample.levels, missing), mean)
    return Sample(levels, functional.pad(sample.labels, missing, value=options.ignore_index))


def _stacked(samples: Sequence[Sample | Exception]) -> Sample | Exception:
    """A batch, or the first error."""
    found: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Exception):
            return sample
        found.append(sample)
    levels, labels = zip(*found, strict=True)
    return Sample(torch.stack(levels), torch.stack(labels))
