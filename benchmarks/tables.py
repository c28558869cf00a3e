# SPDX-License-Identifier: MIT
"""The documents' tables, as lines of Markdown; `render` puts them into place.

A table of something that no run has left behind is empty: nothing stands in for a measurement.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from cases import HEADLINE
from parameters import DEFAULT
from results import Results, as_long, of
from table import Row, median, number
from work import floor_cycles

PEER, OURS = "pydensecrf2", "crfseg"
CUSTOM = "3/3+80/13/10"
_BANDS = [f"{what} within {width}" for width in (1, 2, 4, 8) for what in ("mIoU", "accuracy")]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown; no rows, no table."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), *body] if body else []


def percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{math.floor(1e5 * share) / 1e3:.3f} %"


def place(rows: Sequence[Row]) -> str:
    """Size, labels and parameters of a case; the name and number of images of a set."""
    first = rows[0]
    images = len({row.case for row in rows})
    size = f"{first.width}x{first.height}x{first.labels}"
    name = f"{first.group}, {images} images" if first.group != first.case else first.case
    return f"{name}: {size}, {first.parameters}"


def timed(rows: Sequence[Row]) -> str:
    """Warm milliseconds and how many times as fast as the peer that is; medians over images."""
    if not rows:
        return ""
    ms, ratio = median([r.warm_ms for r in rows]), median([r.warm_ratio for r in rows])
    return f"{number(ms)} ms, x{ratio:.1f}"


def most_threads(rows: Iterable[Row]) -> int:
    """The largest number of threads that the library ran with."""
    return max((row.threads for row in rows if row.contender == OURS), default=1)


def speed(results: Results) -> list[str]:
    """Every case: the peer, one thread, all threads, first call, memory, agreement."""
    most = most_threads(results.rows)
    lines = []
    for rows in results.groups().values():
        peer, one, all_ = of(rows, PEER, 1), of(rows, OURS, 1), of(rows, OURS, most)
        lines.append(
            (
                place(rows),
                f"{number(median([row.warm_ms for row in peer]))} ms",
                timed(one),
                timed(all_),
                f"x{median([row.cold_ratio for row in one]):.1f}",
                f"x{max(row.peak_ratio for row in (*one, *all_)):.2f}",
                percent(min(row.labels_agree for row in (*one, *all_))),
            )
        )
    titles = ["case", PEER, "1 thread", f"{most} threads", "1 thread, first call"]
    return table([*titles, "peak memory", "labels equal"], lines)


def bars(results: Results) -> list[str]:
    """What every bar asks for and what was measured."""
    return table(
        ["bar", "must", "aim", "measured", ""],
        [
            (
                verdict.what,
                f"{'at most' if verdict.at_most else 'at least'} {verdict.must:g}",
                "" if math.isnan(verdict.aim) else f"{verdict.aim:g}",
                number(verdict.value),
                "met" if verdict.met else "missed",
            )
            for verdict in results.verdicts
        ],
    )


def contenders(results: Results) -> list[str]:
    """Everything that ran on the headline."""
    rows = results.groups().get((HEADLINE, DEFAULT), [])
    return table(
        ["contender", "instructions", "threads", "warm", "first call", "ratio", "peak memory"],
        [
            (
                row.contender,
                row.isa,
                str(row.threads),
                f"{number(row.warm_ms)} ms",
                f"{number(row.cold_ms)} ms",
                f"x{row.warm_ratio:.1f}",
                f"{number(row.peak_mb)} MB",
            )
            for row in rows
        ],
    )


def memory(results: Results) -> list[str]:
    """Peaks above the inputs, the result included."""
    most = most_threads(results.rows)
    lines = []
    for rows in results.groups().values():
        found = [of(rows, PEER, 1), of(rows, OURS, 1), of(rows, OURS, most)]
        peaks = [median([row.peak_mb for row in each]) for each in found]
        worst = max(row.peak_ratio for each in found[1:] for row in each)
        lines.append((place(rows), *(f"{number(peak)} MB" for peak in peaks), f"x{worst:.2f}"))
    return table(["case", PEER, "1 thread", f"{most} threads", "at the worst"], lines)


def images(results: Results) -> list[str]:
    """Real network outputs, one by one."""
    most = most_threads(results.rows)
    by_case: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.case != row.group:
            by_case.setdefault(row.case, []).append(row)
    return table(
        ["image", PEER, "1 thread", f"{most} threads", "labels equal"],
        [
            (
                case,
                f"{number(of(rows, PEER, 1)[0].warm_ms)} ms",
                timed(of(rows, OURS, 1)),
                timed(of(rows, OURS, most)),
                percent(min(row.labels_agree for row in rows)),
            )
            for case, rows in by_case.items()
        ],
    )


def instructions(results: Results) -> list[str]:
    """Millions of every stage, by number of labels."""
    labels = sorted({count.labels for count in results.counts})
    counted: dict[tuple[str, str], list[str]] = {}
    for count in results.counts:
        key = (count.compiler, count.stage)
        counted.setdefault(key, []).append(number(count.instructions / 1e6))
    titles = ["compiler", "stage", *(f"{n} labels" for n in labels)]
    return table(titles, [(*key, *cells) for key, cells in counted.items()])


def stages(results: Results) -> list[str]:
    """Milliseconds of the headline's stages; a call has one of the two inferences."""
    threads = sorted({m.threads for m in results.stages()})
    found: dict[str, list[str]] = {}
    for m in results.stages():
        found.setdefault(m.what, []).append(f"{number(1e3 * m.value)} ms")
    titles = ["stage", *(f"{n} thread{'s' * (n != 1)}" for n in threads)]
    return table(titles, [(stage, *cells) for stage, cells in found.items()])


def machine(results: Results) -> list[str]:
    """Clock, multiply-adds and reading."""
    threads = sorted({m.threads for m in results.measured})
    found: dict[str, list[str]] = {}
    for n_threads in threads:
        for m in results.machine(n_threads):
            size = f"{m.bytes >> 10} KiB" if m.bytes < 1 << 20 else f"{m.bytes >> 20} MiB"
            name, unit = {
                "clock": ("clock", "GHz"),
                "fma": (f"multiply-adds, {8 * m.bytes} bits", "GFLOP/s"),
                "read": (f"reading {size}", "GB/s"),
            }[m.what]
            found.setdefault(name, []).append(f"{number(m.value / 1e9)} {unit}")
    titles = ["", *(f"{n} thread{'s' * (n != 1)}" for n in threads)]
    return table(titles, [(name, *cells) for name, cells in found.items()])


def iterations(results: Results) -> list[str]:
    """One iteration of the headline against the floor; cycles are those of one thread."""
    clocks = {m.threads: m.value for m in results.measured if m.what == "clock"}
    lines = []
    for m in results.iterations():
        cycles, floor = m.value * clocks[1], floor_cycles(m.labels)
        lines.append(
            (
                m.what,
                str(m.threads),
                f"{1e9 * m.value:.1f} ns",
                f"{1e9 * m.value / m.labels:.2f} ns",
                f"{cycles:.0f}",
                f"{cycles / m.labels:.1f}",
                f"{floor / m.threads:.0f}",
                f"{cycles * m.threads / floor:.1f}",
            )
        )
    titles = ["contender", "threads", "per pixel", "per pixel and label", "cycles per pixel"]
    return table([*titles, "per pixel and label", "floor", "times the floor"], lines)


def training(results: Results) -> list[str]:
    """The PyTorch layer's forward and backward passes, and their memory."""
    return table(
        ["layer", "threads", "forward", "backward", "of pydensecrf2's forward", "peak memory"],
        [
            (
                row.choice,
                str(row.threads),
                f"{number(row.forward_ms)} ms",
                f"{number(row.backward_ms)} ms, x{row.of_forward:.1f}",
                f"x{row.of_peer:.2f}",
                f"{number(row.step_mb)} MB, x{row.of_memory:.1f} of inference",
            )
            for row in results.trained
        ],
    )


def joint(results: Results) -> list[str]:
    """Mean IoU by training and seed, of what the training is for."""
    seeds = sorted({row.seed for row in results.joint})
    found = {(row.training, row.scored, row.seed): row.mean_iou for row in results.joint}
    lines = [
        (words, scored, *(found[training, key, seed] for seed in seeds))
        for words, training, scored, key in (
            ("labels of stride 8", "alone", "network", "network"),
            ("labels of stride 8", "alone", "CRF behind it", "refine"),
            ("labels of every pixel", "every pixel", "network", "network"),
            ("labels of every pixel", "every pixel", "CRF behind it", "refine"),
            ("through the layer", "joint", "network", "network"),
            ("through the layer", "joint", "CRF behind it", "refine"),
            ("through the layer", "joint", "with the layer", "layer"),
        )
        if seeds
    ]
    titles = ["trained on", "scored", *(f"seed {seed}" for seed in seeds), "mean"]
    return table(
        titles,
        [
            [words, scored, *(f"{iou:.2f}" for iou in ious), f"{sum(ious) / len(ious):.2f}"]
            for words, scored, *ious in lines
        ],
    )


def solvers(results: Results) -> list[str]:
    """What each solver reaches in the time of mean field's ten iterations."""
    return table(
        [
            *("images, kernels", "solver", "iterations", "time", "relaxed energy"),
            *("free energy", "of the labels", "mIoU", "accuracy", "in the band"),
        ],
        [
            (
                f"{row.group}, {row.parameters}",
                row.solver,
                str(row.iterations),
                f"{number(row.ms)} ms",
                *(f"{value:+.1f}" for value in (row.relaxed, row.free, row.discrete)),
                *(f"{100 * share:.2f} %" for share in (row.miou, row.accuracy, row.band)),
            )
            for by_solver in results.solvers().values()
            for row in as_long(by_solver)
        ],
    )


def descent(results: Results) -> list[str]:
    """The relaxed energy by the number of iterations."""
    counts = sorted({row.iterations for row in results.solved})
    return table(
        ["images, kernels", "solver", *map(str, counts)],
        [
            (f"{group}, {parameters}", solver, *(f"{row.relaxed:+.1f}" for row in rows))
            for (group, parameters), by_solver in results.solvers().items()
            for solver, rows in by_solver.items()
        ],
    )


def quality(results: Results) -> list[str]:
    """Images: over all pixels, and near boundaries."""
    titles = ["set", "contender", "parameters", "mIoU", "accuracy"]
    return table(
        [*titles, *_BANDS, "seams", "ms"],
        [
            (
                f"{row.set}, {row.images}",
                row.contender,
                f"{row.parameters}, {row.iterations} it." if row.iterations else "",
                *(f"{score:.2f}" for score in row.scores()),
                number(row.ms),
            )
            for row in results.qualities
            if math.isnan(row.dice_whole)
        ],
    )


def limits(results: Results) -> list[str]:
    """The scores alone, the defaults, the field's custom: what helps where."""
    named = {"none": "the scores alone", "default": "defaults", CUSTOM: f"customary, {CUSTOM}"}
    rows = [
        row
        for row in results.qualities
        if row.contender in ("none", OURS)
        and row.parameters in named
        and not row.set.endswith("-crops")
        and math.isnan(row.dice_whole)
    ]
    return table(
        ["images", "", "mIoU", "accuracy", "accuracy within 4"],
        [
            (
                f"{row.set}, {row.images}",
                named[row.parameters],
                f"{row.miou:.2f}",
                f"{row.accuracy:.2f}",
                f"{row.accuracy_4:.2f}",
            )
            for row in rows
        ],
    )


def volumes(results: Results) -> list[str]:
    """Volumes: over all voxels, near boundaries, and Dice of the regions."""
    titles = ["volume", "contender", "parameters", "mIoU", "accuracy"]
    return table(
        [*titles, *_BANDS, "whole", "core", "enhancing", "s"],
        [
            (
                row.set,
                row.contender,
                f"{row.parameters}, {row.iterations} it." if row.iterations else "",
                *(f"{score:.2f}" for score in row.scores()[:-1]),
                *(f"{d:.1f}" for d in (row.dice_whole, row.dice_core, row.dice_enhancing)),
                number(row.ms / 1e3),
            )
            for row in results.qualities
            if not math.isnan(row.dice_whole)
        ],
    )


TABLES: dict[str, Callable[[Results], list[str]]] = {
    made.__name__: made
    for made in (
        speed,
        bars,
        contenders,
        memory,
        images,
        stages,
        instructions,
        machine,
        iterations,
        training,
        joint,
        solvers,
        descent,
        quality,
        limits,
        volumes,
    )
}
