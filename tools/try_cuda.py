# SPDX-License-Identifier: MIT
"""Ask the installed crfseg._cuda for a device: ``python -I tools/try_cuda.py``.

Where there is no driver it has to say so by exceptions, and go on.
"""

import sys

import crfseg
from crfseg import _cuda


def expect_refusal() -> None:
    """Ask for what needs a device."""
    try:
        _cuda.MeanField(
            n_items=1,
            n_points=4,
            width=2,
            side=16,
            n_labels=3,
            storage=0,
            device=0,
            stream=0,
            allocate=None,
        )
    except _cuda.DeviceError as error:
        if not str(error).startswith("cuda"):
            sys.exit(f"{error}: expected the call that failed")
    else:
        sys.exit("a field was made without a device")


def main() -> None:
    """Fail if the module does not load, or does not say what is missing."""
    told = crfseg.info()
    print(f"# cuda: {told['cuda']} ({told['why_no_cuda']})")
    if told["cuda"]:
        return
    if not told["why_no_cuda"]:
        sys.exit("there is no device, and no reason why")
    for _ in range(2):
        expect_refusal()


if __name__ == "__main__":
    main()
