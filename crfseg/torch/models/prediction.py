# SPDX-License-Identifier: MIT
"""From a picture to labels: preprocessing, network, softmax and dense CRF in one call."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import crfseg
from crfseg import _check as check
from crfseg import _fault as fault
from crfseg.torch import _arguments as arguments

from ._levels import check_levels
from ._refinement import checked_refinement

_WHERE: Final = "predict"
_EXPECTED: Final = (
    "an RGB picture: a PIL image of mode RGB, a uint8 array (H, W, 3), or a tensor (3, H, W) of "
    "levels 0..255"
)
_RETURNS: Final = ("labels", "probs")
_TERMS: Final = ("spatial", "bilateral")


class Predictor(nn.Module):
    """A network of Caffe's time: it takes BGR levels less their means."""

    means: ClassVar[tuple[float, float, float]]  # of blue, green and red

    @property
    def crf_parameters(self) -> Mapping[str, Any] | None:
        """What ``crfseg.refine`` is called with; None where the network is published without."""
        return None

    def full_scores(self, image: Tensor) -> Tensor:
        """Scores before softmax at every pixel of preprocessed images, (N, num_classes, H, W)."""
        scores: Tensor = self(image)
        return scores

    def preprocess(self, levels: Tensor) -> Tensor:
        """What the network takes: RGB levels 0..255, (N, 3, H, W), to BGR less their means.

        Raises:
            TypeError: if they are no tensor.
            ValueError: if they are no such levels: normalised, or floats in 0..1.
        """
        where = "preprocess"
        arguments.any_tensor(where, "levels", levels)
        fits = levels.ndim == 4 and levels.shape[1] == 3
        arguments.shape(where, "levels", levels, fits, "(N, 3, H, W)")
        check_levels(where, "levels", levels)
        parameter = next(self.parameters())
        bgr = levels.to(parameter.device, parameter.dtype).flip(1)
        return bgr - bgr.new_tensor(self.means)[:, None, None]

    def predict(
        self,
        image: Any,
        *,
        crf: bool | Mapping[str, Any] | None = None,
        returns: str = "labels",
    ) -> Any:
        """Segment one picture of any size.

        The network runs in evaluation mode on the device of its parameters; its mode is as before
        afterwards. Scores are stretched to the picture before softmax. The CRF runs on the CPU.

        Args:
            image: PIL image of mode RGB, uint8 array (H, W, 3) in RGB, or tensor (3, H, W) of
                uint8 or floats in RGB, with levels 0..255.
            crf: True for a CRF with ``crf_parameters`` (where there are none, with the defaults of
                ``crfseg.refine``), False for none. A mapping holds arguments of ``crfseg.refine``
                that go before those; ``pairwise`` takes the place of their terms, ``preset`` that
                of all. None for True if there are ``crf_parameters``, else False.
            returns: "labels", (H, W) integers, uint8 up to 256 classes; or "probs", (num_classes,
                H, W) float32.

        Returns:
            A tensor on the picture's device if it is a tensor, else a numpy array.

        Raises:
            TypeError: if it is no such picture, or ``crf`` names no argument of refine.
            ValueError: if its shape or levels are not as expected, or a value in ``crf``.
        """
        check.choice(_WHERE, "returns", returns, _RETURNS)
        parameters = self._chosen(crf, returns)
        picture = _read(image)
        probs = self._probabilities(picture.levels)
        if parameters is not None:
            image_range = (0.0, 255.0) if picture.levels.is_floating_point() else None
            options = {"image_range": image_range, **parameters}
            pixels = picture.levels.permute(1, 2, 0).numpy()
            result = crfseg.refine(
                probs, pixels, kind="probs", layout="CHW", returns=returns, **options
            )
        else:
            result = probs if returns == "probs" else _labels(probs)
        device = picture.device
        return result if device is None else torch.from_numpy(result).to(device)

    def _chosen(self, crf: Any, returns: str) -> Mapping[str, Any] | None:
        """Arguments of refine; None for no CRF."""
        published = self.crf_parameters
        if crf is None:
            return published
        if isinstance(crf, bool):
            return (published or {}) if crf else None
        if not isinstance(crf, Mapping):
            raise check.mistyped(
                _WHERE,
                f"crf is {check.show(crf)} ({type(crf).__name__}); expected True, False, None or a "
                "mapping of arguments of refine",
            )
        kept = {} if crf.get("preset") is not None else dict(published or {})
        if crf.get("pairwise") is not None:
            kept = {name: value for name, value in kept.items() if name not in _TERMS}
        return checked_refinement(_WHERE, "crf", {**kept, **crf}, returns)

    @torch.no_grad()
    def _probabilities(self, levels: Tensor) -> NDArray[np.float32]:
        was_training = self.training
        self.eval()
        try:
            scores = self.full_scores(self.preprocess(levels[None]))[0]
        finally:
            self.train(was_training)
        return scores.float().softmax(0).cpu().numpy()


class _Picture(NamedTuple):
    """RGB levels, (3, H, W), in CPU memory, and where they came from if that was a tensor."""

    levels: Tensor
    device: torch.device | None


def _read(image: Any) -> _Picture:
    if isinstance(image, Tensor):
        return _Picture(_read_tensor(image), image.device)
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and mode != "RGB":
        raise check.invalid(
            _WHERE, f"image has mode {mode}; expected RGB (image.convert('RGB') makes it)"
        )
    if mode is None and not isinstance(image, np.ndarray):
        raise check.mistyped(
            _WHERE, f"image is {check.show(image)} ({type(image).__name__}); expected {_EXPECTED}"
        )
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise fault.wrong_dtype(_WHERE, "image", array.dtype, _EXPECTED)
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise fault.wrong_shape(_WHERE, "image", array.shape, "(H, W, 3)")
    return _Picture(torch.from_numpy(array.copy()).permute(2, 0, 1), None)


def _read_tensor(image: Tensor) -> Tensor:
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise fault.wrong_dtype(_WHERE, "image", image.dtype, "uint8 or floats, levels 0..255")
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise fault.wrong_shape(_WHERE, "image", tuple(image.shape), "(3, H, W)")
    levels = image.detach().cpu()
    if levels.is_floating_point():
        levels = levels.float()
        check_levels(_WHERE, "image", levels)
    return levels


def _labels(probs: NDArray[np.float32]) -> NDArray[Any]:
    """As refine gives them."""
    return probs.argmax(0).astype(np.uint8 if len(probs) <= 256 else np.int32)
