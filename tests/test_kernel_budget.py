# SPDX-License-Identifier: MIT
"""tools/check_kernels.py finds kernels beyond their budget in what nvcc prints."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUDGET = ROOT / "tools" / "kernel_budget.csv"

# As nvcc 13.0 printed it, one of CUB's kernels with made-up spills among ours.
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6crfseg4cuda11build_tilesILi5EmEEvNS0_6PointsENS0_6\
TilingENS0_10TileOutputIT0_EE' for 'sm_90'
ptxas info    : Function properties for _ZN6crfseg4cuda11build_tilesILi5EmEEvNS0_6PointsENS0_6\
TilingENS0_10TileOutputIT0_EE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 76 registers, used 1 barriers
ptxas info    : Compile time = 120.517 ms
ptxas info    : Compiling entry function '_ZN3cub17DeviceScanKernelIjEEvv' for 'sm_90'
ptxas info    : Function properties for _ZN3cub17DeviceScanKernelIjEEvv
    8 bytes stack frame, 16 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 56 registers, used 1 barriers, 8 bytes cumulative stack size
ptxas info    : Compiling entry function '_ZN6crfseg4cuda41_GLOBAL__N__3e4c66a8_9_filter_cu_ff6f\
e19d13slice_inverseENS0_11LatticeViewEPKfbPf' for 'sm_100'
ptxas info    : Function properties for _ZN6crfseg4cuda41_GLOBAL__N__3e4c66a8_9_filter_cu_ff6f\
e19d13slice_inverseENS0_11LatticeViewEPKfbPf
    24 bytes stack frame, 0 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
ptxas info    : Compiling entry function '_ZN6crfseg4cuda10pass_fieldINS0_7Float16EEEvNS0_9FieldPas\
sE' for 'sm_90'
ptxas info    : Function properties for _ZN6crfseg4cuda10pass_fieldINS0_7Float16EEEvNS0_9FieldPassE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers
"""


def load_tool():
    spec = importlib.util.spec_from_file_location("check_kernels", ROOT / "tools/check_kernels.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = load_tool()


def limits(*lines):
    return tool.read_budget("\n".join(["kernel,architecture,registers,stack", *lines]))


def kernel(**facts):
    name, architecture = facts.pop("name", "pass_field"), facts.pop("architecture", "sm_90")
    return tool.Kernel(name, architecture, **{"registers": 64, **facts})


def test_our_kernels_are_found_with_their_template_arguments():
    assert tool.kernels_of(LOG) == [
        tool.Kernel("build_tiles<5,uint64>", "sm_90", stack=0, spilled=0, registers=76),
        tool.Kernel("slice_inverse", "sm_100", stack=24, spilled=8, registers=32),
        tool.Kernel("pass_field<float16>", "sm_90", stack=0, spilled=0, registers=64),
    ]


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({}, None),
        ({"registers": 65}, "pass_field for sm_90 uses 65 registers; its budget is 64"),
        ({"spilled": 8}, "pass_field for sm_90 spills 8 bytes of registers"),
        ({"stack": 16}, "pass_field for sm_90 has a stack frame of 16 bytes; its budget is 8"),
        ({"registers": 0}, "pass_field for sm_90 was not reported to the end"),
        ({"name": "other"}, "other for sm_90 has no budget"),
        ({"architecture": "sm_75", "registers": 80}, None),
    ],
)
def test_a_kernel_beyond_its_budget_is_a_fault(facts, fault):
    budget = limits("pass_field,sm_90,64,8", "pass_*,sm_*,80,0")
    assert tool.fault_of(kernel(**facts), budget) == fault


def test_a_budget_that_fits_no_kernel_is_a_fault():
    budget = limits("pass_field,*,64,0", "blur_axis,*,32,0")
    assert tool.faults([kernel()], budget) == ["the budget of blur_axis for * fits no kernel"]


def test_the_command_fails_beyond_the_budget(tmp_path, capsys):
    budget, log = tmp_path / "budget.csv", tmp_path / "log"
    log.write_text(LOG)
    budget.write_text(
        "kernel,architecture,registers,stack\nbuild_tiles<*>,*,80,0\nslice_*,*,32,0\npass_*,*,64,0\n"
    )
    assert tool.main(str(budget), str(log)) == 1
    assert capsys.readouterr().out == "slice_inverse for sm_100 spills 8 bytes of registers\n"
    log.write_text(
        LOG.replace(
            "24 bytes stack frame, 0 bytes spill stores, 8",
            "0 bytes stack frame, 0 bytes spill stores, 0",
        )
    )
    assert tool.main(str(budget), str(log)) == 0


def test_every_kernel_has_its_place_in_the_budget():
    """The name of each kernel in csrc/cuda stands in the budget, and no other does."""
    sources = [
        path for path in (ROOT / "csrc" / "cuda").iterdir() if path.suffix in {".cu", ".cuh"}
    ]
    found = {
        line.removeprefix("CRFSEG_KERNEL ").split("(")[0]
        for path in sources
        for line in path.read_text().splitlines()
        if line.startswith("CRFSEG_KERNEL ")
    }
    budget = tool.read_budget(BUDGET.read_text())
    assert {limit.kernel.split("<")[0] for limit in budget} == found
