# SPDX-License-Identifier: MIT
"""``crfseg run``: a whole data set, with a bar that tells how fast and how long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from typer import Option

from crfseg.dataset import Report, refine_dataset
from crfseg.pairs import read_names

from .options import Files, Listing, Model, Speech, spread
from .wording import Complaints, in_options


@spread
def run(
    images: Annotated[
        Path, Option("--images", metavar="DIR", help="photographs, in folders inside as well")
    ],
    scores: Annotated[
        Path,
        Option("--scores", metavar="DIR", help=".npy, .npz or label .png files of their names"),
    ],
    out: Annotated[Path, Option("-o", "--out", metavar="DIR", help="folder (made if missing)")],
    listing: Listing = None,
    probs: Annotated[
        bool, Option("--probs/--labels", help="write .npy files of probabilities, or label PNGs")
    ] = False,
    palette: Annotated[
        str | None,
        Option(
            metavar="voc|grey|FILE",
            help="of the label PNGs; FILE is a palette PNG or lines R G B (default: that of "
            "SCORES if they are palette PNGs, else voc)",
        ),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="leave out what an earlier run has made of the same")
    ] = False,
    compare: Annotated[
        Literal["time", "contents"],
        Option(help="what tells that a file has changed: size and time, or its contents"),
    ] = "time",
    workers: Annotated[
        int | None,
        Option(min=1, metavar="N", help="images at a time (default: as many as threads)"),
    ] = None,
    *,
    files: Files,
    speech: Speech,
    model: Model,
) -> int:
    """Refine a data set, images side by side, and note what has been made of what.

    Bad files are told about and left out, and the exit code is then 1.

    Whatever stops it, what has been written is valid, and --resume goes on from there.
    """
    returns = "probs" if probs else "labels"
    if not model.is_sound(returns, debug=speech.debug):
        return 2
    bar = _Bar(speech)
    with bar.shown():
        summary = refine_dataset(
            images,
            scores,
            out=out,
            names=None if listing is None else read_names(listing),
            returns=returns,
            palette=palette,
            resume=resume,
            compare=compare,
            workers=workers,
            **files.reading()._asdict(),
            tell=bar.tell,
            reword=in_options,
            **model.arguments(),
        )
    speech.say(f"{summary} -> {out}")
    return 1 if summary.failed else 0


class _Bar:
    """What is seen of a run: a bar where stderr is a terminal, and complaints."""

    def __init__(self, speech: Speech) -> None:
        console = Console(stderr=True)
        self._complaints = Complaints(speech.debug)
        self._progress = Progress(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            disable=speech.quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, pace="")
        self._began: float | None = None
        self._done = self._refined = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While it moves; then what has been left out so far is listed."""
        with self._progress:
            yield
        self._complaints.list_others()

    def tell(self, report: Report) -> None:
        """One image is done."""
        self._done += 1
        if report.error is not None:
            self._complaints.add(report.error, report.name)
        if report.outcome == "refined":
            self._refined += 1
        self._progress.update(
            self._task, completed=self._done, total=report.n_items, pace=self._pace(report.n_items)
        )

    def _pace(self, n_items: int | None) -> str:
        """Images refined in a second, and how long the rest will take at that."""
        if self._began is None:  # what was done before comes first, and takes no time
            self._began, self._refined = time.monotonic(), 0
        if not self._refined:
            return ""
        rate = self._refined / max(time.monotonic() - self._began, 1e-9)
        left = "" if n_items is None else f", {_duration((n_items - self._done) / rate)} left"
        return f"{rate:.1f} images/s{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
