# SPDX-License-Identifier: MIT
"""The size of a problem so small that everything can be tried on it: ``image`` and ``probs``."""

C, H, W = 4, 9, 14
