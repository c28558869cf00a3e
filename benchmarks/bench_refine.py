# SPDX-License-Identifier: MIT
"""Time, memory and agreement of crfseg and pydensecrf2: ``python benchmarks/bench_refine.py``.

One process per contender, case and round; the order is shuffled every round (``rounds.py``). Both
libraries get the same arrays and do the same work (``peers.py``). A ratio is the median over rounds
of the ratio within a round. The run ends with an error where answers differ or a bar is missed
(``bars.py``). The rows go to a CSV file, ``build/refine.csv`` unless told otherwise, and the bars
to ``bars.csv`` beside it.
"""

import argparse
import itertools
import os
import random
import sys
from pathlib import Path

from bars import Outcome, disagreements, verdicts
from cases import CASES, HEADLINE, TINY, Case, RealCase, all_cases, describe, find_cases
from parameters import DEFAULT, ITERATIONS, PARAMETERS
from peers import VARIANTS, available_isas
from rounds import DEFAULT_ENTRY, FULL, PEER, Entry, Rounds, run_rounds
from table import Row, read_machine, write_csv

CSV = Path(__file__).resolve().parent.parent / "build" / "refine.csv"
QUICK = ("msrc", HEADLINE, "binary", TINY)
ROUNDS, REAL_ROUNDS, QUICK_ROUNDS = (
    7,
    3,
    3,
)  # a set of real cases is judged by all its images' rounds
COARSE_GROUPS = ("large", "camvid")  # of whole cells, where all stretch the scores alike
Job = tuple[Case | RealCase, str]  # and the name of the parameters


def plan(args: argparse.Namespace) -> list[Job]:
    """What was asked for; else the headline on every parameter set and the others on one."""
    if args.quick:
        return [(CASES[name], DEFAULT) for name in QUICK]
    cases = find_cases(args.case, args.data) if args.case else list(all_cases(args.data).values())
    if args.case or args.params:
        return list(itertools.product(cases, args.params or [DEFAULT]))
    headline = [(CASES[HEADLINE], parameters) for parameters in PARAMETERS]
    return headline + [(case, DEFAULT) for case in cases if case.name != HEADLINE]


def usual_entries(case: Case | RealCase, parameters: str) -> list[Entry]:
    """The default with one thread and all, full evaluation; some cases have more."""
    entries = [DEFAULT_ENTRY, DEFAULT_ENTRY._replace(threads=0), FULL]
    if case.group in COARSE_GROUPS:
        entries += [Entry("crfseg coarse"), Entry("crfseg labels")]
    if (case.name, parameters) == (HEADLINE, DEFAULT):
        entries += [Entry("crfseg fine"), Entry("crfseg cached")]
        entries += [DEFAULT_ENTRY._replace(isa=isa) for isa in available_isas()[:-1]]
    return list(dict.fromkeys(entries))


def chosen_entries(args: argparse.Namespace, job: Job) -> list[Entry]:
    """The peer first, then the usual ones, or every combination of what was asked for."""
    if not (args.contender or args.threads or args.isa):
        ours = usual_entries(*job)
    else:
        names, threads = args.contender or [DEFAULT_ENTRY.name], args.threads or [1, 0]
        ours = list(itertools.starmap(Entry, itertools.product(names, threads, args.isa or [""])))
    one_core = os.cpu_count() == 1
    return [PEER, *(entry for entry in ours if not (one_core and entry.threads == 0))]


def n_rounds(args: argparse.Namespace, case: Case | RealCase) -> int:
    """As asked for, else as many as the case has a use for."""
    usual = REAL_ROUNDS if isinstance(case, RealCase) else ROUNDS
    return int(args.rounds or (QUICK_ROUNDS if args.quick else usual))


def rows_of(
    case: Case | RealCase, photo: str, size: tuple[int, int, int], parameters: str, rounds: Rounds
) -> tuple[Row, ...]:
    """The table's rows of one case and parameter set, the peer's own first."""
    return tuple(
        Row.of(
            case=case.name,
            group=case.group,
            photo=photo,
            size=size,
            parameters=parameters,
            iterations=ITERATIONS,
            runs=runs,
            peer_runs=rounds.reports[PEER],
            agreement=rounds.with_peer[entry],
        )
        for entry, runs in rounds.reports.items()
    )


def measure(args: argparse.Namespace, job: Job, order: random.Random) -> Outcome:
    """One case on one parameter set, printed as soon as it is done."""
    case, parameters = job
    problem, photo = case.load(args.data), case.source(args.data)
    print(f"# {case.name}: {photo}, {describe(problem)}", flush=True)
    entries = chosen_entries(args, job)
    rounds = run_rounds(problem, parameters, entries, n_rounds(args, case), order)
    n_labels, height, width = problem.probs.shape
    rows = rows_of(case, photo, (width, height, n_labels), parameters, rounds)
    print(*rows, sep="\n", flush=True)
    for entry, seen in rounds.with_full.items():
        print(f"{entry} agrees with full evaluation on {seen}", flush=True)
    return Outcome(case.name, case.group, parameters, rounds, rows)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--case", nargs="+", metavar="CASE", help=f"of {', '.join(CASES)}, or a set"
    )
    parser.add_argument("--params", nargs="+", choices=PARAMETERS, help="kernel parameters")
    parser.add_argument("--contender", nargs="+", choices=VARIANTS, help="besides the peer")
    parser.add_argument("--threads", nargs="+", type=int, help="0 is all cores")
    parser.add_argument("--isa", nargs="+", help="instruction sets to force")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS}, for real cases {REAL_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="a few cases, no bars, two minutes")
    parser.add_argument("--data", type=Path, help="folder with photos/, camvid/ and msrc21/")
    parser.add_argument("--csv", type=Path, default=CSV, help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the contenders")
    args = parser.parse_args()
    try:
        find_cases(args.case or [], args.data)
    except KeyError as unknown:
        known = dict.fromkeys(case.group for case in all_cases(args.data).values())
        parser.error(f"--case {unknown}: expected some of {', '.join(known)} or a set's image")
    return args


def main() -> None:
    args = read_arguments()
    machine = read_machine()
    print(machine, flush=True)
    if machine.load > 0.5:
        print(f"[bench] {machine.load:.1f} other tasks are running: times will be too long")
    order = random.Random(args.seed)
    outcomes: list[Outcome] = []
    wrong: list[str] = []
    for job in plan(args):
        outcome = measure(args, job, order)
        outcomes.append(outcome)
        wrong += disagreements(f"{outcome.case} {outcome.parameters}", outcome.rounds)
        write_csv(args.csv, [row for done in outcomes for row in done.rows], machine)
    print(f"# rows written to {args.csv}")
    held = [] if args.quick else verdicts(outcomes)
    if held:
        print(*held, sep="\n")
        write_csv(args.csv.with_name("bars.csv"), held, machine)
    if wrong:
        print("[bench] the answers differ:", *wrong, sep="\n", file=sys.stderr)
    if wrong or not all(verdict.met for verdict in held):
        sys.exit(1)


if __name__ == "__main__":
    main()
