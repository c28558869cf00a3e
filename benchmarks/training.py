# SPDX-License-Identifier: MIT
"""Rows of `bench_torch.py` and `joint_training.py`, for those who read them without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trained:
    """Medians in ms, ratios of each round, peaks in MB (1e6 bytes)."""

    choice: str
    threads: int
    rounds: int
    forward_ms: float
    backward_ms: float
    step_ms: float
    step_iqr: float
    peer_ms: float
    of_peer: float
    of_forward: float
    inference_mb: float
    step_mb: float
    of_memory: float


@dataclass(frozen=True)
class Joint:
    """Scores in per cent over the validation pictures, of the network alone or with a CRF."""

    training: str
    scored: str
    seed: int
    pictures: int
    mean_iou: float
    pixel_accuracy: float
