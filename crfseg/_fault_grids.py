# SPDX-License-Identifier: MIT
"""Words what is wrong with volumes, their channels and points, as `_fault` does with images."""

from collections.abc import Sequence
from typing import Any

from ._check import invalid, mistyped, options, show
from ._fault import MOST_DIMENSIONS


def contrary_layouts(where: str, layout: str, image_layout: str) -> ValueError:
    """One of them has an axis D and the other has not."""
    return invalid(
        where,
        f"layout is {layout!r} and image_layout is {image_layout!r}; expected both with D, for "
        "volumes, or both without, for images",
    )


def fits_no_volume(
    where: str, shape: Sequence[int], image: Sequence[int], layout: str | None
) -> ValueError:
    """There is no volume of one size in x and image."""
    known = "(C, D, H, W), (D, H, W, C), or labels (D, H, W)"
    wanted = f"({', '.join(layout)})" if layout is not None else known
    if not image:
        return invalid(where, f"x has shape {tuple(shape)}; expected {wanted} with an image")
    return invalid(
        where,
        f"x has shape {tuple(shape)} and image has shape {tuple(image)}; expected x {wanted}, and "
        "an image (D, H, W), (D, H, W, K) or (K, D, H, W) of the same D, H and W, K <= "
        f"{MOST_DIMENSIONS - len('DHW')} (volumes are not upsampled)",
    )


def image_or_volume(
    where: str, shape: Sequence[int], image: Sequence[int], layout: str
) -> ValueError:
    """What fits a volume fits a batch of images just as well."""
    other = layout.replace("NDHW", "NHW").replace("DHW", "NHW")
    if "C" in layout:
        other = "NCHW" if layout[0] in "CN" else "NHWC"
    return invalid(
        where,
        f"x has shape {tuple(shape)} and image has shape {tuple(image)}, like a volume and like a "
        f"batch of images; expected layout={options((layout, other))}",
    )


def ambiguous_image_layout(where: str, shape: Sequence[int], layouts: Sequence[str]) -> ValueError:
    """More than one order of the image's axes fits."""
    return invalid(
        where,
        f"image has shape {tuple(shape)}, which fits more than one layout; "
        f"expected image_layout={options(layouts)}",
    )


def only_for_images(where: str, name: str, value: Any) -> ValueError:
    """An option that volumes do not have."""
    return invalid(where, f"{name} is {show(value)} but x is a volume; expected {name} with images")


def range_count(where: str, name: str, found: int, n_channels: int) -> ValueError:
    """Ranges given channel by channel, but not one per channel."""
    return invalid(
        where,
        f"image_range has {found} pairs but {name} has {n_channels} channels; expected one "
        f"(lo, hi), or {n_channels}, one per channel",
    )


# --- points ---------------------------------------------------------------------------------------


def given_by_terms(where: str, name: str, value: Any) -> ValueError:
    """A keyword beside terms that say it themselves."""
    return invalid(
        where, f"{name} is {show(value)} but features are terms, which have {name} of their own"
    )


def not_features(where: str, features: Any) -> TypeError:
    """Terms that need a grid, or one that is in no list."""
    return mistyped(
        where,
        f"features is {show(features)} ({type(features).__name__}); expected an (N, d) array, or a "
        "list of Features terms",
    )


def missing_sigmas(where: str) -> ValueError:
    """Nobody but the caller knows in which units features are."""
    return invalid(
        where,
        "sigmas is None; expected one positive number, or one per feature (1 if they are "
        "divided already)",
    )


def no_points(where: str, shape: Sequence[int], kind: str, *, is_soft: bool) -> ValueError:
    """The number of axes is one that points do not have."""
    wanted = "(N, C)" if is_soft else "(N,)"
    hint = ""
    if is_soft and len(shape) == 1:
        hint = "; a foreground probability (N,) needs kind='mask', labels an integer dtype"
    return invalid(where, f"x has shape {tuple(shape)} and kind '{kind}'; expected {wanted}{hint}")


def other_points(where: str, shape: Sequence[int], n_points: int) -> ValueError:
    """There are as many points as features, but not as many in x."""
    is_turned = len(shape) == 2 and shape[1] == n_points
    wanted = f"({n_points}, C): x.T" if is_turned else f"{n_points} of them"
    return invalid(
        where,
        f"x has shape {tuple(shape)} but features are of {n_points} points; expected {wanted}",
    )
