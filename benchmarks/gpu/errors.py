# SPDX-License-Identifier: MIT
"""What goes wrong is an exception that says what, and the context stays usable."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import crfseg
from gpu import scenes
from gpu.expected import ITERATIONS, KERNELS, MODEL
from gpu.native import Native
from gpu.place import native_module, place_of
from gpu.sections import Context

LABELS = 64  # of what does not fit


class Trial:
    """Runs what has to fail, and after it what has to give what it gave before."""

    def __init__(self, context: Context) -> None:
        self._report = context.report
        self._native = Native(native_module(context), place_of(context))
        self._images, self._logits = scenes.blocks(1, 17, 33), scenes.logits(1, 5, 17, 33)
        self._expected = self._result()

    def fails(
        self, what: str, work: Callable[[], Any], kinds: tuple[type[Exception], ...], words: str
    ) -> None:
        """``words``: what the error has to say, as a regular expression."""
        try:
            work()
        except kinds as error:
            text = f"{type(error).__name__}: {error}"
            found = re.search(words, f"{text} {error.args}") is not None
            self._report.holds(f"{what} is an error that says what", found, text[:300])
        except Exception as error:
            self._report.holds(f"{what} is an error that says what", False, repr(error)[:300])
        else:
            self._report.holds(f"{what} is an error that says what", False, "there was none")
        with self._report.part(f"results after {what}"):
            torch.cuda.synchronize()
            same = np.array_equal(self._result(), self._expected)
            self._report.holds(f"results after {what}", same)

    def _result(self) -> Any:
        return self._native.marginals(self._logits, self._images, KERNELS, ITERATIONS)


def run(context: Context) -> None:
    module = native_module(context)
    native = Native(module, place_of(context))
    trial = Trial(context)
    beyond = torch.cuda.get_device_properties(0).total_memory * 3 // 2

    def large_field() -> None:
        size = (1, LABELS, 1, beyond // (4 * LABELS))
        native.field(native.place.put(np.zeros(1, np.float32)), size, [])

    trial.fails("a field beyond memory", large_field, (module.OutOfDeviceMemory,), r"\d{9}")

    def narrow_room() -> None:
        held = native.place.put(scenes.noise(1, 40, 50))
        lattice = native.lattice(held, 1, (40, 50), 80.0, 13.0, (1 << 16, 10))
        lattice.check(device=0, stream=native.place.stream)

    trial.fails("a lattice without room", narrow_room, (module.NoRoom,), r"room for \d+ vertices")
    with context.report.part("refine"):
        of_refine(trial)


def of_refine(trial: Trial) -> None:
    image = torch.from_numpy(scenes.blocks(1, 17, 33)).cuda()
    logits = torch.from_numpy(scenes.logits(1, 5, 17, 33)).cuda()

    def with_nan() -> None:
        bad = logits.clone()
        bad[0, 2, 3, 4] = float("nan")
        crfseg.refine(bad, image, **MODEL)

    def without_memory() -> None:
        size = (512, 512)
        many = torch.zeros(16, LABELS, *size, device="cuda")
        images = torch.zeros(16, *size, 3, dtype=torch.uint8, device="cuda")
        torch.cuda.empty_cache()
        taken = torch.cuda.memory_reserved() + (64 << 20)
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(taken / total)
        try:
            crfseg.refine(many, images, **MODEL)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    trial.fails("NaN in x", with_nan, (ValueError,), "x")
    trial.fails(
        "a wrong size",
        lambda: crfseg.refine(logits, image[:, :-1], **MODEL),
        (ValueError,),
        "image",
    )
    memory = (MemoryError, torch.cuda.OutOfMemoryError)
    trial.fails(
        "refine beyond memory", without_memory, memory, r"\d+(\.\d+)? ?([KMGT]i?B|bytes)|\d{7}"
    )
