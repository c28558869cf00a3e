# SPDX-License-Identifier: MIT
"""Record what pydensecrf2 1.1 answers to the programs of ``compat_cases``.

    python tests/record_compat.py

writes tests/data/compat.npz: of every program the labels (N,) and Q of every 47th point in 1/65535,
and the divergences. Only a change of the programs calls for recording again.
"""

import numpy as np
import pydensecrf.densecrf as dcrf
from pydensecrf import utils

from compat_cases import EVERY, PROGRAMS, RECORDING, divergences, problem


def main() -> None:
    given = problem()
    arrays = {"divergences": np.array(divergences(dcrf, utils, given))}
    for name, program in PROGRAMS.items():
        q = program(dcrf, utils, given)
        arrays[f"{name} labels"] = q.argmax(axis=0).astype(np.uint8)
        arrays[f"{name} q"] = np.rint(q[:, ::EVERY] * 65535).astype(np.uint16)
    np.savez_compressed(RECORDING, **arrays)


if __name__ == "__main__":
    main()
