# SPDX-License-Identifier: MIT
"""pydensecrf's own tests and example under its name.

    python benchmarks/peer_programs.py CHECKOUT

CHECKOUT is a clone of github.com/lucasb-eyer/pydensecrf. Its tests run against `crfseg.compat`, and
so does its example, on its three images; where the peer is installed (`make peer`), the example's
pictures are compared with those that the peer makes of them. Fails if anything does.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from crfseg.io import read_image

TESTS = ("pydensecrf/tests/test_*.py", "tests/test_*.py")
EXAMPLE = "examples/inference.py"
IMAGES = (1, 2, 3)
AGREEMENT = 0.9985  # of the pixels, as drop-ins are held to
# With -I, neither the checkout's folder nor the current one hides what is installed.
INSTALL = "from crfseg.compat import install; install(); "
RUN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
TEST = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"


def run(program: str, words: Sequence[object], folder: str) -> str:
    """What a program prints in a folder; fail as it fails."""
    command = [sys.executable, "-I", "-c", program, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}\n{words[0]} failed")
    return done.stdout


def run_tests(checkout: Path) -> None:
    """Run copies of its tests: beside them, its own package would be imported."""
    with tempfile.TemporaryDirectory() as folder:
        files = [path for pattern in TESTS for path in sorted(checkout.glob(pattern))]
        for path in files:
            shutil.copy(path, folder)
        told = run(
            INSTALL + TEST, ["-q", "-p", "no:cacheprovider", *(p.name for p in files)], folder
        )
    print(f"{len(files)} test files: {told.splitlines()[-1]}")


def run_example(checkout: Path, image: int) -> None:
    """Run its example by ours, and by the peer where there is one."""
    given = [checkout / "examples" / f"{name}{image}.png" for name in ("im", "anno")]
    with tempfile.TemporaryDirectory() as folder:
        run(INSTALL + RUN, [checkout / EXAMPLE, *given, "ours.png"], folder)
        if find_spec("pydensecrf") is None:
            print(f"{EXAMPLE} {image}: runs")
            return
        run(RUN, [checkout / EXAMPLE, *given, "theirs.png"], folder)
        pictures = [Path(folder, name) for name in ("ours.png", "theirs.png")]
        ours, theirs = (np.asarray(read_image(path)) for path in pictures)
    share = float((ours == theirs).all(axis=-1).mean())
    print(f"{EXAMPLE} {image}: {share:.3%} of the pixels as the peer's")
    if share < AGREEMENT:
        sys.exit(f"must be {AGREEMENT:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout.resolve()
    run_tests(checkout)
    for image in IMAGES:
        run_example(checkout, image)


if __name__ == "__main__":
    main()
