# SPDX-License-Identifier: MIT
"""pydensecrf's public interface: ``densecrf``, ``utils`` and ``eigen``.

Names, shapes, axis order, signs and normalisations are those of pydensecrf, with the lattices and
the mean field of this library behind them. What crashed there is an exception here.
"""
