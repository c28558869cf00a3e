# SPDX-License-Identifier: MIT
"""Check what a release would upload: ``python tools/check_dist.py dist``.

The wheel holds the package and nothing else, and all of it; the sdist holds every tracked file
that a build or a test run from it needs.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

SHIPPED = ("crfseg", "csrc", "tests", "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml")


def tracked(*paths: str) -> set[str]:
    """Files under ``paths`` that git knows."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--", *paths], capture_output=True, text=True, check=True
    )
    return {name for name in listing.stdout.split("\0") if name}


def wheel_faults(path: Path) -> list[str]:
    """Sentences about what the wheel lacks and what has strayed into it."""
    names = set(zipfile.ZipFile(path).namelist())
    native = {n for n in names if re.fullmatch(r"crfseg/_(core|cuda)\.[^/]*\.so", n)}
    metadata = {n for n in names if n.split("/")[0].endswith(".dist-info")}
    package = tracked("crfseg")
    faults = [f"wheel lacks {name}" for name in sorted(package - names)]
    faults += [f"wheel has {name}" for name in sorted(names - metadata - package - native)]
    if not any(n.startswith("crfseg/_core.") for n in native):
        faults.append("wheel has no native core")
    return faults


def sdist_faults(path: Path) -> list[str]:
    """Sentences about what the sdist lacks and what has strayed into it."""
    with tarfile.open(path) as archive:
        members = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
    names = set(members) - {"PKG-INFO"}
    faults = [f"sdist lacks {name}" for name in sorted(tracked(*SHIPPED) - names)]
    return faults + [f"sdist has {name}" for name in sorted(names - tracked("."))]


def main(folder: str) -> int:
    """Print every fault; the exit code says whether there was one."""
    (wheel,) = Path(folder).glob("*.whl")
    (sdist,) = Path(folder).glob("*.tar.gz")
    faults = wheel_faults(wheel) + sdist_faults(sdist)
    print("\n".join(faults) or f"{wheel.name} and {sdist.name} hold what they should")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
