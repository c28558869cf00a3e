# SPDX-License-Identifier: MIT
"""MONAI: a dictionary transform, with the spacing of voxels from the affine."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from monai.utils import TransformBackends, convert_to_dst_type

from crfseg import _check as check
from crfseg.refine import refine

__all__ = ["CRFRefined"]

_WHERE = "CRFRefined"
_KINDS = ("probs", "logits", "scores", "labels", "mask")


class CRFRefined(MapTransform):
    """Refine predictions (C, *spatial) by the image (K, *spatial) of the same sample.

    Sigmas of positions are in the unit of the affine, mm as a rule: ``spatial=(2, 3)`` reaches 2 mm
    along every axis. Every channel of the image counts as a colour.

    Args:
        keys: of predictions of one sample, without batch axis.
        image_key: of the image, on the same grid.
        kind: what predictions are: "probs" (after softmax), "logits" (before), "scores" of at least
            0, "mask" (a sigmoid's one channel) or "labels" (one channel, as after argmax).
        spacing: of voxels, one number or one per axis; None takes it from the affine of the image,
            or of the prediction if the image has none, and 1 if neither has one.
        allow_missing_keys: whether samples may lack keys.
        options: keywords of ``crfseg.refine``. Intensities outside 0..1 need ``image_range``.

    Raises:
        TypeError, ValueError: if an argument is not as described; from calls as ``crfseg.refine``.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - as MONAI's are

    def __init__(
        self,
        keys: KeysCollection,
        image_key: Hashable,
        *,
        kind: str = "probs",
        spacing: Any = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.spacing, self.options = image_key, spacing, options
        self.kind = check.choice(_WHERE, "kind", kind, _KINDS)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with refined predictions, whose meta data are kept."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[key] = self._refined(sample[key], sample[self.image_key])
        return sample

    def _refined(self, x: Any, image: Any) -> Any:
        axes = "DHW"[1 - x.ndim :]
        is_labels = self.kind == "labels"
        result = refine(
            _whole(_array(x)[0]) if is_labels else _array(x),
            _array(image),
            kind=self.kind,
            layout=axes if is_labels else f"C{axes}",
            image_layout=f"K{axes}",
            spacing=_spacing(image, x) if self.spacing is None else self.spacing,
            **self.options,
        )
        with_channel = result if result.ndim == x.ndim else result[np.newaxis]
        dtype = x.dtype if is_labels else with_channel.dtype
        return convert_to_dst_type(with_channel, x, dtype=dtype)[0]


def _array(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _whole(labels: Any) -> Any:
    """Labels as integers: MONAI keeps them in floats."""
    whole = labels.astype(np.int32)
    if (whole != labels).any():
        raise check.invalid(_WHERE, "labels are not whole numbers; expected what argmax gives")
    return whole


def _spacing(image: Any, x: Any) -> tuple[float, ...]:
    """The lengths of a voxel along the array's axes."""
    n_axes: int = x.ndim - 1
    for one in (image, x):
        if isinstance(one, MetaTensor):  # a slice has the affine of its volume
            lengths = affine_to_spacing(one.affine, len(one.affine) - 1)
            return tuple(float(length) for length in lengths[:n_axes])
    return (1.0,) * n_axes
