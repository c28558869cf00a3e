# SPDX-License-Identifier: MIT
"""The commands, and the two that refine a few files: ``refine`` and ``show``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from typer import Argument, Exit, Option

from crfseg import __version__, get_num_threads, info, presets
from crfseg._room import Room
from crfseg.batch import (
    Job,
    labels_before,
    load,
    refine_file,
    refine_files,
    refine_loaded,
)
from crfseg.io import write_picture
from crfseg.overlay import overlay, side_by_side, to_rgb
from crfseg.pairs import pair_folders
from crfseg.palette import extend_palette

from .datasets import run
from .evaluation import evaluate
from .options import Files, Model, Speech, spread
from .wording import Complaints, complain, in_options

_EPILOG = """\
IMAGE and SCORES are two files, or two folders whose files belong together by name:
photos/cat.jpg and scores/cat.npy; a file without its partner is reported. OUT is then a file or
a folder. A .png holds labels (the colours of SCORES if that is a palette PNG, else those of PASCAL
VOC; a mask becomes 0 and 255), a .npy holds probabilities. With --kind mask SCORES may be a
saliency map, a grey picture of many levels.
"""

app = typer.Typer(
    help="Dense CRF refinement of segmentations.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"crfseg {__version__}")
        raise Exit


@app.callback()
def _common(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_tell_version, help="print the version")
    ] = False,
) -> None:
    """Dense CRF refinement of segmentations."""


@app.command("refine", epilog=_EPILOG)
@spread
def refine_command(
    image: Annotated[Path, Argument(metavar="IMAGE", help="photograph, or folder of them")],
    scores: Annotated[
        Path, Argument(metavar="SCORES", help=".npy, .npz or label .png, or folder of them")
    ],
    out: Annotated[Path, Option("-o", "--out", help=".png or .npy, or a folder (made if missing)")],
    form: Annotated[
        Literal["png", "npy"], Option("--format", help="what to write into a folder")
    ] = "png",
    *,
    files: Files,
    speech: Speech,
    model: Model,
) -> int:
    """Sharpen class scores, label maps or masks along the edges of their images."""
    is_folder = image.is_dir() or scores.is_dir()
    suffix = f".{form}" if is_folder else out.suffix.lower()
    if not model.is_sound("probs" if suffix == ".npy" else "labels", debug=speech.debug):
        return 2
    if not is_folder:
        speech.say(_refined(Job(image, scores, out), files, speech, model))
        return 0
    pairs, alone = pair_folders(image, scores, out)
    jobs = [Job(pair.image, pair.scores, out / f"{pair.name}{suffix}") for pair in pairs]
    if jobs:
        out.mkdir(parents=True, exist_ok=True)
    for _, sentence in alone:
        complain(ValueError(sentence), speech.debug)
    progress = _Progress(speech, jobs)
    refine_files(
        jobs,
        model.threads or get_num_threads(),
        lambda job, room: _refined(job, files, speech, model, room),
        progress.tell,
    )
    failed = len(alone) + progress.finish()
    speech.say(f"{len(jobs) + len(alone) - failed} refined, {failed} failed")
    return 1 if failed else 0


def _refined(job: Job, files: Files, speech: Speech, model: Model, room: Room | None = None) -> str:
    """Refine one image and return the line about it."""
    return refine_file(
        job,
        model.arguments(),
        reading=files.reading(),
        reword=in_options,
        compare=not speech.quiet,
        room=room,
    )


class _Progress:
    """Tells what became of each image, in their order."""

    def __init__(self, speech: Speech, jobs: Sequence[Job]) -> None:
        self._speech, self._jobs = speech, jobs
        self._complaints = Complaints(speech.debug)
        self._failed = 0

    def tell(self, number: int, outcome: str | Exception) -> None:
        """The line about one image, or a complaint."""
        job, line = self._jobs[number], str(outcome)
        if isinstance(outcome, Exception):
            self._complaints.add(outcome, job.scores.name)
            self._failed += 1
            line = f"{job.image.name}: failed"
        total = len(self._jobs)
        self._speech.say(f"[{number + 1:>{len(str(total))}}/{total}] {line}")

    def finish(self) -> int:
        """List what has been left out so far; how many have failed."""
        self._complaints.list_others()
        return self._failed


app.command("run")(run)


@app.command("show")
@spread
def show_command(
    image: Annotated[Path, Argument(metavar="IMAGE", help="photograph")],
    scores: Annotated[Path, Argument(metavar="SCORES", help=".npy, .npz or label .png")],
    out: Annotated[Path, Option("-o", "--out", help=".png or .jpg to write")],
    opacity: Annotated[
        float, Option(min=0, max=1, help="of the labels' colours", metavar="SHARE")
    ] = 0.5,
    *,
    files: Files,
    speech: Speech,
    model: Model,
) -> int:
    """Draw an image, its labels before and its labels after, side by side."""
    if not model.is_sound("labels", debug=speech.debug):
        return 2
    arguments = model.arguments()
    loaded = load(image, scores, "", arguments, files.reading(), in_options)
    after = refine_loaded(loaded, arguments, "labels", in_options)
    before = labels_before(loaded, arguments, "labels").reshape(after.shape)
    panels = (before, after)
    if loaded.is_mask:
        panels = ((before > 0).astype(np.uint8), after)  # which may be unsure, too
    palette = extend_palette(loaded.palette, 256)
    photograph = to_rgb(loaded.image)
    pictures = [overlay(photograph, labels, palette, opacity=opacity) for labels in panels]
    write_picture(out, side_by_side([photograph, *pictures]))
    speech.say(
        f"{image.name}: {np.mean(panels[0] != panels[1]):.1%} of the labels changed -> {out}"
    )
    return 0


app.command("eval")(evaluate)


@app.command("presets")
@spread
def presets_command(
    name: Annotated[
        str | None, Argument(metavar="NAME|FILE", help="a preset to show in full")
    ] = None,
    *,
    speech: Speech,
) -> int:
    """List published parameters, for --preset."""
    try:
        speech.say(repr(presets.list()) if name is None else str(presets.get(name)))
    except ValueError as error:
        raise ValueError(in_options(str(error))) from error
    return 0


@app.command("info")
@spread
def info_command(speech: Speech) -> int:
    """Describe this installation and the machine it runs on."""
    for name, value in info().items():
        speech.say(f"{name}: {', '.join(value) if isinstance(value, (list, tuple)) else value}")
    return 0
