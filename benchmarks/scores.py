# SPDX-License-Identifier: MIT
"""Class scores as a network gives them: one cell per 8 x 8 pixels, confident, not sharp.

The regions come from the photograph itself (k-means of colour and position on the cells), so that
they follow its edges about as well as a network's do: to within a cell or so, with wobbling
boundaries, a few labels competing in each place and all others near zero. One factor on the scores
is then chosen so that the mean over pixels of the largest probability is what the case states.
"""

import numpy as np
from numpy.typing import NDArray

from photos import Photo

Floats = NDArray[np.float32]
STRIDE = 8
TAIL = 0.45


def cell_means(image: Photo) -> Floats:
    """(h, w, 3) mean colours of the 8 x 8 cells; the border is repeated to fill the last ones."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    cells = padded.reshape(padded.shape[0] // STRIDE, STRIDE, padded.shape[1] // STRIDE, STRIDE, 3)
    means: Floats = cells.mean((1, 3), dtype=np.float32)
    return means


def smooth_field(shape: tuple[int, ...], cells: float, rng: np.random.Generator) -> Floats:
    """(..., h, w) Gaussian random field, unit variance, correlated over about ``cells`` cells."""
    noise = rng.standard_normal(shape)
    fy, fx = np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1])[None]
    lowpass = np.exp(-2 * (np.pi * cells) ** 2 * (fy**2 + fx**2))
    field = np.fft.ifft2(np.fft.fft2(noise) * lowpass).real
    return np.asarray(field / field.std(axis=(-2, -1), keepdims=True), np.float32)


def cluster(features: Floats, n_clusters: int, rng: np.random.Generator) -> Floats:
    """(N, n_clusters) squared distances to the centres of k-means (k-means++ start, 15 steps)."""
    centres = features[[rng.integers(len(features))]]
    while len(centres) < n_clusters:
        distance = ((features[:, None] - centres) ** 2).sum(2).min(1).astype(np.float64)
        chosen = rng.choice(len(features), p=distance / distance.sum())
        centres = np.concatenate([centres, features[[chosen]]])
    for _ in range(15):
        nearest = ((features[:, None] - centres) ** 2).sum(2).argmin(1)
        for k in np.unique(nearest):
            centres[k] = features[nearest == k].mean(0)
    distances: Floats = ((features[:, None] - centres) ** 2).sum(2)
    return distances


def region_scores(image: Photo, n_regions: int, rng: np.random.Generator) -> Floats:
    """(n_regions, h, w) scores: 0 where a region is likely, about -5 where it is not."""
    colours = cell_means(image) / 60.0
    height, width = colours.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32) * (4.0 / max(height, width))
    # The position wobbles so that region boundaries stray from the photograph's edges.
    size = max(height, width) / 40.0
    wobble = 0.15 * smooth_field((2, height, width), 1.5 * size, rng)
    features = np.dstack([colours, y + wobble[0], x + wobble[1]]).reshape(height * width, 5)
    distances = cluster(np.asarray(features, np.float32), n_regions, rng).T
    scores = -np.sqrt(distances).reshape(n_regions, height, width)
    return np.asarray(scores + 0.25 * smooth_field(scores.shape, size, rng), np.float32)


def class_scores(image: Photo, n_labels: int, n_live: int, rng: np.random.Generator) -> Floats:
    """(C, h, w) scores of which ``n_live`` labels own regions; the others stay well below them."""
    # Fewer labels than regions would make a dull map: give every label at least two regions then.
    n_regions = max(n_live, 4)
    regions = region_scores(image, n_regions, rng)
    scores = smooth_field((n_labels, *regions.shape[1:]), 3.0, rng) * np.float32(0.5)
    scores += regions.max(0) - 3.0
    live = rng.permutation(n_labels)[:n_live]
    for index, label in enumerate(live):
        scores[label] = regions[index::n_live].max(0)
    # Networks leave a tail of small probabilities: large gaps count for less than in proportion.
    best = scores.max(0)
    return np.asarray(best - (best - scores) ** TAIL, np.float32)


def softmax(scores: Floats) -> Floats:
    """Softmax over the first axis."""
    q: Floats = np.exp(scores - scores.max(0))
    q /= q.sum(0)
    return q


def interpolation(n_cells: int, size: int) -> Floats:
    """(size, n_cells) half-pixel bilinear upsampling by the stride, cut off at ``size``."""
    position = np.clip((np.arange(size) + 0.5) / STRIDE - 0.5, 0, n_cells - 1)
    distance = np.abs(position[:, None] - np.arange(n_cells))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


def upsample(scores: Floats, height: int, width: int) -> Floats:
    """(C, h, w) -> (C, height, width), bilinear; cell i covers the pixels [8i, 8i + 8)."""
    rows, columns = interpolation(scores.shape[1], height), interpolation(scores.shape[2], width)
    return np.asarray(rows @ scores @ columns.T, np.float32)


def calibrated(scores: Floats, height: int, width: int, confidence: float) -> Floats:
    """``scores`` times the factor that makes the mean largest probability ``confidence``."""
    full = upsample(scores, height, width)[:, ::4, ::4]  # a 16th of the pixels gives the mean well
    low, high = 0.1, 100.0
    for _ in range(20):
        middle = float(np.sqrt(low * high))
        too_soft = softmax(full * np.float32(middle)).max(0).mean() < confidence
        low, high = (middle, high) if too_soft else (low, middle)
    return np.asarray(scores * high, np.float32)


def synthetic_scores(
    image: Photo, n_labels: int, n_live: int, confidence: float, seed: int
) -> Floats:
    """(C, ceil(H / 8), ceil(W / 8)) scores for ``image``; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    scores = class_scores(image, n_labels, n_live, rng)
    return calibrated(scores, image.shape[0], image.shape[1], confidence)


def probabilities(scores: Floats, height: int, width: int) -> Floats:
    """(C, height, width) float32 probabilities: scores upsampled, then softmax."""
    return np.ascontiguousarray(softmax(upsample(scores, height, width)))
