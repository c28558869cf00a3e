# SPDX-License-Identifier: MIT
"""The benchmarks run: a small case through a worker's process, rows, CSV, and their verdicts.

Each script has a Python of its own, because benchmarks/ has file names that tests/ has too.
"""

from pathlib import Path

import pytest

from subprocesses import run_script

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an sdist has no benchmarks")

SMALL_CASE = """
from dataclasses import replace
from cases import CASES

problem = replace(CASES["msrc"], height=48, width=64, n_labels=4, n_live=3).load()
assert problem.image.shape == (48, 64, 3) and problem.image.dtype == np.uint8
assert problem.probs.shape == (4, 48, 64) and problem.probs.dtype == np.float32
np.testing.assert_allclose(problem.probs.sum(0), 1, rtol=0, atol=1e-5)
assert abs(problem.probs.max(0).mean() - CASES["msrc"].confidence) < 0.02
"""

ROUND = """
import csv
from pathlib import Path
from parameters import DEFAULT, PARAMETERS
from rounds import Entry, compare, run_worker
from table import Row, read_machine, write_csv

folder = Path({folder!r})
np.save(folder / "probs.npy", problem.probs)
np.save(folder / "image.npy", problem.image)
report = run_worker(folder, Entry("crfseg fast"), DEFAULT, folder / "q.npy")
assert report["name"] == "crfseg" and report["threads"] == 1
assert report["cold"] > 0 and report["warm"] > 0
spatial, bilateral = PARAMETERS[DEFAULT]
kernels = dict(spatial=spatial, bilateral=bilateral)
np.save(folder / "expected.npy", crfseg.refine(problem.probs, problem.image, **kernels))
agreement = compare(folder / "q.npy", folder / "expected.npy")
assert agreement == (1, 0, 0), agreement

np.save(folder / "scores.npy", problem.scores)
run_worker(folder, Entry("crfseg coarse"), DEFAULT, folder / "coarse.npy")
coarse = compare(folder / "coarse.npy", folder / "expected.npy")
assert coarse.labels > 0.999 and coarse.max_dq < 1e-3, coarse
run_worker(folder, Entry("crfseg labels"), DEFAULT, folder / "labels.npy")
labels = compare(folder / "labels.npy", folder / "expected.npy")
assert np.load(folder / "labels.npy").shape == (48, 64)
assert labels.labels == coarse.labels and labels.mean_dq == 0

row = Row.of(
    case="small", group="set", photo="coffee", size=(64, 48, 4), parameters=DEFAULT,
    iterations=10, runs=[report], peer_runs=[dict(report, cold=2 * report["cold"])],
    agreement=agreement,
)
machine = read_machine()
write_csv(folder / "new" / "rows.csv", [row, row], machine)
with (folder / "new" / "rows.csv").open() as file:
    first, second = csv.DictReader(file)
assert first == second and first["case"] == "small" and first["processor"] == machine.processor
assert float(first["cold_ratio"]) == 2 and float(first["warm_ratio"]) == 1
"""

AGREEMENT = """
from bars import FINE_WITH_PEER, WITH_FULL, WITH_PEER, disagreements
from rounds import DEFAULT_ENTRY, FULL, PEER, Agreement, Entry, Rounds

a, b = Agreement(0.9, 2e-3, 0.1), Agreement(0.9, 1e-3, 0.2)
assert a.worst(b) == b.worst(a) == (0.9, 2e-3, 0.2)
lost = Agreement(0.99, float("nan"), 0.0)
assert np.isnan(lost.worst(a).mean_dq) and np.isnan(a.worst(lost).mean_dq)
exact = Agreement(1.0, 0.0, 0.0)

def n_wrong(entry, seen, other):
    rounds = Rounds(with_peer={{PEER: exact}})
    (rounds.with_peer if other == PEER else rounds.with_full)[entry] = seen
    return len(disagreements("voc", rounds))

for entry, other, limits in ((DEFAULT_ENTRY, PEER, WITH_PEER), (DEFAULT_ENTRY, FULL, WITH_FULL),
                             (FULL, PEER, WITH_PEER),
                             (Entry("crfseg fine"), PEER, FINE_WITH_PEER)):
    assert n_wrong(entry, limits, other) == 0
    assert n_wrong(entry, limits._replace(labels=limits.labels - 1e-5), other) == 1
    assert n_wrong(entry, limits._replace(mean_dq=1.01 * limits.mean_dq), other) == 1
    assert n_wrong(entry, limits._replace(max_dq=float("nan")), other) == 1
assert n_wrong(DEFAULT_ENTRY, WITH_FULL._replace(max_dq=6e-4), FULL) == 1
"""

VERDICTS = """
from types import SimpleNamespace
import bars
from bars import SPEED, Outcome, verdicts
from cases import CASES, HEADLINE, TINY
from parameters import DEFAULT, PARAMETERS
from rounds import DEFAULT_ENTRY, FULL, PEER, Entry, Rounds
from verdict import Verdict

assert {{case for case, _ in SPEED}} <= {{*CASES, "camvid", "msrc21"}}
assert {{parameters for _, parameters in SPEED}} <= {{*PARAMETERS}}
assert all(bar.must < bar.aim for held in SPEED.values() for bar in held.values())

def outcome(case=HEADLINE, *, group=None, parameters=DEFAULT, peak=0.4, **found):
    # found: contender -> (threads, instruction set asked for, warm ms); the peer takes 100 ms
    reports, rows = {{PEER: [dict(warm=100)]}}, [SimpleNamespace(threads=1)]
    for name, (threads, isa, warm) in found.items():
        reports[Entry("crfseg " + name.split("_")[0], threads, isa)] = [dict(warm=warm)]
        rows.append(SimpleNamespace(threads=threads or 2, isa=isa or "avx512", warm_ms=warm,
                                    warm_ratio=100 / warm, peak_ratio=peak))
    return Outcome(case, group or case, parameters, Rounds(reports), tuple(rows))

def met(*outcomes):
    return [verdict.met for verdict in verdicts(list(outcomes))]

must, aim = SPEED[HEADLINE, DEFAULT][1]
assert met(outcome(fast=(1, "", 100 / must))) == [True, True]
assert met(outcome(fast=(1, "", 100.1 / must), peak=0.51)) == [False, False]
assert met(outcome(fast=(1, "", 1), peak=float("nan"))) == [True]
assert met(outcome(fast=(0, "", 10), fast_8=(8, "", 50))) == [False, True, True]
assert met(outcome(fine=(1, "", 40)), outcome(fine=(1, "", 40.1))) == [True, False]
assert met(outcome("soft", fast=(1, "", 99))) == [True]
assert met(outcome("soft", fast=(1, "", 100), full=(1, "", 95))) == [True, True]
assert met(outcome("soft", fast=(1, "", 100), full=(1, "", 94.9))) == [True, False]
assert met(outcome(TINY, fast=(1, "", 0.3), peak=2)) == [True]
assert met(outcome(TINY, fast=(1, "", 0.301))) == [False]
forced = outcome(fast=(1, "", 8), fast_a=(1, "avx2", 10.01), fast_b=(1, "baseline", 40))
assert met(forced) == [True, True, True, False]

def images(*warm):
    return [outcome(f"camvid-{{ms}}", group="camvid", fast=(1, "", ms)) for ms in warm]

assert met(*images(9, 19, 90)) == [True] * 4
assert met(*images(9, 21, 22)) == [False] + [True] * 3

assert str(Verdict("voc", 6.5, 6, 10)) == "bar: voc: 6.5, at least 6 met, aim 10 not reached"
assert str(Verdict("voc", 5.5, 6, 5)) == "bar: voc: 5.5, at least 6 MISSED, aim 5 reached"
assert str(Verdict("ms", 0.25, 0.3, at_most=True)) == "bar: ms: 0.25, at most 0.3 met"
assert not Verdict("voc", float("nan"), 6).met
"""

PLANS = """
from argparse import Namespace
from bench_refine import QUICK_ROUNDS, ROUNDS, chosen_entries, n_rounds, plan
from cases import CASES, HEADLINE
from parameters import DEFAULT, PARAMETERS
from rounds import DEFAULT_ENTRY, PEER, Entry
from worker import SHORT_SECONDS, WARM_CALLS, WARM_SECONDS, enough

def arguments(**given):
    nothing = dict.fromkeys(("case", "params", "contender", "threads", "isa", "rounds", "data"))
    return Namespace(**dict(nothing, quick=False, **given))

jobs = plan(arguments())
assert [p for case, p in jobs if case.name == HEADLINE] == [*PARAMETERS]
assert {{case.name for case, _ in jobs}} == {{*CASES}} and len(jobs) == len(CASES) + 3
chosen = plan(arguments(case=["msrc"], params=["1/3+67/3/4"]))
assert chosen == [(CASES["msrc"], "1/3+67/3/4")]
assert {{n_rounds(arguments(), case) for case, _ in jobs}} == {{ROUNDS}}
assert n_rounds(arguments(rounds=2), CASES["msrc"]) == 2

entries = chosen_entries(arguments(), jobs[0])
assert entries[:2] == [PEER, DEFAULT_ENTRY] and len(set(entries)) == len(entries)
assert Entry("crfseg fine") in entries
assert Entry("crfseg fine") not in chosen_entries(arguments(), jobs[1])
asked = chosen_entries(arguments(contender=["crfseg fine"], threads=[1], isa=["baseline"]), jobs[0])
assert asked == [PEER, Entry("crfseg fine", 1, "baseline")]

assert not enough([]) and enough([WARM_SECONDS + 1]) and not enough([SHORT_SECONDS] * 2)
assert enough([SHORT_SECONDS] * WARM_CALLS) and not enough([1e-4] * WARM_CALLS)
"""

COUNTS = """
from bench_instructions import BUDGETS, LABELS, STAGES, Count, compare, read_budgets, read_part
from bench_instructions import record

part = "version: 1\\ndesc: Trigger: --dump-after=stage_unary\\n\\nsummary: 12\\ntotals: 12\\n"
assert read_part(part) == ("unary", 12)
assert read_part(part.replace("--dump-after=stage_unary", "Program termination")) is None

recorded = read_budgets(BUDGETS)
for compiler in {{budget.compiler for budget in recorded}}:
    places = [(b.labels, b.stage) for b in recorded if b.compiler == compiler]
    assert places == [(labels, stage) for labels in LABELS for stage in STAGES]

budgets = [Count("GCC 1", 2, "unary", 1000), Count("GCC 2", 2, "unary", 1)]
for instructions, kept, word in ((1029, True, "+2.90%"), (1031, False, "EXCEEDED"),
                                 (969, True, "record it")):
    (line,), verdict = compare([Count("GCC 1", 2, "unary", instructions)], budgets)
    assert verdict == kept and line.endswith(word), line
(line,), kept = compare([Count("GCC 3", 2, "unary", 5)], budgets)
assert kept and "budget" not in line

from pathlib import Path
file = Path({folder!r}) / "budgets.csv"
file.write_text("compiler,labels,stage,instructions\\nGCC 1,2,unary,7\\nGCC 2,2,unary,8\\n")
record(file, budgets[:1])
assert read_budgets(file) == [Count("GCC 2", 2, "unary", 8), budgets[0]]
"""

GAINS = """
from dataclasses import replace
from qualities import Quality
from references import REFERENCES, gains

row = Quality("msrc21-hq", 7, "crfseg", "1/1+40/10/10", 5, 30.0, 51.28, 63.45)
row = replace(row, miou_4=43.71, accuracy_4=54.0)
((sentence, kept),) = gains([row, replace(row, contender="crfseg fine")])
assert kept and "msrc21-hq crfseg 1/1+40/10/10" in sentence and sentence.endswith("reproduced")
((sentence, kept),) = gains([replace(row, accuracy_4=53.79)])
assert not kept and "-0.21 in accuracy_4" in sentence and "NOT" in sentence
assert list(gains([replace(row, parameters="3/3+80/13/10")])) == []
assert not any(kept for _, kept in gains([replace(row, miou=float("nan"))]))
"""

TABLES = """
import sys
from pathlib import Path
from dataclasses import replace
import render
from verdict import Verdict
from bench_solvers import Solved
from figure import roofline
from qualities import Quality
from results import Results, of, read_rows
from table import number, read_machine, write_csv
from tables import TABLES, percent
from training import Trained

sys.argv = ["render.py", "--check"]
render.main()

results = Results.read(Path(render.__file__).with_name("results"))
nothing = Results([], [], [], [], [], [], [], [])
assert all(made(nothing) == [] for made in TABLES.values())
for document in render.DOCUMENTS:
    text = document.read_text(encoding="utf-8")
    assert text.count("<!-- table") == text.count("<!-- end -->") == len(render.BLOCK.findall(text))
words = "a\\n<!-- table: speed -->\\nold\\n<!-- end -->\\nb\\n"
filled = render.filled(words, results)
assert "old" not in filled and render.filled(filled, results) == filled
assert render.filled(words, nothing) == words.replace("old\\n", "")

found = [number(value) for value in (0, 0.1234, 1.234, 12.34, 123.4, 1234.5, 0.012345)]
assert found == ["0", "0.123", "1.23", "12.3", "123", "1234", "0.0123"], found
assert percent(0.9999999) == "99.999 %" and percent(1) == "100.000 %"

held = [Verdict("voc", 6.5, 6, 10), Verdict("ms", 0.31, 0.3, at_most=True)]
file = Path({folder!r}) / "bars.csv"
write_csv(file, held, read_machine())
assert [str(v) for v in read_rows(file, Verdict)] == [str(v) for v in held]
assert read_rows(file.with_name("none.csv"), Verdict) == []
first, second = TABLES["bars"](replace(nothing, verdicts=held))[2:]
assert first == "| voc | at least 6 | 10 | 6.50 | met |"
assert second == "| ms | at most 0.3 |  | 0.310 | missed |"

step = Trained("default", 2, 7, 100, 150, 250, 0.1, 500, 0.5, 1.5, 90, 300, 3.3)
write_csv(file, [step], read_machine())
assert read_rows(file, Trained) == [step]
assert TABLES["training"](replace(nothing, trained=[step]))[2:] == [
    "| default | 2 | 100 ms | 150 ms, x1.5 | x0.50 | 300 MB, x3.3 of inference |"
]

def solved(solver, iterations, ms):
    return Solved("camvid", "a", solver, iterations, 2, -1.25, 2, 0, 0.5, 0.9, 0.123456, ms)
solvers = [solved("mean field", 5, 6), solved("mean field", 10, 10), solved("mean field", 20, 20),
           solved("Euclidean", 5, 10.9), solved("Euclidean", 10, 11.1)]
write_csv(file, solvers, read_machine())
assert read_rows(file, Solved) == solvers
best = TABLES["solvers"](replace(nothing, solved=solvers))[2:]
assert [line.split(" | ")[2] for line in best] == ["10", "5"]
assert best[1].endswith("| 10.9 ms | -1.2 | +2.0 | +0.0 | 50.00 % | 90.00 % | 12.35 % |"), best
assert TABLES["descent"](replace(nothing, solved=solvers[3:]))[2:] == [
    "| camvid, a | Euclidean | -1.2 | -1.2 |"
]

image = Quality("voc", 1, "crfseg", "3/3+80/13/10", 10, 12.3, *map(float, range(50, 61)))
volume = Quality("brain", 1, "none", "none", 0, 1500.0, *map(float, range(50, 60)),
                 dice_whole=87.0, dice_core=62.0, dice_enhancing=66.0)
write_csv(file, [image, volume], read_machine())
again = read_rows(file, Quality)
assert str(again) == str([image, volume])  # not a number is no equal of itself
(line,) = TABLES["quality"](replace(nothing, qualities=again))[2:]
assert line.startswith("| voc, 1 | crfseg | 3/3+80/13/10, 10 it. | 50.00 | 51.00 | 52.00")
assert line.endswith("| 60.00 | 12.3 |")
(line,) = TABLES["volumes"](replace(nothing, qualities=again))[2:]
assert line.startswith("| brain | none |  | 50.00 | 51.00 | 52.00")
assert line.endswith("| 59.00 | 87.0 | 62.0 | 66.0 | 1.50 |")

rows = [row for row in results.rows if row.case == "voc"]
forced = replace(of(rows, "crfseg", 1)[0], isa="imaginary")
assert of([*rows, forced], "crfseg", 1) == of(rows, "crfseg", 1)
assert of([*rows, forced], "crfseg", 1, "imaginary") == [forced] and of(rows, "nobody", 1) == []

from xml.etree import ElementTree
memories = {{"memory": 20, "L2": 500}}
ElementTree.fromstring(roofline({{"peak": 100}}, memories, 7, 80, {{"here": 30}}))
"""


DATA_SETS = """
import bench_run

bench_run.HEIGHT, bench_run.WIDTH, bench_run.LABELS, bench_run.LIVE = 48, 64, 4, 3
for form in ("coarse-npz", "full-png"):
    # The command's results are compared with the core's inside.
    assert 0 < bench_run.measure(form, 3, 1, 2) < 2, form
"""


def run(body: str, **words: str) -> None:
    place = f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    told = run_script(place + body.format(**words) + '\nprint("ok")\n')
    assert told.splitlines()[-1] == "ok"


def test_a_small_case_goes_through_a_worker_into_a_csv(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(SMALL_CASE + ROUND, folder=str(tmp_path))


@pytest.mark.parametrize("body", [AGREEMENT, VERDICTS, PLANS], ids=["agreement", "bars", "plans"])
def test_what_is_measured_and_judged(body: str) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(body)


def test_the_command_is_measured_against_the_core() -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(DATA_SETS)


def test_instructions_are_held_to_the_budgets_of_their_compiler(tmp_path: Path) -> None:
    run(COUNTS, folder=str(tmp_path))


def test_gains_are_held_to_what_was_stated() -> None:
    run(GAINS)


def test_documents_show_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's bundled photographs")
    run(TABLES, folder=str(tmp_path))
