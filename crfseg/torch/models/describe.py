# SPDX-License-Identifier: MIT
"""describe(): receptive field, stride and output size of every layer of a network.

Nothing is looked up: the network runs on the meta device, where it takes no time and no memory, and
what each layer depends on is followed through it.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from crfseg import _check as check
from crfseg.torch import _arguments as arguments

from ._fields import Field, Watch

_WHERE: Final = "describe"
_ROOM: Final = 4096  # added to the size, so that the middle's fields do not reach the borders
_STEP: Final = 32  # points that every stretching factor divides
_SILENT: Final = (nn.ReLU, nn.Dropout, nn.Identity, nn.BatchNorm2d)


class Layer(NamedTuple):
    """One row of the table."""

    name: str
    kind: str
    channels: int
    receptive_field: int  # pixels along one axis that a point depends on
    stride: float  # pixels of the image from point to point
    size: tuple[int, int]


class Description(NamedTuple):
    """The table: ``print`` it, or look into it."""

    layers: tuple[Layer, ...]
    parameters: int

    @property
    def output(self) -> Layer:
        """What the network gives."""
        return self.layers[-1]

    def __str__(self) -> str:
        rows = [["layer", "kind", "channels", "receptive field", "stride", "output"]]
        rows += [
            [name, kind, str(channels), str(field), f"{stride:g}", f"{size[0]} x {size[1]}"]
            for name, kind, channels, field, stride, size in self.layers
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), f"{self.parameters:,} parameters"])


def describe(model: nn.Module, size: int | tuple[int, int], *, in_channels: int = 3) -> Description:
    """The layers of a network: ``print(describe(deeplab_v1(), 321))``.

    Receptive fields are exact: the pixels that a point far from the borders can depend on, whatever
    the weights. Activations, normalisation and dropout have no rows of their own. The last row,
    ``output``, is what ``forward`` returns.

    Args:
        model: a network of this package, or any made of convolutions, pools, unpooling with 2 x 2
            windows, crops and whatever works on points one by one.
        size: of the image, (height, width) or one number for both.
        in_channels: of the image.

    Returns:
        ``Description``: ``layers``, ``parameters`` (their number), ``output``.

    Raises:
        TypeError: if ``model`` is no network, or a size no integer.
        ValueError: if the network takes no image of this size.
    """
    arguments.module(_WHERE, "model", model)
    channels = check.integer(_WHERE, "in_channels", in_channels, at_least=1)
    sides = (size, size)
    if isinstance(size, tuple):
        sides = check.parts(_WHERE, "size", size, ("height", "width"))
    height, width = (check.integer(_WHERE, "size", side, at_least=1) for side in sides)
    sizes = _run(model, (channels, height, width))
    fields = _run(model, (channels, height, width + _ROOM))
    layers = [
        Layer(name, kind, shape[1], *_extent(field), (shape[2], shape[3]))
        for (name, kind, shape, _), (_, _, _, field) in zip(sizes, fields, strict=True)
    ]
    return Description(tuple(layers), sum(p.numel() for p in model.parameters()))


class _Seen(NamedTuple):
    name: str
    kind: str
    shape: torch.Size
    field: Field


def _run(model: nn.Module, shape: tuple[int, ...]) -> list[_Seen]:
    """What every layer gives, in the order in which they run."""
    seen: list[_Seen] = []
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    image = torch.empty(1, *shape, dtype=dtype, device="meta")
    state = {name: torch.empty_like(t, device="meta") for name, t in _state(model).items()}
    watch = Watch(image)

    def note(name: str, kind: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            field = watch.field(tensor)
            if field is not None:
                seen.append(_Seen(name, kind, tensor.shape, field))

        return hook

    hooks = [
        layer.register_forward_hook(note(name, _kind(layer)))
        for name, layer in model.named_modules()
        if not any(layer.children()) and not isinstance(layer, _SILENT)
    ]
    try:
        with torch.no_grad(), watch:
            scores: Tensor = functional_call(model, state, (image,))
        note("output", "")(model, (), scores)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise check.invalid(
            _WHERE, f"model takes no image of shape {tuple(image.shape)} ({reason})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _kind(layer: nn.Module) -> str:
    """``conv 3x3, dilation 2``."""
    words = {nn.Conv2d: "conv", nn.ConvTranspose2d: "transposed conv", nn.MaxPool2d: "max pool",
             nn.AvgPool2d: "average pool", nn.MaxUnpool2d: "unpool"}  # fmt: skip
    name = words.get(type(layer), type(layer).__name__)
    kernel, stride, dilation = (
        _first(getattr(layer, part, 1)) for part in ("kernel_size", "stride", "dilation")
    )
    text = f"{name} {kernel}x{kernel}"
    text += f", stride {stride}" if stride > 1 else ""
    return text + (f", dilation {dilation}" if dilation > 1 else "")


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def _extent(field: Field) -> tuple[int, float]:
    """Receptive field and stride in the middle of a row."""
    n = field.shape[1]
    first, last = field[:, n // 4 : n - n // 4]
    receptive = int((last - first).max()) + 1
    middles = (first + last) / 2
    stride = float(np.median(middles[_STEP:] - middles[:-_STEP])) / _STEP
    return receptive, stride
