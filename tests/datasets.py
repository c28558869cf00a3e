# SPDX-License-Identifier: MIT
"""Small data sets in folders, and what a run over one must leave behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from command import doubtful_scores, stripes
from crfseg.dataset import SUMMARY
from crfseg.io import read_array, read_labels, write_picture
from crfseg.manifest import NAME


def sample(i):
    """An image and scores for it, others for every number."""
    return np.roll(stripes(), i, axis=1), np.roll(doubtful_scores(), i, axis=2)


def make_dataset(folder, names=("a", "b", "in/c", "in/deep/d")):
    """Folders ``images`` and ``scores`` in ``folder``."""
    for i, name in enumerate(names):
        image, scores = folder / "images" / f"{name}.png", folder / "scores" / f"{name}.npy"
        for path in (image, scores):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(image, sample(i)[0])
        np.save(scores, sample(i)[1])
    return folder


def command_line(folder, *options):
    """The words of a run over such folders."""
    names = [word for name in ("images", "scores", "out") for word in (f"--{name}", folder / name)]
    return ["run", *map(str, names), *map(str, options)]


# As `python -m crfseg`, but that Ctrl-C may be inherited as ignored.
COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("crfseg", run_name="__main__", alter_sys=True)
"""


def start_command(folder, *options):
    """The same in a process of its own."""
    words = [sys.executable, "-I", "-c", COMMAND, *command_line(folder, *options)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(out):
    """Files of results by name, when each was written, and nothing else."""
    return {
        path.relative_to(out).as_posix(): path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and path.name not in (NAME, SUMMARY)
    }


def noted(out):
    """Results on the manifest, with what the last whole line says of each."""
    found = {}
    for line in (out / NAME).read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["name"]] = entry
    return {name: entry for name, entry in found.items() if entry["key"] is not None}


def summary(out):
    return json.loads((out / SUMMARY).read_text())


def assert_all_valid(out):
    """Every file is one that reads well: no partial one, and none of another kind."""
    for name in results(out):
        path = Path(out) / name
        assert (read_labels(path).labels if path.suffix == ".png" else read_array(path)).size
