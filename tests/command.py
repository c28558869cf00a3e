# SPDX-License-Identifier: MIT
"""The command line in tests: a photograph, scores, calls, and what a failure looks like."""

import numpy as np

from crfseg import cli

HEIGHT, WIDTH, LABELS = 24, 32, 3


def stripes():
    """A photograph: three coloured stripes with a little noise."""
    rng = np.random.default_rng(11)
    colors = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])[np.arange(WIDTH) * 3 // WIDTH]
    noise = rng.integers(-9, 10, (HEIGHT, WIDTH, 3))
    return (colors + noise).astype(np.uint8)


def doubtful_scores():
    """Scores that know the stripes, three pixels too far to the right, and doubt themselves."""
    labels = np.clip((np.arange(WIDTH) - 3) * 3 // WIDTH, 0, 2)
    rng = np.random.default_rng(12)
    scores = 2.0 * (labels == np.arange(LABELS)[:, None, None]) + rng.random((3, HEIGHT, WIDTH))
    return (np.exp(scores) / np.exp(scores).sum(0)).astype(np.float32)


def call(folder, *arguments):
    """Run the command with names of files in ``folder``; options and numbers stay as they are."""
    names = [str(folder / a) if "." in a and not a[0].isdigit() else a for a in arguments]
    return cli.main(names)


def only_sentence(capsys):
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert err.startswith("crfseg: error: ")
    assert err.count("\n") == 1
    return out, err
