# SPDX-License-Identifier: MIT
"""compute-sanitizer over `gpu.sanitized`: bad accesses, uninitialised memory, races, barriers."""

from gpu.facts import find_program
from gpu.report import LeftOut
from gpu.sections import Context
from gpu.tools import watch

PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "initcheck", "racecheck", "synccheck")
SUMMARY = "SUMMARY:"  # ERROR SUMMARY, RACECHECK SUMMARY
FAULT = 9  # the exit status that is asked for where something is found
SECONDS = 38  # of a tool at most: the section gets 160
LINES = 12


def run(context: Context) -> None:
    program = find_program(PROGRAM)
    if program is None:
        raise LeftOut(f"{PROGRAM} is not there")
    ran = []
    for tool in TOOLS:
        with context.report.part(tool):
            ran.append(check(context, program, tool))
    if ran and not any(ran):
        raise LeftOut(f"{PROGRAM} cannot watch this device")


def check(context: Context, program: str, tool: str) -> bool:
    """Whether the tool could do its work."""
    command = [program, "--tool", tool, "--error-exitcode", str(FAULT)]
    done = watch(context, command, "gpu.sanitized", SECONDS)
    if done.code is None:
        context.report.note(f"{tool} did not end within {SECONDS} s")
        return False
    print(done.printed[-4000:])
    said = [line for line in done.printed.splitlines() if line.startswith("=====")]
    last = "\n".join(said[-LINES:])
    if SUMMARY not in last:
        context.report.note(f"{tool} did not watch to the end: {' '.join(said[:2])}"[:300])
        return False
    context.report.holds(f"{tool} finds nothing", done.code == 0, last)
    wrong = [one["what"] for one in done.found["checks"] if not one["passed"]]
    is_right = bool(done.found["checks"]) and not wrong
    context.report.holds(f"results under {tool}", is_right, ", ".join(wrong))
    return True
