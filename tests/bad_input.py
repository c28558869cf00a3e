# SPDX-License-Identifier: MIT
"""What tests of errors share: good input, ways to spoil it, and the check of a sentence."""

import numpy as np
import pytest

C, H, W = 3, 4, 6
RNG = np.random.default_rng(7)
IMAGE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
PROBS = RNG.dirichlet(np.ones(C), (H, W)).transpose(2, 0, 1).astype(np.float32)
LOGITS = np.log(PROBS) + 1.5
LABELS = PROBS.argmax(0)
MASK = PROBS[0] > 0.4
UNARY = -np.log(PROBS)
POINTS = RNG.normal(size=(H * W, 2))
GIANT = 10**7  # broadcast views of this many rows and columns take no memory until they are read


def put(array, index, value):
    """A copy with one entry changed."""
    changed = np.array(array)
    changed[index] = value
    return changed


def giant(shape, value=0.5, dtype=np.float32):
    """A view of one number as a huge array: reading it all would never end."""
    return np.broadcast_to(np.array(value, dtype), shape)


def case(name, call, error, *fragments):
    """A call that must fail, and what the sentence must hold."""
    return pytest.param(call, error, fragments, id=name)


def assert_named(call, error, fragments):
    """Exactly this type, with a one-line sentence that begins with the public name."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    sentence = str(caught.value)
    for fragment in fragments:
        assert fragment in sentence
    assert sentence.startswith("[")
    assert "\n" not in sentence
