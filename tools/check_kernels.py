# SPDX-License-Identifier: MIT
"""Hold kernels to their budget: ``python tools/check_kernels.py budget.csv log ...``.

The logs are what nvcc prints for ``-Xptxas -v``. No kernel may spill registers; registers and stack
frames have limits in the budget, whose first line that fits counts: names of kernels and
architectures are patterns as of file names. Kernels that are not in ``crfseg::cuda``, those of CUB,
are none of ours.
"""

import csv
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
ARGUMENT = r"(?:Li(\d+)E|([a-z]|NS0_7Float16E))"
ANONYMOUS = "_GLOBAL__N_"
TYPES = {"f": "float32", "m": "uint64", "o": "uint128", "NS0_7Float16E": "float16"}


@dataclass
class Kernel:
    """What ptxas says of a kernel for one architecture."""

    name: str
    architecture: str
    stack: int = 0
    spilled: int = 0
    registers: int = 0


@dataclass
class Limit:
    """A line of the budget."""

    kernel: str
    architecture: str
    registers: int
    stack: int

    def fits(self, kernel: Kernel) -> bool:
        """Whether the line is about that kernel."""
        return fnmatchcase(kernel.name, self.kernel) and fnmatchcase(
            kernel.architecture, self.architecture
        )


def name_of(symbol: str) -> str | None:
    """``build_tiles<5,uint64>`` of its mangled symbol; None for what is not in crfseg::cuda."""
    prefix = "_ZN6crfseg4cuda"
    if not symbol.startswith(prefix):
        return None
    rest = symbol.removeprefix(prefix)
    while found := re.match(r"L?(\d+)", rest):
        end = found.end() + int(found[1])
        name, rest = rest[found.end() : end], rest[end:]
        if not name.startswith(ANONYMOUS):
            return name + arguments_of(rest)
    return None


def arguments_of(rest: str) -> str:
    """The template arguments, numbers and types of ours, that a mangled name goes on with."""
    if not (found := re.match(rf"I((?:{ARGUMENT})+)E", rest)):
        return ""
    parts = re.findall(ARGUMENT, found[1])
    return f"<{','.join(number or TYPES.get(kind, kind) for number, kind in parts)}>"


def kernels_of(log: str) -> list[Kernel]:
    """Our kernels in what nvcc printed."""
    kernels: list[Kernel] = []
    current: Kernel | None = None
    for line in log.splitlines():
        if found := ENTRY.search(line):
            name = name_of(found[1])
            current = None if name is None else Kernel(name, found[2])
            if current is not None:
                kernels.append(current)
        elif current is not None and (found := FRAME.search(line)):
            current.stack = int(found[1])
            current.spilled = int(found[2]) + int(found[3])
        elif current is not None and (found := REGISTERS.search(line)):
            current.registers = int(found[1])
    return kernels


def read_budget(text: str) -> list[Limit]:
    """The lines of a budget."""
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return [
        Limit(line["kernel"], line["architecture"], int(line["registers"]), int(line["stack"]))
        for line in lines
    ]


def fault_of(kernel: Kernel, budget: list[Limit]) -> str | None:
    """A sentence about what is wrong with a kernel."""
    named = f"{kernel.name} for {kernel.architecture}"
    limit = next((limit for limit in budget if limit.fits(kernel)), None)
    if limit is None:
        return f"{named} has no budget"
    if kernel.registers == 0:
        return f"{named} was not reported to the end"
    if kernel.spilled > 0:
        return f"{named} spills {kernel.spilled} bytes of registers"
    if kernel.stack > limit.stack:
        return f"{named} has a stack frame of {kernel.stack} bytes; its budget is {limit.stack}"
    if kernel.registers > limit.registers:
        return f"{named} uses {kernel.registers} registers; its budget is {limit.registers}"
    return None


def faults(kernels: list[Kernel], budget: list[Limit]) -> list[str]:
    """Sentences about kernels beyond the budget and lines of it that no kernel fits."""
    unused = [limit for limit in budget if not any(limit.fits(kernel) for kernel in kernels)]
    return [fault for kernel in kernels if (fault := fault_of(kernel, budget))] + [
        f"the budget of {limit.kernel} for {limit.architecture} fits no kernel" for limit in unused
    ]


def main(budget: str, *logs: str) -> int:
    """Print the faults; 1 if there are any."""
    kernels = [kernel for log in logs for kernel in kernels_of(Path(log).read_text())]
    found = faults(kernels, read_budget(Path(budget).read_text()))
    print("\n".join(found) or f"{len(kernels)} kernels are within their budget")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
