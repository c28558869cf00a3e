# SPDX-License-Identifier: MIT
"""The machine, the tools and the checkout; what is missing is said."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gpu.driver import Driver, DriverError
from gpu.sections import REPOSITORY, Context
from table import read_machine

MODULES = ("numpy", "torch", "pybind11")
PROGRAMS = ("nvcc", "cmake", "ninja", "c++", "compute-sanitizer", "ncu")
NEEDED = {*MODULES, "nvcc", "cmake", "ninja", "c++"}
USED = ("PIL", "pydensecrf")
TOOLKIT = Path("/usr/local/cuda/bin")


def run(context: Context) -> None:
    report = context.report
    machine = read_machine()
    report.fact("processor", f"{machine.processor}, {machine.cores} cores")
    report.fact("Python", machine.python)
    for name in MODULES:
        report.fact(name, version_of(name))
    for name in PROGRAMS:
        report.fact(name, program_version(name))
    for name in USED:
        report.fact(name, "there" if importlib.util.find_spec(name) else "not there")
    report.fact("commit", commit())
    with report.part("GPU"):
        for name, value in device().items():
            report.fact(name, value)
    missing = [name for name in NEEDED if report.found["measured"][name]["value"] == "MISSING"]
    if missing:
        report.note(f"MISSING: {', '.join(sorted(missing))}")


def version_of(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING"


def find_program(name: str) -> str | None:
    """On PATH, beside this Python, or in the toolkit's usual place."""
    named = os.environ.get("CUDACXX") if name == "nvcc" else None
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), str(TOOLKIT)]
    return named or shutil.which(name, path=os.pathsep.join(folders))


def program_version(name: str) -> str:
    """The line of ``--version`` that has a number with a point."""
    path = find_program(name)
    if path is None:
        return "MISSING" if name in NEEDED else "not there"
    lines = said([path, "--version"]).splitlines()
    numbered = [line for line in lines if any(c.isdigit() for c in line) and "." in line]
    wanted = [line for line in numbered if "release" in line or "ersion" in line] or numbered
    return (wanted or ["there"])[0].strip()


def device() -> dict[str, str]:
    """The first GPU, by nvidia-smi; by the driver where that is missing."""
    fields = ("name", "driver_version", "compute_cap", "memory.total", "clocks.max.sm")
    titles = ("GPU", "driver", "compute capability", "memory", "fastest clock")
    query = [f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    line = said(["nvidia-smi", *query]).splitlines()[:1]
    parts = line[0].split(", ") if line else []
    if len(parts) == len(fields):
        return dict(zip(titles, parts, strict=True))
    try:
        driver = Driver()
        return {"GPU": driver.name(), "compute capability": driver.capability()}
    except DriverError as error:
        return {"GPU": f"none: {error}"}


def commit() -> str:
    """The checkout's, and whether there are changes beyond it."""
    git = ["git", "-C", str(REPOSITORY)]
    found = said([*git, "rev-parse", "--short=12", "HEAD"]).strip() or "unknown"
    changed = said([*git, "status", "--porcelain", "--untracked-files=no"]).strip()
    return found + (", with changes" if changed else "")


def said(command: list[str]) -> str:
    """What a program prints; nothing where there is no such program, or it does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
