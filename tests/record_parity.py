# SPDX-License-Identifier: MIT
"""Record what pydensecrf2 1.1 answers, for machines where it cannot be installed.

    python tests/record_parity.py

writes tests/data/<photo>.npz: the picture (120, 160, 3), its stride-8 logits (8, 15, 20), and for
each parameter set and normalisation the labels (120, 160) and Q of every 97th pixel (8, 198) in
1/65535.
Needs pydensecrf2 and scikit-image. Only a change of the inputs or cases calls for recording again.
"""

import numpy as np

from peer import PARAMETERS, peer_inference
from photos import DATA, photo, probabilities, stride_8_logits
from reference import NORMALIZATIONS

PHOTOS = ("astronaut", "coffee")
EVERY = 97  # coprime to the width: the sample visits all columns


def key(parameters: str, normalization: str) -> str:
    """The name under which a case is stored."""
    return f"{parameters} {normalization}".replace("/", "_")


def record(name: str) -> None:
    """Write one photograph with the peer's answers."""
    image = photo(name, 120, 160)
    logits = stride_8_logits(image, 8, seed=0).astype(np.float16)
    probs = probabilities(logits, 120, 160)
    arrays = {"image": image, "logits": logits}
    for parameters in PARAMETERS:
        for normalization in NORMALIZATIONS:
            q = peer_inference(probs, image, parameters, normalization)
            case = key(parameters, normalization)
            arrays[f"{case} labels"] = q.argmax(axis=0).astype(np.uint8)
            sample = q.reshape(len(q), -1)[:, ::EVERY]
            arrays[f"{case} q"] = np.rint(sample * 65535).astype(np.uint16)
    np.savez_compressed(DATA / f"{name}.npz", **arrays)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for photo_name in PHOTOS:
        record(photo_name)
