# SPDX-License-Identifier: MIT
"""torchvision's segmentation models: dictionaries, whose "out" are logits of the input's size."""

from collections.abc import Mapping
from typing import Any

from crfseg import _check as check

from ._tensors import picture, refined

_WHERE = "adapters.torchvision.refine"


def refine(output: Any, images: Any, *, transforms: Any = None, **options: Any) -> Any:
    """Refine the output of a segmentation model.

    Args:
        output: what the model returns, a dictionary whose "out" is (N, C, H, W) logits ("aux" is
            left alone), or that tensor.
        images: with ``transforms`` the batch that the model was given, (N, 3, H, W). Without, the
            photographs, all of one size: tensors with the channels first, PIL pictures or arrays
            (H, W, 3), in a list, or one for all. Logits are stretched to them.
        transforms: ``weights.transforms()``, whose ``mean`` and ``std`` are undone.
        options: keywords of ``crfseg.refine``; ``returns`` is "labels" unless given.

    Returns:
        A tensor on the logits' device: labels (N, H, W), or what ``returns`` says.

    Raises:
        TypeError, ValueError: as ``crfseg.refine``, or if there is no "out".
    """
    if isinstance(output, Mapping):
        if "out" not in output:
            found = ", ".join(map(repr, output))
            raise check.invalid(_WHERE, f"output has the keys {found}; expected 'out'")
        output = output["out"]
    if transforms is not None:
        options = {"mean": transforms.mean, "std": transforms.std, **options}
    return refined(output, picture(images), kind="logits", layout="NCHW", **options)
