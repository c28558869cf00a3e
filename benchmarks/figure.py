# SPDX-License-Identifier: MIT
"""The roofline as SVG: what the machine allows at an arithmetic intensity, and what was reached."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 30, 60
STYLE = "font-family='sans-serif' font-size='13'"


class Axes(NamedTuple):
    """Logarithmic axes: FLOP per byte along x, GFLOP/s along y."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = math.log(value / self.x_low) / math.log(self.x_high / self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = math.log(value / self.y_low) / math.log(self.y_high / self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' {style}/>"


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {STYLE} {style}>{words}</text>"


def powers(low: float, high: float, base: int) -> Iterator[float]:
    """Powers of ``base`` between two numbers, for the ticks."""
    first, last = math.ceil(math.log(low, base)), math.floor(math.log(high, base))
    return (float(base) ** exponent for exponent in range(first, last + 1))


def grid(axes: Axes) -> Iterator[str]:
    """Ticks, their numbers and what the axes are."""
    thin = "stroke='#ddd'"
    for value in powers(axes.x_low, axes.x_high, 2):
        x = axes.x(value)
        yield line(x, TOP, x, HEIGHT - BOTTOM, thin)
        yield text(x, HEIGHT - BOTTOM + 18, f"{value:g}", "text-anchor='middle'")
    for value in powers(axes.y_low, axes.y_high, 2):
        y = axes.y(value)
        yield line(LEFT, y, WIDTH - RIGHT, y, thin)
        yield text(LEFT - 8, y + 4, f"{value:g}", "text-anchor='end'")
    yield text(WIDTH / 2, HEIGHT - 16, "floating-point operations per byte", "text-anchor='middle'")
    yield text(LEFT - 45, TOP - 12, "GFLOP/s")


def roofs(axes: Axes, peaks: Mapping[str, float], bandwidths: Mapping[str, float]) -> Iterator[str]:
    """Flat peaks, and slopes up to the highest, one for every memory; names stand on them."""
    drawn = "stroke='#36c' stroke-width='2'"
    for name, peak in peaks.items():
        ridge = max(axes.x_low, peak / max(bandwidths.values()))
        yield line(axes.x(ridge), axes.y(peak), WIDTH - RIGHT, axes.y(peak), drawn)
        yield text(WIDTH - RIGHT, axes.y(peak) - 8, name, "text-anchor='end'")
    for name, bandwidth in bandwidths.items():
        start = max(axes.x_low, axes.y_low / bandwidth)
        end = min(max(peaks.values()) / bandwidth, axes.x_high)
        x1, y1 = axes.x(start), axes.y(start * bandwidth)
        x2, y2 = axes.x(end), axes.y(end * bandwidth)
        yield line(x1, y1, x2, y2, drawn)
        turned = math.degrees(math.atan2(y2 - y1, x2 - x1))
        x, y = x1 + 0.12 * (x2 - x1), y1 + 0.12 * (y2 - y1) - 6
        yield text(x, y, name, f"transform='rotate({turned:.1f} {x:.1f} {y:.1f})'")


def roofline(
    peaks: Mapping[str, float],
    bandwidths: Mapping[str, float],
    intensity: float,
    reachable: float,
    points: Mapping[str, float],
) -> str:
    """The figure; all in GFLOP/s and GB/s. ``reachable`` is the peak of the mix of operations."""
    values = [*peaks.values(), *points.values()]
    axes = Axes(0.125, 64, min(4.0, min(values) / 2), 2 * max(values))
    x, y = axes.x(intensity), axes.y(reachable)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}'>",
        "<rect width='100%' height='100%' fill='white'/>",
        *grid(axes),
        *roofs(axes, peaks, bandwidths),
        line(
            x - 45, axes.y(reachable), x + 45, axes.y(reachable), "stroke='#c60' stroke-width='2'"
        ),
        text(x + 50, y + 4, "this mix of operations"),
    ]
    for name, value in points.items():
        parts.append(f"<circle cx='{x:.1f}' cy='{axes.y(value):.1f}' r='5' fill='#c30'/>")
        words = f"{name}: {value:.0f} GFLOP/s"
        parts.append(text(x, axes.y(value) + 22, words, "text-anchor='middle'"))
    return "\n".join([*parts, "</svg>\n"])
