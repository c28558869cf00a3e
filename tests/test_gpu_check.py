# SPDX-License-Identifier: MIT
"""``benchmarks/gpu_check.py`` where there is no GPU: it rehearses, and judges what is made up.

Everything runs in a Python of its own, because benchmarks/ has file names that tests/ has too.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emulated import needs_emulation
from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_check.py"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks")


def gpu_check(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run(body: str, **words: str) -> str:
    place = f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    return run_script(place + body.format(**words))


HAS_DEVICE = 'from gpu.driver import why_no_device\nprint("no" if why_no_device() else "yes")\n'


def test_without_a_gpu_it_says_so_and_ends() -> None:
    if run(HAS_DEVICE).strip() == "yes":
        pytest.skip("there is a GPU")
    done = gpu_check()
    assert done.returncode == 2
    assert done.stdout.startswith("gpu_check needs an NVIDIA GPU: ")
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr


def test_unknown_sections_are_refused() -> None:
    done = gpu_check("--emulated", "--sections", "lattice,latice")
    assert done.returncode == 1
    assert "--sections has latice; expected some of facts, build, lattice" in done.stderr


@needs_emulation
def test_a_rehearsal_on_the_host(tmp_path: Path) -> None:
    """Lattices and marginals of the emulated kernels, and of what compute-sanitizer watches."""
    out = tmp_path / "made" / "found.json"
    names = ["facts", "lattice", "marginals", "steady", "streams"]
    sections = ("--sections", ",".join(names))
    done = gpu_check("--emulated", "--quick", *sections, "--out", out, "--scratch", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    by_name = {one["name"]: one for one in found["sections"]}
    assert found["is_complete"]
    assert found["is_rehearsal"]
    assert [one["status"] for one in found["sections"]] == [*["passed"] * 4, "left out"]
    assert by_name["facts"]["measured"]["numpy"]["value"] != "MISSING"
    whats = [check["what"] for check in by_name["lattice"]["checks"]]
    assert "17 x 33, sigmas 80/13: vertices" in whats
    near = [check for check in by_name["marginals"]["checks"] if "limit" in check]
    # Something was compared: sums in another order are not equal to the last bit everywhere.
    assert 0 < max(check["value"] for check in near) <= 2e-5
    assert len(by_name["steady"]["checks"]) == 6
    table = out.with_suffix(".txt").read_text()
    assert table in done.stdout
    assert "a rehearsal on the host: times say nothing" in table
    for name in ("sanitized", "profiled"):
        path = tmp_path / f"{name}.json"
        gpu_check("--emulated", "--module", f"gpu.{name}", "--report", path, "--scratch", tmp_path)
        checks = json.loads(path.read_text())["checks"]
        assert checks
        assert all(check["passed"] for check in checks)


PLANTED = {
    "hang": """
import subprocess, sys, time
def run(context):
    context.report.holds("what came before", True)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    context.report.fact("child", child.pid)
    time.sleep(600)
""",
    "crash": """
import os, signal
def run(context):
    context.report.measured("what came before", 2.5, "ms")
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
""",
    "wrong": """
def run(context):
    context.report.near("dQ", float("nan"), 1e-5)
    with context.report.part("a part"):
        raise ValueError("told")
    context.report.holds("after it", True)
""",
    "raises": "def run(context):\n    raise OSError('lost')\n",
    "absent": """
from gpu.report import LeftOut
def run(context):
    raise LeftOut("there is none")
""",
    "fine": "def run(context):\n    context.report.near('dQ', 1e-6, 1e-5)\n",
}
RUN_ALL = """
import json, os, time
from argparse import Namespace
from pathlib import Path
import gpu_check
from gpu.sections import Section

folder = Path({folder!r})
os.environ["PYTHONPATH"] = str(folder)
names = {names!r}
sections = [Section(name, "planted_" + name, 2 if name == "hang" else 30, name != "crash")
            for name in names]
options = Namespace(emulated=False, quick=False, out=folder / "found.json", limit=60)
start = time.monotonic()
outcomes = gpu_check.run_all(sections, options, folder)
assert time.monotonic() - start < 30
assert gpu_check.exit_status(outcomes) == 1
assert gpu_check.exit_status([o for o in outcomes if o.name in ("crash", "absent", "fine")]) == 0
one = {{outcome.name: outcome for outcome in outcomes}}
status = {{name: outcome.status for name, outcome in one.items()}}
assert status == dict(hang="TIMED OUT", crash="CRASHED", wrong="FAILED", raises="CRASHED",
                      absent="left out", fine="passed"), status
assert one["hang"].checks[0]["what"] == "what came before"
child = Path("/proc", str(one["hang"].measured["child"]["value"]))
assert not child.exists() or "Z" in (child / "status").read_text()
assert "planted_hang.py" in one["hang"].said  # where it was
assert one["crash"].value("what came before") == 2.5 and "last words" in one["crash"].said
assert [check["passed"] for check in one["wrong"].checks] == [False, False, True]
assert one["wrong"].checks[0]["value"] is None  # what is no number is none in JSON either
assert one["wrong"].checks[1]["detail"] == "ValueError: told"
assert one["absent"].left_out == "there is none"
assert [o["name"] for o in json.loads((folder / "found.json").read_text())["sections"]] == names
table = (folder / "found.txt").read_text()
for line in ("wrong: FAILED: dQ: not a number, at most 1e-05", "wrong: FAILED: a part: ValueError:",
             "raises: CRASHED: OSError: lost", "hang: TIMED OUT: ", "crash: what came before: 2.5"):
    assert line in table, line
late = Namespace(emulated=False, quick=False, out=folder / "late.json", limit=0)
(outcome,) = gpu_check.run_all(sections[-1:], late, folder)
assert outcome.status == "left out" and outcome.left_out == "no time was left"
"""


def test_sections_that_hang_or_crash_leave_the_others_alone(tmp_path: Path) -> None:
    for name, body in PLANTED.items():
        (tmp_path / f"planted_{name}.py").write_text(body)
    run(RUN_ALL, folder=str(tmp_path), names=list(PLANTED))  # type: ignore[arg-type]


BARS = """
from gpu.held import BARS, verdicts
from gpu.runner import Outcome
from gpu.summary import table

def outcomes(**changed):
    made = dict()
    for bar in BARS:
        made.setdefault(bar.section, dict())[bar.measurement] = dict(value=bar.must, unit="")
    made["speed"].update(changed.pop("speed", dict()))
    return [Outcome(name, False, "passed", measured=measured) for name, measured in made.items()]

assert all(verdict.met for verdict in verdicts(outcomes()))
one, many = "80/13, batch 1, float32, ms", "80/13, batch 64, float32, images/s"
slow = outcomes(speed={{one: dict(value=2.01, unit=""), many: dict(value=2600.0, unit="")}})
assert [verdict.what for verdict in verdicts(slow) if not verdict.met] == ["speed: " + one]
lines = table(slow).splitlines()
assert f"bar: speed: {{one}}: 2.01, at most 2 MISSED, aim 1 not reached" in lines
assert f"bar: speed: {{many}}: 2.6e+03, at least 1500 met, aim 2500 reached" in lines
assert "MISSED" not in table(slow, is_rehearsal=True)
lost = table(outcomes(speed={{one: dict(value=None, unit="")}}))
assert f"bar: speed: {{one}}: NOT MEASURED" in lost
assert "speed" not in table([Outcome("training", False, "passed")])
rates = [Outcome(name, False, "passed", measured={{rate: dict(value=value, unit="")}})
         for name, rate, value in (("stages", "iteration, GB/s", 3300.0),
                                   ("ceilings", "read of 20 MB, GB/s", 5500.0))]
assert "go at 60% of: read of 20 MB" in table(rates)
"""
TRAFFIC = """
from gpu.traffic import Counts, bytes_of_iteration

# 500 x 375 with 21 labels: what the header of csrc/cuda/gradients.h counts in MB.
lattices = [Counts(5, 187_500, 178_609, 29_045, 0.63), Counts(2, 187_500, 38_788, 24_540, 0.99)]
parts = bytes_of_iteration(lattices, 24 * 32 * 256, 21)
expected = dict(slice=21, corners=24, sums=21, reduce=27, blur=83, unary=18)
for name, mb in expected.items():
    assert abs(parts[name] / 1e6 - mb) < (3 if name == "blur" else 1), (name, parts[name])
"""
COUNTERS = """
from gpu.counters import heaviest, launches_of, without_arguments

long = "void a::b<(int)4, f(*)()>"
assert without_arguments(long + "(float *, int (*)())") == long
assert without_arguments("plain") == "plain"

def line(number, kernel, metric, unit, value):
    return ",".join(f'"{{word}}"' for word in (number, kernel, metric, unit, value))

head = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
blur, tile, sort = "void crfseg::cuda::blur_axis<4>(int)", "tile_pass(float *)", "sort(int)"
printed = "\\n".join([
    "==PROF== Connected", '"not the table"', head,
    line(0, blur, "Duration", "us", "2.50"), line(0, blur, "Memory Throughput", "%", "50"),
    line(0, blur, "Memory Throughput", "Gbyte/second", "900"),
    line(1, tile, "Duration", "ns", "1,500"), line(2, blur, "Duration", "us", "7.5"),
    line(2, blur, "Memory Throughput", "%", "90"), line(3, sort, "Duration", "ms", "0.001"),
    line(4, "little", "Duration", "ns", "10"), "==PROF== Disconnected",
])
found = heaviest(launches_of(printed))
assert [kernel for kernel, _ in found] == [blur, tile, sort], found
assert [launch.us for launch in found[0][1]] == [2.5, 7.5]
assert [launch.shares for launch in found[0][1]] == [dict(memory=50.0), dict(memory=90.0)]
assert launches_of("==ERROR== something") == []

from types import SimpleNamespace
from gpu.counters import describe
told = dict()
report = SimpleNamespace(measured=lambda name, value, unit: told.update({{name: value}}))
describe(SimpleNamespace(report=report), *found[0])
assert told == {{"blur_axis<4>, us": 10.0, "blur_axis<4>, memory": 80.0}}, told
"""
SANITIZER = """
from pathlib import Path
import gpu.sanitizer as sanitizer
from gpu.report import LeftOut, Report
from gpu.sections import Context

report = Report(Path({folder!r}) / "report.json")
context = Context(report, Path({folder!r}), emulated=True)
try:
    sanitizer.find_program = lambda name: None
    sanitizer.run(context)
except LeftOut as why:
    assert str(why) == "compute-sanitizer is not there"

def tool(script):
    # In the place of compute-sanitizer: what it prints, and the program itself.
    path = Path({folder!r}) / "tool"
    path.write_text("#!/bin/sh\\n" + script)
    path.chmod(0o755)
    report.found["checks"].clear()
    sanitizer.find_program = lambda name: str(path)
    sanitizer.TOOLS = ("memcheck",)
    sanitizer.run(context)
    return [check["passed"] for check in report.found["checks"]]

run = 'shift 4; "$@" || exit 1; echo "===== ERROR SUMMARY: '
assert tool(run + '0 errors"') == [True, True]
assert tool(run + '1 error"; exit 9') == [False, True]
assert tool('echo "===== ERROR SUMMARY: 0 errors"') == [True, False]  # nothing was computed
try:
    tool('echo "===== Device not supported"; exit 1')
except LeftOut as why:
    assert "cannot watch" in str(why) and "not supported" in report.found["notes"][-1]
else:
    raise AssertionError("a tool that does nothing passed")
"""
BUILD = """
from pathlib import Path
from types import SimpleNamespace
import gpu.build as build
from gpu.report import LeftOut

assert build.architecture_of("9.0") == "90-real" and build.architecture_of("12.0") == "120-real"
assert build.architecture_of("") == "native"
build.find_program = lambda name: None if name == "nvcc" else "/bin/" + name
try:
    build.run(SimpleNamespace(report=None, scratch=Path({folder!r})))
except LeftOut as why:
    assert str(why).startswith("nvcc missing"), why
else:
    raise AssertionError("it went on without nvcc")

import gpu.runner as runner
from gpu.sections import BY_NAME
runner.importlib.util.find_spec = lambda name: None
assert runner.why_no_torch(BY_NAME["ops"], emulated=True) == "torch is missing"
assert runner.why_no_torch(BY_NAME["lattice"], emulated=False) == ""

log = Path({folder!r}) / "log"
try:
    build.do(["ls", "/no/such/folder"], log)
except RuntimeError as error:
    assert "log says why" in str(error) and "no/such/folder" in log.read_text()
else:
    raise AssertionError("a command that fails passed")
"""
NUMBERS = """
from gpu.expected import bfloat16_bits, bfloat16_values
from gpu.scenes import made_up, photograph, stretched, variants

values = np.array([1.0, 1.00390625, 1.01171875, -3.14159, 0.0], np.float32)  # ties go to even
assert bfloat16_bits(values).tolist() == [0x3F80, 0x3F80, 0x3F82, 0xC049, 0]
assert bfloat16_values(bfloat16_bits(values))[3] == np.float32(-3.140625)
assert stretched(np.array([[[0.0, 2.0]]]), 1, 5)[0].tolist() == [[0, 0.5, 1, 1.5, 2]]
picture = made_up(40, 60)
assert picture.shape == (1, 40, 60, 3) and picture.std() > 20
assert photograph(400, 600)[0].shape == (1, 400, 600, 3)
four = variants(picture, 4)
assert four.shape == (4, 40, 60, 3) and len(np.unique(four.reshape(4, -1), axis=0)) == 4
"""
DRIVER = """
import ctypes
import gpu.driver as driver

class Library:
    # What is asked of libcuda, on the host.
    def __init__(self):
        self.kept, self.is_out = [], False
    def cuInit(self, flags):
        return 0
    def cuDeviceGetCount(self, count):
        count._obj.value = 1
        return 0
    def cuDeviceGet(self, device, number):
        device._obj.value = 3
        return 0
    def cuDeviceGetName(self, text, size, device):
        assert size == 256 and device.value == 3
        text.value = b"NVIDIA H200"
        return 0
    def cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = {{75: 9, 76: 0}}[attribute]
        return 0
    def cuDevicePrimaryCtxRetain(self, context, device):
        assert device.value == 3
        return 0
    def cuCtxSetCurrent(self, context):
        return 0
    def cuCtxSynchronize(self):
        return 0
    def cuMemAlloc_v2(self, address, n_bytes):
        if self.is_out:
            return 2
        self.kept.append(ctypes.create_string_buffer(n_bytes.value))
        address._obj.value = ctypes.addressof(self.kept[-1])
        return 0
    def cuMemcpyHtoD_v2(self, to, source, n_bytes):
        ctypes.memmove(to.value, source.value, n_bytes.value)
        return 0
    def cuMemcpyDtoH_v2(self, to, source, n_bytes):
        ctypes.memmove(to.value, source.value, n_bytes.value)
        return 0
    def cuGetErrorString(self, status, text):
        text._obj.value = b"out of memory"
        return 0

library = Library()
driver.load_library = lambda: library
assert driver.why_no_device() == ""
assert driver.Driver().name() == "NVIDIA H200" and driver.Driver().capability() == "9.0"
place = driver.DriverPlace()
there = place.put(np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2])
assert there.get().tolist() == [[0, 2], [4, 6], [8, 10]]
assert place.filled(3, 7).get().tolist() == [7, 7, 7]
library.is_out = True
try:
    place.filled(8, 0)
except driver.DriverError as error:
    assert str(error) == "cuMemAlloc_v2: out of memory (2)"
else:
    raise AssertionError("there was no memory")
"""


@needs_emulation
def test_what_a_sanitizer_says(tmp_path: Path) -> None:
    run(SANITIZER, folder=str(tmp_path))


@pytest.mark.parametrize(
    "body",
    [BARS, TRAFFIC, COUNTERS, BUILD, NUMBERS, DRIVER],
    ids=["bars", "traffic", "counters", "build", "numbers", "driver"],
)
def test_its_parts(body: str, tmp_path: Path) -> None:
    run(body, folder=str(tmp_path))
