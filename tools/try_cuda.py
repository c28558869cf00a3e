# SPDX-License-Identifier: MIT
"""Load crfseg._cuda from a folder and ask it for a device: ``python tools/try_cuda.py FOLDER``.

Where there is no driver it has to say so by exceptions, and go on.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def expect_refusal(module: ModuleType) -> None:
    """Ask for what needs a device."""
    try:
        module.MeanField(1, 4, 2, 16, 3, 0, 0, None)
    except module.DeviceError as error:
        if not str(error).startswith("cuda"):
            sys.exit(f"{error}: expected the call that failed")
    else:
        sys.exit("a field was made without a device")


def main() -> None:
    """Fail if the module does not load, or does not say what is missing."""
    (path,) = Path(sys.argv[1]).glob("_cuda.*.so")
    spec = importlib.util.spec_from_file_location("_cuda", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    n_devices, why_not = module.availability()
    print(f"# {path.name}: {n_devices} devices{f' ({why_not})' if why_not else ''}")
    if n_devices > 0:
        return
    if not why_not:
        sys.exit("there is no device, and no reason why")
    for _ in range(2):
        expect_refusal(module)


if __name__ == "__main__":
    main()
