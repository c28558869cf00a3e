# SPDX-License-Identifier: MIT
"""Problems of 160 x 120 pixels, small enough for the exact model: whole photographs and pieces."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cases import Problem, real_cases
from photos import Photo, crop, fit, load_photo
from scores import STRIDE, probabilities, synthetic_scores

HEIGHT, WIDTH = 120, 160
N_LABELS, N_LIVE, CONFIDENCE = 21, 6, 0.93
BUNDLED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")
FROM_FOLDER = ("china", "dog", "dogs", "shelf", "truck")


def synthetic(image: Photo) -> Problem:
    """Scores as in the timed cases."""
    scores = synthetic_scores(image, N_LABELS, N_LIVE, CONFIDENCE, seed=7)
    return Problem(probabilities(scores, HEIGHT, WIDTH), image)


def centre_piece(problem: Problem) -> Problem:
    """The middle 160 x 120 pixels, from a multiple of the stride on."""
    _, height, width = problem.probs.shape
    top, left = (height - HEIGHT) // 2 // STRIDE * STRIDE, (width - WIDTH) // 2 // STRIDE * STRIDE
    rows, columns = slice(top, top + HEIGHT), slice(left, left + WIDTH)
    probs, image = problem.probs[:, rows, columns], problem.image[rows, columns]
    return Problem(np.ascontiguousarray(probs), np.ascontiguousarray(image))


def small_problems(data: Path | None = None) -> Iterator[tuple[str, Problem]]:
    """Every photograph whole, reduced, and its middle at the resolution of 500 x 375.

    With a data folder also its photographs, and the middles of images with real network outputs.
    """
    folder = data / "photos" if data else None
    for name in (*BUNDLED, *(FROM_FOLDER if data else ())):
        photo = load_photo(name, folder if name in FROM_FOLDER else None)
        yield f"{name} whole", synthetic(fit(photo, HEIGHT, WIDTH))
        yield f"{name} piece", synthetic(crop(fit(photo, 375, 500), HEIGHT, WIDTH))
    for case in real_cases(data) if data else ():
        yield f"{case.name} piece", centre_piece(case.load())
