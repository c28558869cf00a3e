# SPDX-License-Identifier: MIT
"""pydensecrf's enumerations, under all their names."""

from enum import IntEnum


class KernelType(IntEnum):
    """Which parameters a kernel has: none, one per feature, a full matrix."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """With n = K 1: K itself; K n^-1; n^-1 K; n^-1/2 K n^-1/2."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType
