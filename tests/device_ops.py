# SPDX-License-Identifier: MIT
"""The ops' kernels for CUDA devices in the place of the CPU's, over the emulation; a problem."""

from contextlib import contextmanager

import numpy as np
import pytest

H, W, C = 7, 9, 3


class Stream:
    """The one that there is."""

    cuda_stream = 0

    def __eq__(self, other):
        return isinstance(other, Stream)

    __hash__ = None


@pytest.fixture
def on_device(emulated, monkeypatch):
    """``with on_device():`` makes the ops take CPU tensors for those of a device."""
    import torch

    from crfseg.torch import ops

    all_ops = (
        ops.mean_field_op,
        ops.mean_field_backward_op,
        ops.lattices_op,
        ops.filter_op,
        ops.filter_backward_op,
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())

    @contextmanager
    def swapped():
        with monkeypatch.context() as patch:
            for op in all_ops:
                patch.setitem(op._backend_fns, "cpu", op._backend_fns["cuda"])
            yield emulated

    return swapped


class Problem:
    """Images, of each a spatial kernel that all share and a bilateral one of its own."""

    def __init__(self, rng, n_items=3, dtype="float32", device="cpu"):
        import torch

        def tensor(array):
            found = torch.tensor(array, dtype=getattr(torch, dtype), device=device)
            return found.requires_grad_()

        y, x = np.divmod(np.arange(H * W), W)
        places = np.stack([x, y], axis=1)[None]
        colours = 40 * (x // 4 % 2)[None, :, None] + rng.uniform(0, 30, (n_items, H * W, 2))
        both = np.concatenate([places.repeat(n_items, 0), colours], axis=2)
        self.logits = tensor(rng.normal(size=(n_items, C, H, W)))
        self.features = [tensor(places), tensor(both)]
        self.sigmas = [tensor([1.7]), tensor([5.0, 13.0])]
        self.groups = [[0, 0], [0, 0, 1, 1]]
        self.couplings = [
            tensor(rng.uniform(0.1, 0.5, C)),
            tensor(rng.uniform(-0.2, 0.4, (C, C))),
        ]
        self.weights = torch.tensor(
            rng.normal(size=self.logits.shape), dtype=torch.float32, device=device
        )

    @property
    def tensors(self):
        return [self.logits, *self.features, *self.sigmas, *self.couplings]

    def output(self, iterations=3, **options):
        from crfseg.torch import mean_field

        return mean_field(
            self.logits,
            self.features,
            self.couplings,
            iterations,
            sigmas=self.sigmas,
            groups=self.groups,
            **options,
        )

    def found(self, **options):
        """The output, and dLoss by all tensors."""
        import torch

        output = self.output(**options)
        loss = (output * self.weights).sum()
        return [output.detach(), *torch.autograd.grad(loss, self.tensors)]


def assert_same(found, expected, rtol=1e-4):
    """The first is a result; the others are slopes, of which the largest says what is small."""
    import torch

    torch.testing.assert_close(found[0].cpu(), expected[0].cpu(), rtol=0, atol=1e-5)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        largest = float(other.abs().max())
        assert largest > 0
        torch.testing.assert_close(one.cpu(), other.cpu(), rtol=0, atol=rtol * largest)
