# SPDX-License-Identifier: MIT
"""benchmarks/quality.py on a made-up set: regions and scores by hand, rows against the library.

Each script has a Python of its own, because benchmarks/ has file names that tests/ has too.
"""

import importlib.util
from pathlib import Path

import pytest

from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks"),
    pytest.mark.skipif(
        not (importlib.util.find_spec("scipy") and importlib.util.find_spec("PIL")),
        reason="needs scipy and pillow",
    ),
]

BY_HAND = """
import quality, volumes

target = np.array([[0, 0, 0, 0, 1, 1, 1, 255]], np.uint8)
masks = quality.regions(target)
assert masks.pop("") is None
assert {name: np.flatnonzero(mask[0]).tolist() for name, mask in masks.items()} == {
    "_1": [2, 3, 4, 5], "_2": [1, 2, 3, 4, 5, 6], "_4": list(range(8)), "_8": list(range(8)),
    "_seam": list(range(8)),  # void is taken for the first class: 6 and 7 are seeds, too
}
far = np.repeat(np.array([0, 1, 255], np.uint8), (9, 9, 9))[None]
assert np.flatnonzero(quality.regions(far)["_seam"]).tolist() == list(range(4, 23))
near = np.repeat(np.array([1, 0, 255], np.uint8), (9, 9, 9))[None]
assert np.flatnonzero(quality.regions(near)["_seam"]).tolist() == list(range(4, 14))
square = np.zeros((9, 9), np.uint8)
square[0, 0] = 1  # sees (0, 1) and (1, 0), and not (1, 1)
band = quality.regions(square)["_1"]
assert set(map(tuple, np.argwhere(band).tolist())) == {
    (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)
}

meter = quality.Meter(3)
meter.add(np.array([[0, 0, 0, 1, 1, 1, 1, 2]]), target, quality.regions(target), 0.5)
found = meter.scores()
assert found.keys() >= {"miou", "accuracy", "miou_8", "accuracy_1", "seam_accuracy", "ms"}
assert found["ms"] == 500
assert abs(found["miou"] - 100 * (3 / 4 + 3 / 4) / 2) < 1e-9  # the third class occurs nowhere
assert abs(found["accuracy"] - 100 * 6 / 7) < 1e-9
assert abs(found["accuracy_1"] - 75) < 1e-9
assert abs(found["miou_1"] - 100 * (1 / 2 + 2 / 3) / 2) < 1e-9

corner = np.zeros((3, 3, 4), np.uint8)
corner[1, 1, 1] = 4
faces = {(1, 1, 1), (0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)}
assert set(map(tuple, np.argwhere(volumes.boundaries(corner)).tolist())) == faces
both = np.array([[1, 4, 2, 0]], np.uint8), np.array([[1, 2, 4, 0]], np.uint8)
assert volumes.dice(*both) == {"whole": 100, "core": 50, "enhancing": 0}
"""

ROWS = """
from PIL import Image
from pathlib import Path
import quality
from crfseg import refine
from crfseg.metrics import Confusion

rng = np.random.default_rng(0)
data = Path({folder!r})
for name in ("images", "labels", "logits"):
    (data / "camvid" / name).mkdir(parents=True)
names = ["a", "b", "c"]
(data / "camvid/val.txt").write_text("\\n".join(names))
scores = rng.normal(0, 3, (3, 4, 5, 6)).astype(np.float16)
np.save(data / "camvid/logits/val.npy", scores)
for name in names:
    picture = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (5, 6)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    labels[7] = 255
    Image.fromarray(picture).save(data / f"camvid/images/{{name}}.jpg")
    Image.fromarray(labels).save(data / f"camvid/labels/{{name}}.png")

quality.LIBRARIES = ("crfseg fast", "crfseg fine")  # the peer may be missing
rows = list(quality.measured("camvid", data, 2))
assert all((row.set, row.images) == ("camvid", 2) for row in rows)
assert len(rows) == 2 + 2 * 4
by_hand = dict.fromkeys(("none", "default"))
for way in by_hand:
    counts = Confusion(4)
    for item in quality.SETS["camvid"](data, 2):
        assert np.allclose(item.probs.sum(0), 1, atol=1e-5) and item.probs.shape == (4, 40, 48)
        labels = item.probs.argmax(0)
        if way == "default":
            labels = refine(item.probs, item.image, returns="labels")
        counts.add(labels, item.target)
    by_hand[way] = 100 * counts.mean_iou("skip"), 100 * counts.pixel_accuracy()
found = {{row.parameters: (row.miou, row.accuracy) for row in rows}}
for way, expected in by_hand.items():
    assert np.allclose(found[way], expected), (way, found[way], expected)
assert by_hand["none"] != by_hand["default"]
custom = {{row.contender: row for row in rows if row.parameters == "3/3+80/13/10"}}
assert custom.keys() == {{"crfseg", "crfseg fine"}} and custom["crfseg"].iterations == 10
assert all(0 <= row.miou_1 <= 100 and row.seam_accuracy > 0 for row in rows)
# Scores of stride 8 are stretched with half-pixel centres: cell 0 is centred on pixel 3.5.
item = next(quality.SETS["camvid"](data, 1))
first = np.log(item.probs[:, :2, 0] / item.probs[0, :2, 0])
expected = scores[0, :, 0, 0] - scores[0, 0, 0, 0]
assert np.allclose(first.T, expected.astype(np.float32), atol=1e-3)
"""


def run(body: str, **given: str) -> None:
    begin = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\nimport numpy as np\n"
    run_script(begin + (body.format(**given) if given else body))


def test_regions_and_scores_are_those_counted_by_hand() -> None:
    run(BY_HAND)


def test_rows_are_what_the_library_gives(tmp_path: Path) -> None:
    run(ROWS, folder=str(tmp_path))
