# SPDX-License-Identifier: MIT
"""What one mean-field iteration asks of a processor, counted from the algorithm.

Two kernels, in 2 and in 5 dimensions: a pixel has 3 + 6 corners. Labels come in vectors of 8. Slice
and splat take one multiply-add per corner and vector each; exp, softmax and the unary another 12
operations per vector (a polynomial of degree 5, its scaling, sums, maxima, a division). A pixel's
unary row and its corners (a number and a weight each) are read anew in every iteration; vertices
stay in the caches.
"""

LANES = 8
CORNERS = 3 + 6
OTHER_OPERATIONS = 12
OPERATIONS_PER_CYCLE = 2  # vectors of 8 floats; what AVX2 processors of the last ten years do


def vectors(n_labels: int) -> int:
    """Of 8 labels that hold ``n_labels``, the last one filled up."""
    return -(-n_labels // LANES)


def operations(n_labels: int) -> int:
    """Vector operations per pixel and iteration."""
    return vectors(n_labels) * (2 * CORNERS + OTHER_OPERATIONS)


def floor_cycles(n_labels: int) -> float:
    """Cycles per pixel and iteration that no order of the operations can go below."""
    return operations(n_labels) / OPERATIONS_PER_CYCLE


def flops(n_labels: int) -> int:
    """Floating-point operations per pixel and iteration; a multiply-add is two."""
    return vectors(n_labels) * LANES * (2 * 2 * CORNERS + OTHER_OPERATIONS)


def streamed_bytes(n_labels: int) -> int:
    """Per pixel and iteration: the unary row, then a number (16 bits) and a weight per corner."""
    return 4 * LANES * vectors(n_labels) + 6 * CORNERS


def flops_of_peak(n_labels: int) -> float:
    """The share of the peak that these operations could reach: not all are multiply-adds."""
    return flops(n_labels) / (2 * LANES * operations(n_labels))
