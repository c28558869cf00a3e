# SPDX-License-Identifier: MIT
"""The sections in the order they are run, and what they are told."""

from dataclasses import dataclass
from pathlib import Path

from gpu.report import Report

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Section:
    """A module with ``run(context)``; ``seconds`` is the most it gets, of the whole run's rest."""

    name: str
    module: str
    seconds: int
    is_correctness: bool = False
    needs_device: bool = False
    needs_torch: bool = True


SECTIONS = (
    Section("facts", "gpu.facts", 60, needs_torch=False),
    Section("build", "gpu.build", 300, is_correctness=True, needs_device=True, needs_torch=False),
    Section("lattice", "gpu.lattice", 60, is_correctness=True, needs_torch=False),
    Section("marginals", "gpu.marginals", 90, is_correctness=True, needs_torch=False),
    Section("refine", "gpu.refined", 90, is_correctness=True),
    Section("steady", "gpu.steady", 60, is_correctness=True, needs_torch=False),
    Section("streams", "gpu.streams", 60, is_correctness=True, needs_device=True),
    Section("ops", "gpu.ops", 90, is_correctness=True),
    Section("errors", "gpu.errors", 60, is_correctness=True, needs_device=True),
    Section("ceilings", "gpu.ceilings", 60, needs_device=True),
    Section("speed", "gpu.speed", 120),
    Section("stages", "gpu.stages", 60, needs_device=True),
    Section("kernels", "gpu.kernels", 60),
    Section("training", "gpu.training", 60),
    Section("rivals", "gpu.rivals", 90),
    Section(
        "sanitizer", "gpu.sanitizer", 160, is_correctness=True, needs_device=True, needs_torch=False
    ),
    Section("counters", "gpu.counters", 120, needs_device=True, needs_torch=False),
)
BY_NAME = {section.name: section for section in SECTIONS}


@dataclass(frozen=True)
class Context:
    """What a section is told. ``emulated``: the kernels run on the host, everything is tiny."""

    report: Report
    scratch: Path
    emulated: bool = False
    quick: bool = False

    @property
    def package(self) -> Path:
        """The folder that the package is built into, for PYTHONPATH."""
        return self.scratch / "package"
