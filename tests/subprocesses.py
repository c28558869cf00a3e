# SPDX-License-Identifier: MIT
"""Scripts in a Python of their own: for what forks, is interrupted or measures memory."""

import subprocess
import sys
import textwrap

# A CRF that takes several milliseconds per iteration, on more than one chunk of work.
SETUP = """
import os, signal, sys, threading, time
import numpy as np
import crfseg

def problem(seed=0, height=90, width=120, n_labels=6):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height // 6, width // 6, 3)).repeat(6, 0).repeat(6, 1)
    image = (0.7 * image + rng.integers(0, 70, image.shape)).astype(np.uint8)
    scores = rng.normal(scale=2, size=(n_labels, height // 6, width // 6)).repeat(6, 1).repeat(6, 2)
    e = np.exp(scores + rng.normal(size=scores.shape))
    return (e / e.sum(0)).astype(np.float32), image

def fork_during(work, is_as_ever):
    # Ten children, each born while another thread does `work`.
    stop = threading.Event()
    def go_on():
        while not stop.is_set():
            work()
    worker = threading.Thread(target=go_on)
    worker.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0 if is_as_ever() else 4)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    worker.join()
"""


def run_script(body: str, *, timeout: float = 60) -> str:
    """Standard output of ``body`` after SETUP; a hang or a failure is an AssertionError.

    -I keeps the source folder off sys.path. Python 3.12 and newer warn of fork in a process with
    threads, which is exactly what some scripts are about.
    """
    script = textwrap.dedent(SETUP) + textwrap.dedent(body)
    command = [
        sys.executable,
        "-I",
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        script,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as hang:
        raise AssertionError(f"no end after {timeout} s; output so far: {hang.stdout!r}") from hang
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
