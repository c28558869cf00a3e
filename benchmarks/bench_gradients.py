# SPDX-License-Identifier: MIT
"""Gradients: what they cost, and how near they are: ``python benchmarks/bench_gradients.py``.

Times are of 21 labels at 321 x 321, 5 iterations, 3/3+80/13/10, one thread unless ``--threads``
says otherwise: medians in milliseconds, all choices in turn in every round. Nearness is that of
both forms of feature gradients, and of difference quotients by sigma, to the gradient of the exact
model by brute force: mean field over all pairs of 72 x 56 pixels, cross-entropy with regions of
equal brightness.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg import refine
from crfseg.gradients import Gradients, Kernel, fixed_point, unroll
from exact import bilateral_features, gaussian_matrix, spatial_features
from photos import fit, load_photo
from table import median

Doubles = NDArray[np.float64]
ITERATIONS = 5
SETS = ((80.0, 13.0), (49.0, 5.0), (121.0, 5.0), (67.0, 3.0), (8.0, 13.0))
WEIGHT = 4.0
STEP = 0.05  # of difference quotients, relative to sigma
GROUPS = ((0, 1), (2, 3, 4))  # the features that share a sigma


def times(threads: int, rounds: int) -> None:
    """Print medians of every choice, and of what ``refine`` takes for the forward pass alone."""
    side, n_labels = 321, 21
    rng = np.random.default_rng(0)
    image = fit(load_photo("astronaut"), side, side)
    coarse = 3 * rng.normal(size=(n_labels, 41, 41)).astype(np.float32)
    logits = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side].copy()
    gradient = rng.normal(size=logits.shape).astype(np.float32)
    features = [
        spatial_features(side, side, 3.0).astype(np.float32),
        bilateral_features(image, 80.0, 13.0).astype(np.float32),
    ]
    kernels = [Kernel(features[0], 3.0), Kernel(features[1], 10.0)]
    mu = rng.normal(size=(n_labels, n_labels))
    full = [kernel.with_parameters(kernel.weight, mu) for kernel in kernels]
    how = {"iterations": ITERATIONS, "threads": threads}
    tapes = {
        "": unroll(logits, kernels, **how),
        ", recomputed": unroll(logits, kernels, **how, recompute=True),
        ", full compatibility": unroll(logits, full, **how),
        ", fixed point": fixed_point(logits, kernels, threads=threads, tolerance=1e-4),
    }
    choices: dict[str, Callable[[], object]] = {
        "refine": lambda: refine(logits, image, kind="logits", **how),
        "both lattices": lambda: [Kernel(each, threads=threads) for each in features],
        "unroll": lambda: unroll(logits, kernels, **how),
        "unroll, full compatibility": lambda: unroll(logits, full, **how),
        "backward, exact features": lambda: tapes[""].backward(gradient, features="exact"),
    }
    for name, tape in tapes.items():
        choices[f"backward{name}"] = lambda tape=tape: tape.backward(gradient, tolerance=1e-4)
    spent: dict[str, list[float]] = {name: [] for name in choices}
    for _ in range(rounds):
        for name, choice in choices.items():
            start = time.perf_counter()
            choice()
            spent[name].append(1000 * (time.perf_counter() - start))
    for name, each in spent.items():
        print(f"{name:36s} {median(each):8.1f} ms")
    for name, tape in tapes.items():
        print(f"{'tape' + name:36s} {tape.nbytes / 2**20:8.1f} MiB")


class Case(NamedTuple):
    """Logits (C, N), labels (N,), and features (N, 5) of a photograph."""

    logits: Doubles
    labels: NDArray[np.intp]
    features: Doubles


def small_case(sigma_xy: float, sigma_rgb: float) -> Case:
    """Four regions of equal brightness, scored with errors as large as themselves."""
    height, width, n_labels = 56, 72, 4
    rng = np.random.default_rng(1)
    image = fit(load_photo("astronaut"), height, width)
    brightness = image.mean(axis=2)
    bounds = np.quantile(brightness, [0.25, 0.5, 0.75])
    labels = np.searchsorted(bounds, brightness).ravel()
    errors = rng.normal(size=(n_labels, height // 8, width // 8)).repeat(8, 1).repeat(8, 2)
    logits = np.eye(n_labels)[labels].T + errors.reshape(n_labels, -1)
    return Case(logits, labels, bilateral_features(image, sigma_xy, sigma_rgb))


def softmax(z: Doubles) -> Doubles:
    """Over the labels, which come first."""
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


def loss_gradient(z: Doubles, labels: NDArray[np.intp]) -> Doubles:
    """Of the cross-entropy, summed over pixels, by logits."""
    return softmax(z) - np.eye(len(z))[labels].T


def exact_gradient(case: Case) -> Doubles:
    """(N, 5) dLoss by features in the exact model, symmetric normalisation and Potts."""
    plain = gaussian_matrix(case.features).astype(np.float64)
    scale = 1 / np.sqrt(plain.sum(axis=1))
    kernel = scale[:, None] * plain * scale
    qs = [softmax(case.logits)]
    for _ in range(ITERATIONS):
        z = case.logits + WEIGHT * qs[-1] @ kernel
        qs.append(softmax(z))
    delta = loss_gradient(z, case.labels)
    pairs, mass = np.zeros_like(plain), np.zeros(len(plain))
    for q in reversed(qs[:-1]):
        a = WEIGHT * delta
        pairs += (scale * a).T @ (scale * q)
        mass += scale**2 / 2 * ((a * (q @ kernel)).sum(axis=0) + (q * (a @ kernel)).sum(axis=0))
        upstream = a @ kernel
        delta = q * (upstream - (upstream * q).sum(axis=0))
    weights = plain * (pairs + pairs.T - mass[:, None] - mass)
    return weights @ case.features - case.features * weights.sum(axis=1)[:, None]


def by_sigmas(features: Doubles, gradient: Doubles) -> list[float]:
    """DLoss by the logarithms of sigma_xy and sigma_rgb."""
    return [-float((features * gradient)[:, list(group)].sum()) for group in GROUPS]


def found_gradient(case: Case, form: str | None) -> Gradients:
    """What the library says."""
    kernel = Kernel(case.features, WEIGHT)
    tape = unroll(case.logits, [kernel], ITERATIONS)
    upstream = loss_gradient(tape.output.astype(np.float64), case.labels)
    step = None if form else STEP
    return tape.backward(upstream, features=form, sigmas=[GROUPS], step=step)


def nearness() -> None:
    """Print cosines with the exact gradient, and gradients by log sigma_xy and log sigma_rgb."""
    print("sigmas     form         cosine   log sigma_xy  log sigma_rgb")
    for sigma_xy, sigma_rgb in SETS:
        case = small_case(sigma_xy, sigma_rgb)
        exact = exact_gradient(case)
        name = f"{sigma_xy:g}/{sigma_rgb:g}"
        lines = [("model", 1.0, by_sigmas(case.features, exact))]
        for form in ("exact", "smooth", None):
            kernel = found_gradient(case, form).kernels[0]
            cosine = np.nan
            if kernel.features is not None:
                sizes = np.linalg.norm(kernel.features) * np.linalg.norm(exact)
                cosine = float((kernel.features * exact).sum() / sizes)
            lines.append((form or "quotient", cosine, list(kernel.log_sigmas)))
        for form, cosine, (xy, rgb) in lines:
            print(f"{name:10s} {form:10s} {cosine:8.3f} {xy:14.1f} {rgb:14.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    times(arguments.threads, arguments.rounds)
    nearness()


if __name__ == "__main__":
    main()
