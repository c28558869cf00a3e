# SPDX-License-Identifier: MIT
"""The command on a data set against the core alone: ``python benchmarks/bench_run.py``.

Images of VOC's size with 21 labels: JPEGs and score files go in, palette PNGs come out. The core
refines the same arrays, which lie in memory, in the faster of two ways: image after image with all
threads inside each, or in batches, images side by side. Both keep memory between calls. The command
is a process of its own, whose start, reading, writing and manifest are part of its time. Core and
command take turns, and the ratio is taken within a round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import crfseg
from crfseg.io import read_image, read_labels, write_labels
from photos import BUNDLED, Photo, bundled_photo, fit
from scores import probabilities, synthetic_scores
from table import median, read_machine

BAR = 0.85
HEIGHT, WIDTH, LABELS, LIVE, CONFIDENCE = 375, 500, 21, 6, 0.93
CACHE = 256 << 20
FORMS = {
    "coarse-npy": "stride-8 float16 logits in .npy",
    "coarse-npz": "stride-8 float16 logits in compressed .npz",
    "full-npy": "full-size float16 probabilities in .npy",
    "full-png": "full-size label maps in palette .png",
}


class Sample(NamedTuple):
    """What ``refine`` gets of an image."""

    x: NDArray[Any]
    image: Photo


class Round(NamedTuple):
    """Images in a second."""

    core: float
    command: float


def make_scores(image: Photo, form: str, seed: int) -> NDArray[Any]:
    """Scores of this form for a photograph."""
    scores = synthetic_scores(image, LABELS, LIVE, CONFIDENCE, seed)
    if form.startswith("coarse"):
        return scores.astype(np.float16)
    probs = probabilities(scores, HEIGHT, WIDTH)
    return probs.argmax(0).astype(np.uint8) if form == "full-png" else probs.astype(np.float16)


def write_scores(path: Path, x: NDArray[Any], form: str) -> None:
    """A file of this form; ``path`` has no suffix."""
    if form.endswith("npz"):
        np.savez_compressed(path.with_suffix(".npz"), x)
    elif form.endswith("png"):
        write_labels(path.with_suffix(".png"), x)
    else:
        np.save(path.with_suffix(".npy"), x)


def make_data(folder: Path, form: str, n_images: int) -> list[Sample]:
    """Write the data set: twelve photographs and their scores, over and over."""
    (folder / "images").mkdir()
    (folder / "scores").mkdir()
    samples = []
    for i in range(min(n_images, 2 * len(BUNDLED))):
        photo = fit(bundled_photo(BUNDLED[i // 2]), HEIGHT, WIDTH)
        photo = photo[:, ::-1] if i % 2 else photo
        Image.fromarray(photo).save(folder / "images" / f"{i:05}.jpg", quality=92)
        image = read_image(folder / "images" / f"{i:05}.jpg")  # with the losses of JPEG
        samples.append(Sample(make_scores(image, form, i), image))
    for i in range(n_images):
        source = folder / "images" / f"{i % len(samples):05}.jpg"
        (folder / "images" / f"{i:05}.jpg").write_bytes(source.read_bytes())
        write_scores(folder / "scores" / f"{i:05}", samples[i % len(samples)].x, form)
    return samples


def options_of(form: str) -> dict[str, str]:
    """Of ``refine``, for scores of this form."""
    if form.startswith("coarse"):
        return {"kind": "logits", "layout": "CHW", "upsample": "half-pixel"}
    return {"kind": "labels" if form == "full-png" else "probs"}


def core_calls(samples: Sequence[Sample], form: str) -> dict[str, list[tuple[Any, Any, str]]]:
    """Arguments of ``refine``, and the layout, for either way to refine them all."""
    axes = "" if form == "full-png" else "C"
    alone = [(one.x, one.image, f"{axes}HW") for one in samples]
    batch = (np.stack([one.x for one in samples]), [one.image for one in samples], f"N{axes}HW")
    return {"one by one": alone, "in batches": [batch]}


def core_rate(calls: Sequence[tuple[Any, Any, str]], form: str, n_images: int) -> float:
    """Images in a second, of ``n_images`` or somewhat more."""
    done = 0
    start = time.perf_counter()
    while done < n_images:
        for x, image, layout in calls:
            crfseg.refine(x, image, returns="labels", **{**options_of(form), "layout": layout})
            done += 1 if layout[0] != "N" else len(x)
    return done / (time.perf_counter() - start)


def command_rate(folder: Path, form: str, n_images: int, threads: int) -> float:
    """Images in a second, of the whole process."""
    words = [sys.executable, "-I", "-m", "crfseg", "run", "--quiet", "--threads", str(threads)]
    for name in ("images", "scores", "out"):
        words += [f"--{name}", str(folder / name)]
    for name, value in options_of(form).items():
        words += [f"--{name}", value]
    start = time.perf_counter()
    subprocess.run(words, check=True)
    return n_images / (time.perf_counter() - start)


def check_answers(folder: Path, samples: Sequence[Sample], form: str) -> None:
    """The files hold the core's labels."""
    for i, sample in enumerate(samples):
        expected = crfseg.refine(*sample, returns="labels", **options_of(form))
        if (read_labels(folder / "out" / f"{i:05}.png").labels != expected).any():
            sys.exit(f"[bench] {i:05}.png differs from what refine returns")


def measure(form: str, n_images: int, n_rounds: int, threads: int) -> float:
    """Print a line for each round; the median ratio."""
    crfseg.set_num_threads(threads)
    crfseg.set_cache_limit(CACHE)
    with tempfile.TemporaryDirectory(prefix="crfseg-bench-") as name:
        folder = Path(name)
        samples = make_data(folder, form, n_images)
        ways = core_calls(samples, form)
        rounds = []
        for _ in range(n_rounds):
            cores = {way: core_rate(calls, form, n_images) for way, calls in ways.items()}
            rounds.append(Round(max(cores.values()), command_rate(folder, form, n_images, threads)))
            told = ", ".join(f"{way} {rate:.1f}" for way, rate in cores.items())
            found = rounds[-1]
            print(
                f"  images/s: core {told}; command {found.command:.1f}, "
                f"{found.command / found.core:.1%} of the core",
                flush=True,
            )
        check_answers(folder, samples, form)
    return median([one.command / one.core for one in rounds])


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000, help="files (default %(default)s)")
    parser.add_argument("--form", nargs="+", choices=FORMS, default=list(FORMS)[:1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    print(read_machine())
    missed = []
    for form in args.form:
        print(
            f"# {args.images} images of {WIDTH} x {HEIGHT} with {LABELS} labels, {FORMS[form]}, "
            f"JPEG in, palette PNG out, {args.threads} threads",
            flush=True,
        )
        ratio = measure(form, args.images, args.rounds, args.threads)
        print(f"{form}: {ratio:.1%} of the core's images/s, {'met' if ratio >= BAR else 'MISSED'}")
        missed += [form] if ratio < BAR else []
    if missed:
        sys.exit(f"[bench] below {BAR:.0%}: {', '.join(missed)}")


if __name__ == "__main__":
    main()
