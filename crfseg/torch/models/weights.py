# SPDX-License-Identifier: MIT
"""Published weights from files of yours: whatever the names, every shape is checked.

Nothing is fetched, and no code of a file is run: PyTorch's files are read as weights alone, numpy's
without pickles.
"""

import math
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from crfseg import _check as check
from crfseg.torch import _arguments as arguments

from ._names import caffe_names, unwrapped
from .deeplab_v1 import DeepLabV1
from .vgg16 import decimate

# What torch.load and numpy.load raise for files of something else.
UNREADABLE: Final = (
    pickle.UnpicklingError, AttributeError, BadZipFile, EOFError, LookupError, RuntimeError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
_CONTAINERS: Final = ("state_dict", "model_state_dict", "model")
_PREPROCESSING: Final = ("caffe", "torchvision")
# Layers that see the image itself.
_FIRST: Final = ("conv1_1", "data_conv")
_IMAGENET: Final = re.compile(r"(conv\d_\d|fc[67])\.(weight|bias)")
_MEAN: Final = (0.485, 0.456, 0.406)  # torchvision's: red, green, blue
_DEVIATION: Final = (0.229, 0.224, 0.225)


class _Entry(NamedTuple):
    key: str  # as the file has it
    value: Tensor


def load_weights(model: nn.Module, path: str | Path, *, preprocessing: str = "caffe") -> None:
    """Load trained weights of just this network, under any of the names that they are public by.

    These are: a ``state_dict`` of the network itself; Caffe's names, as in conversions of the
    authors' models (``fc8_voc12`` and the like count as ``fc8``); ``features.N``; ``block_K.convJ``
    with ``conv6`` to ``conv8``; torchvision's ``vgg16``, whose fully connected layers are reshaped.

    Args:
        model: receives them; unchanged if they do not fit.
        path: of a .pth or .pt file, or of an .npz of arrays in Caffe's axis order under such names.
        preprocessing: what the weights were trained with: "caffe", BGR levels less their means, as
            the networks take them, for which nothing is changed; or "torchvision", RGB in 0..1,
            normalised: the first layer is changed to do the same to BGR levels less the network's
            means (``to_caffe_input``).

    Raises:
        ValueError: if the file is no file of weights, lacks an entry, has one of another shape, or
            one that no layer takes; the sentence names the first.
    """
    where = "load_weights"
    arguments.module(where, "model", model)
    check.choice(where, "preprocessing", preprocessing, _PREPROCESSING)
    file = _read(where, path)
    wanted = dict(model.state_dict())
    if wanted.keys() == {unwrapped(key) for key in file}:
        names = {name: name for name in wanted}
        found = {unwrapped(key): _Entry(key, value) for key, value in file.items()}
    else:
        names = caffe_names(wanted)
        if len(set(names.values())) < len(names):
            names = {name: name for name in wanted}  # a network without Caffe's names
        found = _less_constants(where, path, _by_caffe_name(where, path, file), model)
    if preprocessing == "torchvision":
        found = _bridged(found, model)
    chosen = {}
    for name, parameter in wanted.items():
        chosen[name] = _fitting(where, path, names[name], found, parameter)
    unknown = found.keys() - set(names.values())
    for name, entry in found.items():
        if name in unknown:
            raise check.invalid(
                where,
                f"{path} has {entry.key} of shape {tuple(entry.value.shape)}, which no layer of "
                "the network takes",
            )
    _copy(wanted, chosen)


def load_imagenet_weights(
    model: nn.Module, path: str | Path, *, preprocessing: str = "caffe"
) -> None:
    """Begin with VGG-16 as trained on ImageNet: all of conv1_1 to fc7 that the network has.

    For torchvision's ``vgg16`` say ``preprocessing="torchvision"``; ``vgg16_20M`` and Caffe's own
    have "caffe". Fully connected layers are reshaped and, where the network has fewer units or
    smaller kernels, decimated (``decimate``). The layers behind stay as they are.

    Args:
        model: receives them; unchanged if they do not fit.
        path: as for ``load_weights``, under the same names.
        preprocessing: as for ``load_weights``.

    Raises:
        ValueError: if the file is no file of weights, lacks an entry, or has one of another shape;
            the sentence names the first.
    """
    where = "load_imagenet_weights"
    arguments.module(where, "model", model)
    check.choice(where, "preprocessing", preprocessing, _PREPROCESSING)
    found = _by_caffe_name(where, path, _read(where, path))
    if preprocessing == "torchvision":
        found = _bridged(found, model)
    state = dict(model.state_dict())
    names = {own: name for own, name in caffe_names(state).items() if _IMAGENET.fullmatch(name)}
    if not names:
        raise check.invalid(
            where, "model has no layer of VGG-16; expected conv1_1 and those after it"
        )
    chosen = {}
    for own, name in names.items():
        entry = found.get(name)
        if entry and name.startswith("fc"):
            found[name] = _Entry(entry.key, _decimated(entry.value, state[own].shape))
        chosen[own] = _fitting(where, path, name, found, state[own])
    _copy(state, chosen)


def to_caffe_input(
    weight: Tensor, bias: Tensor, means: Sequence[float] = DeepLabV1.means
) -> tuple[Tensor, Tensor]:
    """A first layer for torchvision's input, turned into one for BGR levels less their means.

    With x = (rgb / 255 - m) / s and y = bgr - mean, W x + b = W' y + b' has W' = W / (255 s), its
    channels reversed, and b' = b + sum W (mean / 255 - m) / s. Exact but for the padded border, for
    a 0 of padding stands for m there and for Caffe's mean here.

    Args:
        weight: (n, 3, height, width), over red, green and blue.
        bias: (n,).
        means: of the network's blue, green and red.

    Returns:
        W', over blue, green and red, and b'.
    """
    where = "to_caffe_input"
    fits = arguments.tensor(where, "weight", weight).ndim == 4 and weight.shape[1] == 3
    arguments.shape(where, "weight", weight, fits, "(n, 3, height, width)")
    fits = arguments.tensor(where, "bias", bias).shape == weight.shape[:1]
    arguments.shape(where, "bias", bias, fits, f"({len(weight)},)")
    mean, deviation = weight.new_tensor(_MEAN), weight.new_tensor(_DEVIATION)
    caffe_mean = weight.new_tensor(means).flip(0)
    scaled = weight / deviation[:, None, None]
    shift = caffe_mean / 255 - mean
    moved = bias + (scaled * shift[:, None, None]).sum(dim=(1, 2, 3))
    return (scaled / 255).flip(1), moved


def _read(where: str, path: str | Path) -> dict[str, Tensor]:
    if not isinstance(path, str | PathLike):
        raise check.mistyped(
            where,
            f"path is of type {type(path).__name__}; expected the name of a file "
            "(model.load_state_dict() takes a state dict)",
        )
    try:
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        expected = (
            "an archive of arrays, as numpy.savez() writes"
            if Path(path).suffix == ".npz"
            else "a state dict, as torch.save(model.state_dict(), path) writes, no pickled model"
        )
        raise check.invalid(
            where, f"{path} cannot be read as weights alone; expected {expected}"
        ) from error
    return _state(where, path, content)


def _state(where: str, path: str | Path, content: Any) -> dict[str, Tensor]:
    for name in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise check.invalid(
            where, f"{path} holds {check.show(content)}; expected a state dict, names and tensors"
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise check.invalid(
                where,
                f"{path} has {check.show(value)} at {check.show(key)}; expected names and tensors",
            )
    return dict(content)


def _by_caffe_name(where: str, path: str | Path, file: Mapping[str, Tensor]) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for key, name in caffe_names(file).items():
        if name in found:
            raise check.invalid(
                where, f"{path} has both {found[name].key} and {key}; expected one {name}"
            )
        found[name] = _Entry(key, file[key])
    return found


def _less_constants(
    where: str, path: str | Path, found: dict[str, _Entry], model: nn.Module
) -> dict[str, _Entry]:
    """Without the weights that the network has as numbers: those of Caffe's Scale layers."""
    constants: Mapping[str, float] = getattr(model, "constants", {})
    for name in constants.keys() & found.keys():
        low, high = (float(bound) for bound in found[name].value.double().aminmax())
        if not (math.isclose(low, high) and math.isclose(low, constants[name], rel_tol=1e-6)):
            raise check.invalid(
                where,
                f"{path} has {found[name].key} from {low:.7g} to {high:.7g}; expected "
                f"{constants[name]} everywhere",
            )
    return {name: entry for name, entry in found.items() if name not in constants}


def _bridged(found: dict[str, _Entry], model: nn.Module) -> dict[str, _Entry]:
    """With the layers that see the image changed to the network's own input."""
    means = getattr(model, "means", DeepLabV1.means)
    result = dict(found)
    for layer in _FIRST:
        weight, bias = (found.get(f"{layer}.{part}") for part in ("weight", "bias"))
        if weight and bias and weight.value.ndim == 4 and weight.value.shape[1] == 3:
            moved = to_caffe_input(weight.value, bias.value, means)
            result[f"{layer}.weight"] = _Entry(weight.key, moved[0])
            result[f"{layer}.bias"] = _Entry(bias.key, moved[1])
    return result


def _fitting(
    where: str, path: str | Path, name: str, found: Mapping[str, _Entry], parameter: Tensor
) -> Tensor:
    """The entry in the shape of the parameter."""
    shape = tuple(parameter.shape)
    if name not in found:
        raise check.invalid(where, f"{path} has no {name}; expected one of shape {shape}")
    entry = found[name]
    value = _reshaped(entry.value, shape)
    if tuple(value.shape) != shape:
        called = name if entry.key == name else f"{entry.key} (which is {name})"
        raise check.invalid(
            where, f"{path} has {called} of shape {tuple(value.shape)}; expected {shape}"
        )
    return value


def _reshaped(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Matrices as kernels, and Caffe's 1 x 1 x 1 x n biases as vectors; anything else as it is."""
    is_matrix = value.ndim == 2 and len(shape) == 4 and value.shape[0] == shape[0]
    is_vector = len(shape) == 1 and value.ndim > 1
    fits = value.numel() == math.prod(shape)
    return value.reshape(shape) if fits and (is_matrix or is_vector) else value


def _decimated(value: Tensor, shape: torch.Size) -> Tensor:
    """A fully connected layer of VGG-16, made as small as the network's if it is larger."""
    if value.ndim == 2 and len(shape) == 4:
        kernel = 1 if shape[-1] == 1 else math.isqrt(value.shape[1] // shape[1])
        value = _reshaped(value, (len(value), value.shape[1] // kernel**2, kernel, kernel))
    is_larger = value.ndim == len(shape) and all(
        n >= m for n, m in zip(value.shape, shape, strict=True)
    )
    return decimate(value, shape) if is_larger else value


@torch.no_grad()
def _copy(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
