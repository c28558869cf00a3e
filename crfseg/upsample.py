# SPDX-License-Identifier: MIT
"""Bilinear upsampling of low-resolution scores to the image: which of two alignments.

``half-pixel`` aligns the outer corners of the corner pixels (a stride s gives s * n pixels), as
``align_corners=False`` does in torch. ``align-corners`` aligns their centres (s * (n - 1) + 1
pixels), as networks of the DeepLab family with inputs of 8 k + 1 pixels do.
"""

CHOICES = ("auto", "half-pixel", "align-corners", False)

Size = tuple[int, ...]  # height and width


def alignments(scores: Size, image: Size) -> list[str]:
    """The alignments under which one whole stride of 2 or more leads from scores to image."""
    cells = [(scores[0], image[0]), (scores[1], image[1])]
    gaps = [(small - 1, large - 1) for small, large in cells]
    fits = {"half-pixel": _one_stride(cells), "align-corners": _one_stride(gaps)}
    return [alignment for alignment, fit in fits.items() if fit]


def _one_stride(pairs: list[tuple[int, int]]) -> bool:
    stride = max(large // small if small else 0 for small, large in pairs)
    return stride >= 2 and all(stride * small == large for small, large in pairs)
