# SPDX-License-Identifier: MIT
"""Draws what each parameter does to the demo's photograph: docs/pictures/*.jpg (make pictures).

Every picture changes one parameter, from left to right, and leaves the others at PLAIN. Above each
panel stands the value, and the share of the photograph's pixels that have another label than the
scores alone give them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crfseg import refine
from crfseg.demo import CLASSES, load
from crfseg.overlay import overlay

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
REGION = np.s_[0:256, 110:366]  # hair, face and collar
GAP, CAPTION, TEXT_SIZE = 6, 24, 14
QUALITY = 82
# The defaults, but without holding what is thin: sigmas are what is shown.
PLAIN: dict[str, Any] = {"spatial": (3, 6), "bilateral": (30, 13, 10), "keep_thin": 0}


class Panel(NamedTuple):
    """A value of the parameter, and the call that has it."""

    caption: str
    options: dict[str, Any]


def bilateral(caption: str, *term: float) -> Panel:
    return Panel(caption, {"bilateral": term})


SHEETS = {
    "sigma_xy": [bilateral(f"sigma_xy {s}", s, 13, 10) for s in (5, 30, 120)],
    "sigma_rgb": [bilateral(f"sigma_rgb {s}", 30, s, 10) for s in (3, 13, 60)],
    "weight": [bilateral(f"weight {w}", 30, 13, w) for w in (1, 10, 40)],
    "spatial": [
        Panel(f"spatial ({s}, {w}) alone", {"spatial": (s, w), "bilateral": None})
        for s, w in ((1, 3), (3, 6), (10, 30))
    ],
    "iterations": [Panel(f"iterations {n}", {"iterations": n}) for n in (1, 3, 10)],
}


def labels_of(options: dict[str, Any]) -> NDArray[Any]:
    photo, scores = load()
    found: NDArray[Any] = refine(
        scores, photo, kind="logits", returns="labels", **{**PLAIN, **options}
    )
    return found


def tiles(panels: list[Panel]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The scores alone, then every panel: caption and picture."""
    photo, _ = load()
    before = labels_of({"iterations": 0})
    colours = list(CLASSES.values())
    yield "scores alone", overlay(photo[REGION], before[REGION], colours, opacity=0.4)
    for panel in panels:
        after = labels_of(panel.options)
        changed = f"{panel.caption}: {np.mean(after != before):.1%} changed"
        yield changed, overlay(photo[REGION], after[REGION], colours, opacity=0.4)


def sheet(panels: list[Panel]) -> Image.Image:
    drawn = list(tiles(panels))
    height, width = drawn[0][1].shape[:2]
    picture = Image.new(
        "RGB", (len(drawn) * (width + GAP) - GAP, height + CAPTION), (255, 255, 255)
    )
    font = ImageFont.load_default(size=TEXT_SIZE)
    for column, (caption, tile) in enumerate(drawn):
        left = column * (width + GAP)
        place = (left, CAPTION // 2)
        ImageDraw.Draw(picture).text(place, caption, fill=(20, 20, 20), font=font, anchor="lm")
        picture.paste(Image.fromarray(tile), (left, CAPTION))
        print(f"  {caption}")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder (default %(default)s)")
    out: Path = parser.parse_args().out
    for name, panels in SHEETS.items():
        path = out / f"{name}.jpg"
        print(path.name)
        sheet(panels).save(path, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
