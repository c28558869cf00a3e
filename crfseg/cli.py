# SPDX-License-Identifier: MIT
"""The command ``crfseg``: refine files, describe the installation.

A failure is one sentence on stderr and exit code 1; a command line that makes no sense is exit
code 2, before any file is read. Of several images a bad one, or one without scores, is reported,
the rest are refined, and the exit code is 1.
"""

import argparse
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crfseg import __version__, get_num_threads, info, refine
from crfseg.batch import Job, Room, check_arguments, pair_folders, refine_file, refine_files

LEFT_OUT = "left out"  # stands for the None of spatial=None, since None is "not given"

EPILOG = """\
IMAGE and SCORES are two files, or two folders whose files belong together by name:
photos/cat.jpg and scores/cat.npy; a file without its partner is reported. OUT is then a file or
a folder. A .png holds labels (the colours
of SCORES if that is a palette PNG, else those of PASCAL VOC; a mask becomes 0 and 255), a .npy
holds probabilities. With --kind mask SCORES may be a saliency map, a grey picture of many levels.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("crfseg: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the one place where a failure becomes a sentence
        complain(error, options.debug)
        return 1
    return code


def complain(error: Exception, debug: bool) -> None:
    """Print one sentence about ``error``, with ``debug`` its traceback as well."""
    if debug:
        traceback.print_exception(error)
    print(f"crfseg: error: {sentence_about(error)}", file=sys.stderr)


def sentence_about(error: Exception) -> str:
    """Word an error on one line."""
    if isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {error.strerror}"
    elif isinstance(
        error, (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
    ):
        sentence = str(error) or type(error).__name__
    else:
        sentence = f"{type(error).__name__}: {error} (unforeseen; --debug shows where)"
    return " ".join(sentence.split())


def advice_about(error: Exception) -> str:
    """What a sentence that names an option expects, whatever was found; "" if it names none."""
    sentence = sentence_about(error)
    names_option = isinstance(error, TypeError | ValueError) and re.search(r"[ (]--[a-z]", sentence)
    return sentence.partition("; ")[2] if names_option else ""


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="crfseg", description="Dense CRF refinement of segmentations."
    )
    parser.add_argument("--version", action="version", version=f"crfseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "refine",
        help="sharpen class scores, label maps or masks along the edges of their images",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run_refine)
    add_file_options(command)
    add_model_options(command)

    command = commands.add_parser("info", help="describe this installation")
    command.set_defaults(run=run_info)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def add_file_options(command: argparse.ArgumentParser) -> None:
    """Add what says which files, and what they hold."""
    command.add_argument("image", type=Path, metavar="IMAGE", help="photograph, or folder of them")
    command.add_argument(
        "scores", type=Path, metavar="SCORES", help=".npy, .npz or label .png, or folder of them"
    )
    command.add_argument(
        "-o", "--out", type=Path, required=True, help=".png or .npy, or a folder (made if missing)"
    )
    command.add_argument(
        *("--format",),
        choices=("png", "npy"),
        default="png",
        help="what to write into a folder (default %(default)s)",
    )
    command.add_argument("--array", metavar="NAME", help="array to read from .npz files")
    command.add_argument(
        *("--exif",),
        choices=("apply", "ignore"),
        help="whether SCORES belong to the image as its EXIF orientation turns it",
    )
    command.add_argument("--quiet", action="store_true", help="print errors only")


def add_model_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``crfseg.refine``; what is not given is left to its defaults."""
    group = command.add_argument_group("arguments of crfseg.refine")
    parameters = inspect.signature(refine).parameters

    def add(name: str, text: str, **details: Any) -> None:
        default = parameters[name].default
        if default is not None:
            parts = default if isinstance(default, tuple) else (default,)
            text += f" (default {' '.join(map(str, parts))})"
        group.add_argument(f"--{name.replace('_', '-')}", help=text, **details)

    add("kind", "what SCORES hold", choices=("auto", "probs", "logits", "labels", "mask"))
    add("layout", "axes of SCORES", choices=("CHW", "HWC", "HW"))
    for name, text, parts in (
        ("spatial", "Gaussian term", ("SIGMA_XY", "WEIGHT")),
        ("bilateral", "bilateral term", ("SIGMA_XY", "SIGMA_RGB", "WEIGHT")),
    ):
        add(name, text, type=float, nargs=len(parts), metavar=parts)
        group.add_argument(
            *(f"--no-{name}",), dest=name, action="store_const", const=LEFT_OUT, help=f"no {text}"
        )
    add("keep_thin", "side of a square: regions that hold none are kept", type=int, metavar="SIDE")
    add("iterations", "mean-field steps", type=int, metavar="N")
    add("tolerance", "stop when no probability changes more", type=float, metavar="CHANGE")
    group.add_argument(
        *("--no-skip",),
        dest="skip",
        action="store_const",
        const=False,
        help="evaluate every label in every iteration, however improbable",
    )
    add("normalization", "of the kernels", choices=("symmetric", "after", "before", "none"))
    add("accuracy", "of the filter", choices=("fast", "fine"))
    add("upsample", "of coarse scores", choices=("auto", "half-pixel", "align-corners", "none"))
    add("confidence", "in label maps and masks", type=float, metavar="P")
    add("ignore_index", "label of unlabelled pixels", type=int, metavar="LABEL")
    add("n_labels", "labels there are in label maps", type=int, metavar="N")
    add("threads", "threads to use", type=int, metavar="N")


MODEL_OPTIONS = (
    *(
        "kind",
        "layout",
        "keep_thin",
        "iterations",
        "tolerance",
        "skip",
        "normalization",
        "accuracy",
    ),
    *("confidence", "ignore_index", "n_labels", "threads"),
)


def model_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``refine`` that the command line gives."""
    given = {name: getattr(options, name) for name in MODEL_OPTIONS}
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("spatial", "bilateral"):
        value = getattr(options, name)
        if value is not None:
            chosen[name] = None if value == LEFT_OUT else tuple(value)
    if options.upsample is not None:
        chosen["upsample"] = False if options.upsample == "none" else options.upsample
    return chosen


def run_info(options: argparse.Namespace) -> int:
    """Print what ``crfseg.info()`` says."""
    del options
    for name, value in info().items():
        print(f"{name}: {', '.join(value) if isinstance(value, (list, tuple)) else value}")
    return 0


def run_refine(options: argparse.Namespace) -> int:
    """Refine one image, or a folder of them."""
    try:
        check_arguments(model_arguments(options))
    except (TypeError, ValueError) as error:
        complain(error, options.debug)
        return 2
    if options.image.is_dir() or options.scores.is_dir():
        return refine_folder(options)
    job = Job(options.image, options.scores, options.out)
    say(options, refine_job(job, options))
    return 0


def refine_job(job: Job, options: argparse.Namespace, room: Room | None = None) -> str:
    """Refine one image and return the line about it."""
    return refine_file(
        job,
        model_arguments(options),
        array=options.array,
        exif=options.exif,
        compare=not options.quiet,
        room=room,
    )


def refine_folder(options: argparse.Namespace) -> int:
    """Refine every image that has scores, with a line of progress for each.

    An option that many files need is asked for once; the other files are listed at the end.
    """
    jobs, alone = pair_folders(options.image, options.scores, options.out, options.format)
    if jobs:
        options.out.mkdir(parents=True, exist_ok=True)
    for sentence in alone:
        complain(ValueError(sentence), options.debug)
    progress = Progress(options, jobs)
    threads = options.threads or get_num_threads()
    refine_files(jobs, threads, lambda job, room: refine_job(job, options, room), progress.tell)
    progress.list_others()
    failed = len(alone) + progress.failed
    say(options, f"{len(jobs) + len(alone) - failed} refined, {failed} failed")
    return 1 if failed else 0


class Progress:
    """Tells what became of each image, in their order."""

    def __init__(self, options: argparse.Namespace, jobs: Sequence[Job]) -> None:
        self._options, self._jobs = options, jobs
        self._asked: dict[str, list[str]] = {}  # advice: names of the files that it is for
        self.failed = 0

    def tell(self, number: int, outcome: str | Exception) -> None:
        """The line about one image, or a complaint; advice that many need is given once."""
        job, line = self._jobs[number], str(outcome)
        if isinstance(outcome, Exception):
            advice = advice_about(outcome)
            if not self._asked.get(advice):
                complain(outcome, self._options.debug)
            if advice:
                self._asked.setdefault(advice, []).append(job.scores.name)
            self.failed += 1
            line = f"{job.image.name}: failed"
        total = len(self._jobs)
        say(self._options, f"[{number + 1:>{len(str(total))}}/{total}] {line}")

    def list_others(self) -> None:
        """The files that need what another one has been asked for."""
        for first, *others in self._asked.values():
            if others:
                more = f"{len(others)} more like {first}: {listed(others)}"
                complain(ValueError(more), debug=False)


def listed(names: Sequence[str]) -> str:
    """A few names, and how many there are besides."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def say(options: argparse.Namespace, line: str) -> None:
    """Print a line at once, so that a log or a pipe shows how far the work is."""
    if not options.quiet:
        print(line, flush=True)
