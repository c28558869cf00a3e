# SPDX-License-Identifier: MIT
"""Builds the package for this GPU alone into the scratch folder, with the tools that are there."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gpu.facts import device, find_program, version_of
from gpu.place import load_module
from gpu.report import LeftOut, Report
from gpu.runner import take_package
from gpu.sections import REPOSITORY, Context

TOOLS = ("cmake", "nvcc", "ninja")


def run(context: Context) -> None:
    report, folder = context.report, context.scratch / "native"
    tools = {name: find_program(name) for name in TOOLS}
    missing = [name for name, path in tools.items() if path is None]
    missing += [name for name in ("pybind11", "numpy") if version_of(name) == "MISSING"]
    if missing:
        raise LeftOut(f"{', '.join(missing)} missing: the crfseg that is installed is checked")
    architecture = architecture_of(device().get("compute capability", ""))
    report.fact("architecture", architecture)
    log = context.scratch / "build.log"
    folder.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    configure(folder, tools, architecture, log)
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1
    do([tools["cmake"], "--build", folder, "--parallel", jobs], log)
    assemble(folder, context.package)
    note_kernels(report, folder, log)
    note_import(context)


def architecture_of(capability: str) -> str:
    """``90-real`` of ``9.0``; what cmake finds where nothing is known."""
    digits = capability.replace(".", "")
    return f"{digits}-real" if digits.isdecimal() else "native"


def configure(folder: Path, tools: dict[str, str | None], architecture: str, log: Path) -> None:
    cmake_folder = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    set_to = {
        "CMAKE_MAKE_PROGRAM": tools["ninja"],
        "CMAKE_CUDA_COMPILER": tools["nvcc"],
        "CMAKE_CUDA_FLAGS": "-Xptxas=-v",
        "CRFSEG_CUDA": "ON",
        "CRFSEG_CUDA_ARCHITECTURES": architecture,
        "CRFSEG_BUILD_PYTHON": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": cmake_folder,
    }
    words = [word for name, value in set_to.items() for word in ("-D", f"{name}={value}")]
    do([tools["cmake"], "-G", "Ninja", "-S", REPOSITORY, "-B", folder, *words], log)


def do(command: list[object], log: Path) -> None:
    """Run a command; what it says is added to the log, and its end to the error."""
    with log.open("ab") as file:
        before = file.tell()
        words = [str(word) for word in command]
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        with log.open("rb") as file:
            file.seek(before)
            print(file.read().decode(errors="replace")[-1500:])
        raise RuntimeError(f"{' '.join(words[:3])} failed: {log} says why")


def assemble(native: Path, package: Path) -> None:
    """The Python files of the checkout and the modules that were built."""
    shutil.rmtree(package, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.dylib")
    shutil.copytree(REPOSITORY / "crfseg", package / "crfseg", ignore=ignored)
    for name in ("_core", "_cuda"):
        (built,) = native.glob(f"{name}.*.so")
        shutil.copy2(built, package / "crfseg")


def note_kernels(report: Report, folder: Path, log: Path) -> None:
    """What ptxas says of our kernels, of all builds into this folder: ninja repeats nothing."""
    kept = folder / "ptxas.log"
    with kept.open("a") as file:
        file.write(log.read_text(errors="replace"))
    check_kernels = load_module("check_kernels", str(REPOSITORY / "tools/check_kernels.py"))
    last = {(k.name, k.architecture): k for k in check_kernels.kernels_of(kept.read_text())}
    report.measured("kernels", len(last), "")
    report.measured("registers at most", max((k.registers for k in last.values()), default=0), "")
    spilling = sorted(kernel.name for kernel in last.values() if kernel.spilled)
    report.holds("no kernel spills registers", not spilling, ", ".join(spilling))


def note_import(context: Context) -> None:
    """That it is the built package which is found, and that it can use the device."""
    take_package(context.package)
    crfseg = importlib.import_module("crfseg")
    where = Path(str(crfseg.__file__)).parent
    context.report.holds(
        "the built package is imported", where.parent == context.package, str(where)
    )
    module = importlib.import_module("crfseg._cuda")
    n_devices, why_not = module.availability()
    context.report.holds("it finds the device", n_devices > 0, why_not)
    context.report.fact("crfseg.info()", str(crfseg.info()))
