# SPDX-License-Identifier: MIT
"""Words what is wrong with arguments taken together: shapes, layouts, terms, the machine.

Every function returns the exception, for the caller to raise. ``where`` is the public name that was
called, ``name`` the argument.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ._check import invalid, is_path, mistyped, options, show

MOST_DIMENSIONS = 16
MOST_LABELS = 2**20
STRONGEST = 1e8  # of weights: beyond, they drown every unary, and float32 differences with them


# --- plain values ---------------------------------------------------------------------------------


def wrong_variable(where: str, name: str, found: str, low: int, high: int) -> ValueError:
    """An environment variable that does not hold a number in its range."""
    return invalid(
        where, f"environment variable {name} is {found!r}; expected a number from {low} to {high}"
    )


def wrong_size_variable(where: str, name: str, found: str) -> ValueError:
    """An environment variable that does not hold a number of bytes."""
    return invalid(
        where,
        f"environment variable {name} is {found!r}; expected a number of bytes, or of K, M or G",
    )


def sigma_count(where: str, name: str, found: int, expected: int, axes: str) -> ValueError:
    """Sigmas given one by one, but not one per axis."""
    return invalid(
        where, f"{name} has {found} entries; expected one number, or {expected}, one per {axes}"
    )


# --- what an argument is --------------------------------------------------------------------------


def not_an_array(where: str, name: str, value: Any, reason: object = None) -> TypeError:
    """No array can be made of it."""
    why = f" ({reason})" if reason else ""
    hint = " (Image.open opens a picture, np.load a .npy file)" if is_path(value) else ""
    return mistyped(
        where,
        f"{name} is {show(value)} ({type(value).__name__}), which is not an array{why}; expected "
        f"a numpy array, a torch CPU tensor, or anything with __array__ or __dlpack__{hint}",
    )


def on_a_device(where: str, name: str, device: object) -> ValueError:
    """The values are on an accelerator."""
    return invalid(
        where, f"{name} is on device {device}; expected it in CPU memory ({name}.cpu() copies it)"
    )


def masked_array(where: str, name: str) -> TypeError:
    """The mask of a numpy masked array would be lost without a word."""
    return mistyped(
        where, f"{name} is a masked array; expected a plain array (fill its holes with .filled())"
    )


def wrong_dtype(where: str, name: str, dtype: object, expected: str) -> TypeError:
    """The elements are of a kind that the argument cannot be."""
    return mistyped(where, f"{name} has dtype {dtype}; expected {expected}")


def wrong_shape(where: str, name: str, shape: Sequence[int], expected: str) -> ValueError:
    """The number or the lengths of the axes do not fit."""
    return invalid(where, f"{name} has shape {tuple(shape)}; expected {expected}")


def empty(where: str, name: str, shape: Sequence[int]) -> ValueError:
    """There is nothing in it."""
    return invalid(where, f"{name} is empty (shape {tuple(shape)}); expected at least one element")


def no_labels(where: str, name: str, shape: Sequence[int]) -> ValueError:
    """The label axis has length 0."""
    return invalid(where, f"{name} has 0 labels (shape {tuple(shape)}); expected at least 1")


def too_many_labels(where: str, name: str, shape: Sequence[int], n_labels: int) -> ValueError:
    """More than the native core counts; such an axis is rather one of pixels."""
    return invalid(
        where,
        f"{name} has {n_labels} labels (shape {tuple(shape)}); expected at most {MOST_LABELS}",
    )


def wrong_mode(where: str, name: str, mode: str) -> ValueError:
    """A Pillow picture whose channels are not grey, nor red, green and blue."""
    reasons = {
        "P": "a palette picture, whose values are no colours",
        "1": "black and white alone",
        "HSV": "whose hue is an angle",
    }
    if mode == "PA" or mode.endswith(("A", "a")):
        reasons[mode] = "with transparency (alpha), which is no colour"
    reason = f", {reasons[mode]}" if mode in reasons else ""
    wanted = "L" if mode in ("1", "LA", "La") else "RGB"
    return invalid(
        where,
        f"{name} is a Pillow picture of mode {mode!r}{reason}; "
        f"expected {name.rsplit(maxsplit=1)[-1]}.convert({wanted!r})",
    )


def only_for_labels(where: str, name: str, value: Any, kind: str) -> ValueError:
    """A keyword that would be ignored without a word."""
    return invalid(
        where, f"{name} is {show(value)} but x holds {kind}; expected {name} with labels alone"
    )


def nothing_but_ignored(where: str, n_labels: int | None) -> ValueError:
    """No label is left to choose from."""
    found = "every point is ignored" if n_labels is None else f"n_labels is {n_labels}, all ignored"
    return invalid(where, f"{found}; expected at least one label that is not ignore_index")


# --- sizes, layouts, upsampling -------------------------------------------------------------------


def wrong_axes(where: str, shape: Sequence[int], kind: str, layouts: Iterable[str]) -> ValueError:
    """The number of axes is one that this kind of input never has."""
    if kind == "mask":  # whose label axis has length 1, if it has one
        layouts = [layout.replace("C", "1") for layout in layouts]
    named = " or ".join(f"({', '.join(layout)})" for layout in layouts)
    hint = ""
    if kind in ("probs", "logits") and len(shape) == 2:
        hint = "; a foreground probability (H, W) needs kind='mask', labels an integer dtype"
    return invalid(where, f"x has shape {tuple(shape)} and kind '{kind}'; expected {named}{hint}")


def ambiguous_layout(
    where: str, shape: Sequence[int], layouts: Sequence[str], *, has_image: bool = True
) -> ValueError:
    """More than one layout fits, so the caller must say which."""
    where_not = "" if has_image else " where no image's size decides"
    return invalid(
        where,
        f"x has shape {tuple(shape)}, which fits more than one layout{where_not}; "
        f"expected layout={options(layouts)}",
    )


def mismatched_sizes(
    where: str, shape: Sequence[int], layout: str, size: Sequence[int]
) -> ValueError:
    """The sizes of x and image differ in a way that no upsampling explains."""
    height, width = shape[layout.index("H")], shape[layout.index("W")]
    return invalid(
        where,
        f"x has shape {tuple(shape)} but image is {size[0]} x {size[1]}; "
        f"expected an image of shape ({height}, {width}, 3)",
    )


def swapped_sizes(where: str, shape: Sequence[int], layout: str, size: Sequence[int]) -> ValueError:
    """The scores would fit, or lead to the image by a whole stride, the other way round."""
    other = dict(zip(layout, shape, strict=True))
    other["H"], other["W"] = other["W"], other["H"]
    return invalid(
        where,
        f"x has shape {tuple(shape)} but image is {size[0]} x {size[1]}; "
        f"expected {tuple(other[axis] for axis in layout)}: height and width look swapped",
    )


def swapped_arguments(where: str, x: Any, image: Any) -> ValueError:
    """A picture came first and scores second."""
    return invalid(
        where,
        f"x is {x.dtype} of shape {x.shape}, like a picture, and image is {image.dtype}, like "
        f"scores or labels: x and image look swapped; expected {where}(x, image), the scores first",
    )


def channels_first(where: str, shape: Sequence[int], name: str, image: Sequence[int]) -> ValueError:
    """The image's last two axes are those that fit."""
    channels, height, width = image
    is_volume = len(shape) == 4 and channels not in (1, 3, 4)
    volume = ", or layout='CDHW' for a volume" if is_volume else ""
    return invalid(
        where,
        f"x has shape {tuple(shape)} but {name} has shape {tuple(image)} and looks channels-first; "
        f"expected (H, W, channels), here ({height}, {width}, {channels}){volume}",
    )


def grey_batch(where: str, shape: Sequence[int], image: Sequence[int]) -> ValueError:
    """One grey image for every item, which reads as one image of many channels."""
    volume = ", or layout='DHW' for a volume" if tuple(shape) == tuple(image) else ""
    return invalid(
        where,
        f"x has shape {tuple(shape)} and image has shape {tuple(image)}, like a batch of grey "
        f"images without channels; expected shape {(*image, 1)}: image[..., None]{volume}",
    )


def other_layout(
    where: str, shape: Sequence[int], layout: str, other: str, size: Sequence[int]
) -> ValueError:
    """The layout that was given does not fit, but another one does."""
    hint = ""
    if "C" in layout and "C" in other:
        hint = f" (the label axis seems to be {'last' if other[-1] == 'C' else 'before H and W'})"
    return invalid(
        where,
        f"x has shape {tuple(shape)}, layout is '{layout}' and image is {size[0]} x {size[1]}; "
        f"expected layout='{other}'{hint}",
    )


def unclear_stride(
    where: str,
    shape: Sequence[int],
    size: Sequence[int],
    layouts: Sequence[str],
    *,
    fits_both: bool,
) -> ValueError:
    """upsample='auto' found no way, or two ways, to lay the scores over the image."""
    found = "both alignments fit" if fits_both else "no whole stride leads from one to the other"
    layout = f", and layout={options(layouts)}" if len(layouts) > 1 else ""
    return invalid(
        where,
        f"x has shape {tuple(shape)} and image is {size[0]} x {size[1]}: {found}; expected "
        "upsample='half-pixel' (corners of pixels aligned) or 'align-corners' (centres of corner "
        f"pixels aligned){layout}; or scores of the image's size",
    )


def not_upsampled(where: str, shape: Sequence[int], kind: str, size: Sequence[int]) -> ValueError:
    """Labels and hard masks have no values in between."""
    reason = "labels are not upsampled, only scores are"
    if kind == "mask":
        reason = "hard masks are not upsampled, only float foreground probabilities are"
    return invalid(
        where,
        f"x has shape {tuple(shape)} and kind '{kind}' but image is {size[0]} x {size[1]}; "
        f"expected the same height and width ({reason})",
    )


def wrong_batch(where: str, n_items: int, n_images: int) -> ValueError:
    """Neither one image for all nor one per item."""
    alone = "" if n_items == 1 else ", or a single one that is in no list, for all"
    return invalid(
        where,
        f"x has {n_items} item{'s' * (n_items != 1)} but image has {n_images}; "
        f"expected {n_items} image{'s' * (n_items != 1)}{alone}",
    )


# --- pairwise terms -------------------------------------------------------------------------------


def not_a_term(where: str, index: int | None, value: Any) -> TypeError:
    """Something else where a pairwise term should be."""
    name = "pairwise" if index is None else f"pairwise[{index}]"
    what = "a list of terms" if index is None else "a term"
    return mistyped(
        where,
        f"{name} is {show(value)} ({type(value).__name__}); "
        f"expected {what}: Gaussian, Bilateral or Features",
    )


def two_models(where: str, name: str) -> ValueError:
    """pairwise= and spatial= or bilateral= in one call."""
    return invalid(
        where,
        f"pairwise replaces spatial and bilateral, but {name} was given as well; expected one",
    )


def scaled_terms(where: str, scale: float) -> ValueError:
    """scale= beside pairwise=, whose sigmas it does not know to be of positions."""
    return invalid(
        where,
        f"scale is {show(scale)} but pairwise was given; expected terms with sigmas of that scale",
    )


def missing_image(where: str) -> ValueError:
    """A bilateral term without an image."""
    without = ", or bilateral=None for no such term" if where == "refine" else ""
    return invalid(
        where, f"image is None but the Bilateral term needs one; expected an image{without}"
    )


def range_without_image(where: str, image_range: Any) -> ValueError:
    """A range that no image of this term has."""
    return invalid(
        where,
        f"image_range is {show(image_range)} but image is None; expected an image of the term's "
        "own, or image_range in the call of refine",
    )


def too_many_dimensions(where: str, name: str, dim: int, shape: Sequence[int] = ()) -> ValueError:
    """The lattice would have more axes than it is built for."""
    hint = f": {name}.T" if len(shape) == 2 and shape[0] <= MOST_DIMENSIONS else ""
    return invalid(
        where, f"{name} has {dim} feature dimensions; expected at most {MOST_DIMENSIONS}{hint}"
    )


def sigma_too_small(where: str, name: str, sigma: float, axis: str, reach: float) -> ValueError:
    """In units of this sigma the features lie further out than exact lattice keys reach."""
    return invalid(
        where,
        f"{name} = {show(sigma)} is too small: along {axis} features reach {reach:.3g} sigmas, "
        "further than exact lattice keys hold; expected a larger sigma",
    )


def wide_features(where: str, name: str, reach: float) -> ValueError:
    """Like ``sigma_too_small``, for features that the caller has divided already."""
    return invalid(
        where,
        f"{name} reaches {reach:.3g} sigmas, further than exact lattice keys hold; "
        "expected features divided by larger sigmas, or nearer to 0",
    )


def non_finite_feature(where: str, name: str, point: int, value: float) -> ValueError:
    """NaN or infinity found while the lattice was built."""
    return invalid(where, f"{name} is {show(value)} at point {point}; expected finite values")


def too_strong(where: str, term: str, found: float) -> ValueError:
    """A weight so large that nothing else counts."""
    what = f"{term} weight times compatibility is {found:.3g}"
    return invalid(where, f"{what}; expected at most {STRONGEST:.0e}")


def wrong_solver(where: str, solver: Any, names: Sequence[str]) -> TypeError:
    """Neither a solver nor the name of one."""
    return mistyped(
        where,
        f"solver is {show(solver)} ({type(solver).__name__}); expected MeanField, FrankWolfe,"
        f" {options(names)}",
    )


def wrong_compatibility(where: str, found: str, n_labels: int) -> ValueError:
    """Not one entry per label, or per pair of labels."""
    return invalid(
        where,
        f"compatibility {found}; expected Potts(weight), shape ({n_labels},) or "
        f"({n_labels}, {n_labels}) for {n_labels} labels",
    )


# --- gradients ---------------------------------------------------------------------------------


def no_gradient(where: str, name: str) -> ValueError:
    """Autograd follows a tensor that would get no gradient."""
    return invalid(
        where,
        f"{name} requires a gradient, which it does not get here; expected {name}.detach(), or "
        "crfseg.torch, whose layer learns it",
    )


def not_differentiated(where: str, found: str, expected: str) -> ValueError:
    """An option that inference has and its gradient has not."""
    return invalid(where, f"x requires a gradient but {found}; expected {expected}")


# --- the machine ----------------------------------------------------------------------------------


def too_big(where: str, what: str, needed: int, available: int) -> MemoryError:
    """Refused before anything is touched."""
    return MemoryError(
        f"[{where}] {what} needs about {needed / 2**30:.1f} GiB; "
        f"expected at most the {available / 2**30:.1f} GiB that this machine can give"
    )


def out_of_memory(where: str, what: str) -> MemoryError:
    """The machine gave less than was asked of it."""
    return MemoryError(
        f"[{where}] {what} ran out of memory; expected fewer points, fewer labels or larger sigmas"
    )
