# SPDX-License-Identifier: MIT
"""The CUDA half on a GPU, in one command: ``python benchmarks/gpu_check.py [--quick]``.

Builds the native modules for this GPU alone into ``build/gpu_check``, measures the device's
ceilings, compares everything with the CPU, looks for races and bad accesses (compute-sanitizer),
times it against the bars and against rivals, and reads counters (ncu), in less than ten minutes and
without a network. It needs numpy, a torch with CUDA, pybind11, cmake, ninja, a C++ compiler and
nvcc; what is missing is said. Pillow and pydensecrf2 are used where they are there.

The last it prints is a table; that and everything measured go to ``results/gpu/DEVICE-DATE.txt``
and ``.json``, or where ``--out`` says, written anew after every section. The exit status is 1 if
something is wrong, 2 without a GPU; bars that are missed are reported and no error.
"""

import argparse
import datetime as dt
import re
import sys
import time
from pathlib import Path
from typing import Any

from gpu.driver import Driver, why_no_device
from gpu.report import write_json
from gpu.runner import LEFT_OUT, Outcome, be_section, run_section
from gpu.sections import BY_NAME, REPOSITORY, SECTIONS, Section
from gpu.summary import table

LIMIT = 585  # seconds of the whole run
NO_DEVICE = 2


def main() -> int:
    options = arguments()
    scratch = options.scratch.resolve()
    if options.module:
        be_section(
            options.module,
            options.report,
            scratch,
            emulated=options.emulated,
            quick=options.quick,
        )
        return 0
    if not options.emulated and (why := why_no_device()):
        print(f"gpu_check needs an NVIDIA GPU: {why}")
        return NO_DEVICE
    outcomes = run_all(chosen(options.sections), options, scratch)
    return exit_status(outcomes)


def exit_status(outcomes: list[Outcome]) -> int:
    """1 if something is wrong; a section that only measures may fail."""
    return int(any(one.is_wrong and one.is_correctness for one in outcomes))


def arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join(BY_NAME)
    parser.add_argument("--sections", help=f"some of {names}", default=names)
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter timings")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of the whole run")
    parser.add_argument(
        "--scratch", type=Path, default=REPOSITORY / "build/gpu_check", help="what is built, logs"
    )
    parser.add_argument(
        "--emulated",
        action="store_true",
        help="rehearse without a GPU, tiny: kernels of `make emulated`, the CPU's ops for others",
    )
    parser.add_argument("--module", help=argparse.SUPPRESS)  # be the process of a section
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(names: str) -> list[Section]:
    """The sections of these names, in their own order."""
    words = names.split(",")
    if unknown := [word for word in words if word not in BY_NAME]:
        sys.exit(f"--sections has {', '.join(unknown)}; expected some of {', '.join(BY_NAME)}")
    return [section for section in SECTIONS if section.name in words]


def run_all(sections: list[Section], options: argparse.Namespace, scratch: Path) -> list[Outcome]:
    """Every section; table and file are complete for those that ran, whatever comes after."""
    words = ["--emulated"] * options.emulated + ["--quick"] * options.quick
    begin, outcomes = time.monotonic(), []
    out = options.out or default_out(options, scratch)
    if out.suffix != ".json":
        raise SystemExit(f"--out is {out}; expected a name that ends in .json")
    for section in sections:
        print(f"# {section.name} ...", flush=True)
        left = options.limit - (time.monotonic() - begin)
        if section.needs_device and options.emulated:
            outcome = left_out(section, "needs a GPU")
        else:
            outcome = run_section(section, words, scratch, min(section.seconds, left))
        outcomes.append(outcome)
        print(f"#   {outcome.status} after {outcome.seconds:.0f} s {outcome.left_out}", flush=True)
        write(out, outcomes, sections, is_rehearsal=options.emulated)
    print(table(outcomes, is_rehearsal=options.emulated))
    print(f"# written to {out} and {out.with_suffix('.txt').name}")
    return outcomes


def left_out(section: Section, why: str) -> Outcome:
    return Outcome(section.name, section.is_correctness, LEFT_OUT, left_out=why)


def default_out(options: argparse.Namespace, scratch: Path) -> Path:
    """Named after device and date; rehearsals stay in the scratch folder."""
    if options.emulated:
        return scratch / "emulated.json"
    slug = re.sub(r"[^a-z0-9]+", "-", Driver().name().lower()).strip("-")
    folder = REPOSITORY / "benchmarks/results/gpu"
    return folder / f"{slug}-{dt.date.today().isoformat()}.json"


def write(
    out: Path, outcomes: list[Outcome], sections: list[Section], *, is_rehearsal: bool
) -> None:
    """The JSON file and the table beside it."""
    found: dict[str, Any] = {
        "date": dt.datetime.now().isoformat(timespec="seconds"),
        "is_rehearsal": is_rehearsal,
        "is_complete": len(outcomes) == len(sections),
        "sections": [outcome.as_json() for outcome in outcomes],
    }
    write_json(out, found)
    out.with_suffix(".txt").write_text(table(outcomes, is_rehearsal=is_rehearsal) + "\n")


if __name__ == "__main__":
    sys.exit(main())
