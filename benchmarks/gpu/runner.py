# SPDX-License-Identifier: MIT
"""Sections in processes of their own, with limits of time: none takes the others with it."""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu.place import has_cuda_torch
from gpu.report import LeftOut, Report
from gpu.sections import SECTIONS, Context, Section

PASSED, FAILED, CRASHED, TIMED_OUT, LEFT_OUT = (
    "passed",
    "FAILED",
    "CRASHED",
    "TIMED OUT",
    "left out",
)
TAIL = 2000  # characters of what a section printed that are kept where something is wrong


@dataclass
class Outcome:
    """A section that was run, as it goes into the JSON file."""

    name: str
    is_correctness: bool
    status: str
    seconds: float = 0.0
    left_out: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    said: str = ""  # the end of what it printed, where something is wrong

    @property
    def failures(self) -> list[dict[str, Any]]:
        return [check for check in self.checks if not check["passed"]]

    @property
    def is_wrong(self) -> bool:
        return self.status in (FAILED, CRASHED, TIMED_OUT)

    def value(self, name: str) -> float:
        """Of a measurement; NaN if there is none."""
        found = self.measured.get(name, {}).get("value")
        return float("nan") if found is None else float(found)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_section(section: Section, options: list[str], scratch: Path, seconds: float) -> Outcome:
    """Run a section in a Python of its own, killed after ``seconds`` with all that it started."""
    if seconds < 1:
        return Outcome(section.name, section.is_correctness, LEFT_OUT, left_out="no time was left")
    folder = scratch / "sections"
    folder.mkdir(parents=True, exist_ok=True)
    found, printed = folder / f"{section.name}.json", folder / f"{section.name}.log"
    found.unlink(missing_ok=True)
    script = Path(__file__).parent.parent / "gpu_check.py"
    python = [sys.executable, "-X", "faulthandler"]  # tells where a crash came from
    command = [*python, script, "--module", section.module, "--report", found, *options]
    command += ["--scratch", scratch]
    start = time.monotonic()
    code = run_for([str(word) for word in command], printed, seconds)
    spent = time.monotonic() - start
    return outcome_of(section, code, spent, found, printed)


def run_for(command: list[str], printed: Path, seconds: float) -> int | None:
    """The exit status, or None for what had to be killed."""
    with printed.open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # it says where it is
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(2)
            return None
        finally:
            # Also what a section left running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            wait_a_little(child)


def wait_a_little(child: "subprocess.Popen[bytes]") -> None:
    """A process that a driver holds on to is left behind: nothing may hang."""
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        print(f"# process {child.pid} does not end")


def outcome_of(
    section: Section, code: int | None, seconds: float, found: Path, printed: Path
) -> Outcome:
    """What is known of a section from its exit status and its report."""
    told = json.loads(found.read_text()) if found.exists() else {}
    outcome = Outcome(section.name, section.is_correctness, PASSED, seconds, **told)
    if code is None:
        outcome.status = TIMED_OUT
    elif code != 0 or not told:
        outcome.status = CRASHED
    elif outcome.failures:
        outcome.status = FAILED
    elif outcome.left_out:
        outcome.status = LEFT_OUT
    if outcome.is_wrong:
        ended = f"[{'killed' if code is None else f'exit status {code}'}]"
        outcome.said = printed.read_text(errors="replace")[-TAIL:] + ended
    return outcome


def be_section(module: str, path: Path, scratch: Path, *, emulated: bool, quick: bool) -> None:
    """What the process of a section does."""
    if emulated:
        os.environ["OMP_NUM_THREADS"] = "1"  # torch's threads spin while they wait
    report = Report(path)
    context = Context(report, scratch, emulated, quick)
    section = next((one for one in SECTIONS if one.module == module), None)
    if section is not None and (why := why_no_torch(section, emulated=emulated)):
        report.left_out(why)
        return
    if not emulated:
        take_package(context.package)
    try:
        importlib.import_module(module).run(context)
    except LeftOut as why:
        report.left_out(str(why))


def why_no_torch(section: Section, *, emulated: bool) -> str:
    """Why a section that needs torch cannot be run; empty if it can."""
    if not section.needs_torch:
        return ""
    if importlib.util.find_spec("torch") is None:
        return "torch is missing"
    return "" if emulated or has_cuda_torch() else "this torch cannot use the GPU"


def take_package(folder: Path) -> None:
    """Import crfseg from the folder it was built into, if it was: not an installed one."""
    if not (folder / "crfseg").is_dir():
        return
    sys.path.insert(0, str(folder))
    # An editable install comes before sys.path.
    sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
