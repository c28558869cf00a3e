# SPDX-License-Identifier: MIT
"""pydensecrf2 1.1, the field's standard, as the parity tests call it."""

from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

# (spatial sigma, weight), (bilateral sigma_xy, sigma_rgb, weight) as people use them.
PARAMETERS = {
    "3/3+80/13/10": ((3.0, 3.0), (80.0, 13.0, 10.0)),
    "3/3+50/5/10": ((3.0, 3.0), (50.0, 5.0, 10.0)),
    "1/3+67/3/4": ((1.0, 3.0), (67.0, 3.0, 4.0)),
    "3/3+121/5/4": ((3.0, 3.0), (121.0, 5.0, 4.0)),
}
ITERATIONS = 10
CLIP = 1e-5


def peer_inference(probs: Array, image: Array, parameters: str, normalization: str) -> Array:
    """(C, H, W) Q of pydensecrf2 after 10 iterations, feature order x, y, r, g, b."""
    dcrf = pytest.importorskip(
        "pydensecrf.densecrf", reason="pydensecrf2 is not installed; recorded outputs are compared"
    )
    kinds = {
        "none": dcrf.NO_NORMALIZATION,
        "before": dcrf.NORMALIZE_BEFORE,
        "after": dcrf.NORMALIZE_AFTER,
        "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    }
    n_labels, height, width = probs.shape
    (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = PARAMETERS[parameters]
    crf = dcrf.DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(probs.clip(CLIP, 1)).reshape(n_labels, -1)))
    crf.addPairwiseGaussian(sxy=sigma, compat=weight, normalization=kinds[normalization])
    crf.addPairwiseBilateral(
        sxy=sigma_xy,
        srgb=sigma_rgb,
        rgbim=np.array(image),
        compat=bilateral_weight,
        normalization=kinds[normalization],
    )
    return np.array(crf.inference(ITERATIONS)).reshape(probs.shape)
