# SPDX-License-Identifier: MIT
"""CRF: a dense CRF as a layer whose parameters are learned with the network before it.

Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg import presets
from crfseg._native import NORMALIZATIONS
from crfseg.lattice import ACCURACIES
from crfseg.solvers import MeanField, Solver, resolve

from . import _arguments as arguments
from ._crfrnn import read_parameters
from ._model import FORMS
from ._pixels import bilateral_features, check_image, coordinates
from .solvers import infer, not_implicit

_WHERE: Final = "CRF"
_LEARNED: Final = ("weights", "compatibility", "sigmas")
_OF_PRESETS: Final = ("spatial", "bilateral", "normalization", "accuracy", "solver")


class CRF(nn.Module):
    """Fully connected CRF over pixels, from logits and images to logits.

    ``CRF(num_classes=21)(logits, image)`` runs mean field (Krähenbühl & Koltun, NIPS 2011), or
    another solver of the same energy, with a spatial and a bilateral kernel:

        Z = logits - sum_k mu diag(w_k) K~_k Q,   Q = softmax(Z)

    Args:
        num_classes: C, at least 2: a foreground has a background.
        spatial: initial (sigma_xy, weight) of the spatial kernel, sigma in pixels; None for none.
        bilateral: initial (sigma_xy, sigma_rgb, weight) of the bilateral kernel, sigma_rgb in
            levels of 0..255; None for none.
        weights: "scalar", one weight for each kernel; "class", one for each class, w_k(b) of the
            other point's; "matrix", (C, C) in the place of diag(w_k), as CRF-RNN has it.
        compatibility: "matrix", a learned mu(own class, other's) that begins with -1 where the
            classes agree and 0 elsewhere, which is Potts' model; "potts", where it stays.
        learn: which of "weights", "compatibility" and "sigmas" require gradients from the start.
            Sigmas cost two lattices each, and a filter of each in every step back.
        training_iterations: mean-field steps in training (``self.training``).
        eval_iterations: mean-field steps in evaluation, usually more.
        normalization: of the kernels: "symmetric", "after", "before" or "none".
        accuracy: "fast" or "fine", as for ``crfseg.refine``.
        output: "logits" Z, or "marginals" Q = softmax(Z).
        recompute: keep a third of the memory for the way back, and find the rest again.
        last: differentiate through so many last steps alone; None: through all.
        implicit: run until the marginals come to rest, the iterations being the most steps that are
            done, and differentiate the fixed point.
        image_gradient: how images get gradients: "exact" or "smooth" (see ``mean_field``); None:
            they get none.
        sigma_step: see ``mean_field``.
        solver: ``MeanField``, ``FrankWolfe`` or a name, see ``crfseg.torch.infer``.

    Parameters:
        ``spatial_weight``, ``bilateral_weight``: (), (C,) or (C, C).
        ``compatibility``: (C, C), where it is learned.
        ``spatial_log_sigma`` (1,): log sigma_xy. ``bilateral_log_sigmas`` (2,): log sigma_xy and
        log sigma_rgb. Sigmas are positive whatever is learned; weights and compatibility may have
        any sign.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    spatial_weight: nn.Parameter | None
    spatial_log_sigma: nn.Parameter | None
    bilateral_weight: nn.Parameter | None
    bilateral_log_sigmas: nn.Parameter | None
    compatibility: nn.Parameter | None

    def __init__(
        self,
        num_classes: int,
        *,
        spatial: tuple[float, float] | None = (3.0, 3.0),
        bilateral: tuple[float, float, float] | None = (80.0, 13.0, 10.0),
        weights: str = "class",
        compatibility: str = "matrix",
        learn: Sequence[str] = ("weights", "compatibility"),
        training_iterations: int = 5,
        eval_iterations: int = 10,
        normalization: str = "symmetric",
        accuracy: str = "fast",
        output: str = "logits",
        recompute: bool = False,
        last: int | None = None,
        implicit: bool = False,
        image_gradient: str | None = None,
        sigma_step: float = 0.05,
        solver: Solver = "mean-field",
    ) -> None:
        super().__init__()
        self.num_classes = check.integer(_WHERE, "num_classes", num_classes, at_least=1)
        if num_classes == 1:
            raise check.invalid(
                _WHERE,
                "num_classes is 1, and one class has probability 1 everywhere; expected 2 for a "
                "foreground, with logits torch.cat([0 * x, x], 1)",
            )
        check.choice(_WHERE, "weights", weights, ("scalar", "class", "matrix"))
        check.choice(_WHERE, "compatibility", compatibility, ("matrix", "potts"))
        self.training_iterations = check.integer(_WHERE, "training_iterations", training_iterations)
        self.eval_iterations = check.integer(_WHERE, "eval_iterations", eval_iterations)
        self.normalization = check.choice(
            _WHERE, "normalization", normalization, tuple(NORMALIZATIONS)
        )
        self.accuracy = check.choice(_WHERE, "accuracy", accuracy, tuple(ACCURACIES))
        self.output = check.choice(_WHERE, "output", output, ("logits", "marginals"))
        self.recompute = check.flag(_WHERE, "recompute", recompute)
        self.implicit = check.flag(_WHERE, "implicit", implicit)
        self.last = None if last is None else check.integer(_WHERE, "last", last)
        self.image_gradient = check.choice(_WHERE, "image_gradient", image_gradient, (None, *FORMS))
        self.sigma_step = check.between(_WHERE, "sigma_step", sigma_step, zero=True)
        self.solver = resolve(_WHERE, solver)
        if self.implicit and self.solver != MeanField():
            raise not_implicit(_WHERE, self.solver)
        self._add_kernel("spatial", spatial, ("sigma_xy", "weight"), weights)
        self._add_kernel("bilateral", bilateral, ("sigma_xy", "sigma_rgb", "weight"), weights)
        is_learned = compatibility == "matrix"
        mu = nn.Parameter(-torch.eye(self.num_classes)) if is_learned else None
        self.register_parameter("compatibility", mu)
        self._learn(learn)

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike[str] | presets.Preset, num_classes: int, **options: Any
    ) -> "CRF":
        """Begin with published parameters.

        Args:
            preset: as for ``crfseg.refine``, "crf-rnn" for one; its iterations are those of
                evaluation.
            num_classes: C.
            options: of ``CRF``, in the place of the preset's.

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        published = presets.get(preset).options
        own = {name: published[name] for name in _OF_PRESETS if name in published}
        if "iterations" in published:
            own["eval_iterations"] = published["iterations"]
        return cls(num_classes, **(own | options))

    def load_crfrnn(
        self, parameters: Mapping[str, Any] | Sequence[Any], *, update: str | None = None
    ) -> None:
        """Load what CRF-RNN and its ports have learned.

        Args:
            parameters: arrays (C, C) under names that end in ``spatial_ker_weights``,
                ``bilateral_ker_weights`` and ``compatibility_matrix`` (Keras, TensorFlow and
                PyTorch ports; ``spatial_weights`` and ``bilateral_weights`` as well); or the three
                in this order, as a Caffe layer's blobs.
            update: whether the port adds what the compatibility gives to the logits ("add") or
                subtracts it ("subtract"); None: so that labels attract their like, as all begin.

        Kernel weights that are not diagonal need ``CRF(weights="matrix")``.

        Raises:
            TypeError, ValueError: if this layer or the parameters are of another form.
        """
        where = "CRF.load_crfrnn"
        check.choice(where, "update", update, (None, "add", "subtract"))
        into = (self.spatial_weight, self.bilateral_weight, self.compatibility)
        if into[0] is None or any(parameter is None for parameter in into):
            raise check.invalid(
                where, "the layer lacks a part; expected both kernels and compatibility='matrix'"
            )
        found = read_parameters(where, parameters, self.num_classes, into[0].ndim, update)
        with torch.no_grad():
            for parameter, value in zip(into, found, strict=True):
                if parameter is not None:
                    parameter.copy_(value)

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Refine a batch.

        Args:
            logits: (N, C, H, W), of any float dtype and strides.
            image: (N, 3, H, W) levels of 0..255, float or uint8; any number of channels up to 14.

        Returns:
            (N, C, H, W) in the dtype of ``logits`` (float32 under autocast).

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        self._check(logits, image)
        features, sigmas, groups, couplings = [], [], [], []
        for name, sigma in self._sigmas().items():
            is_spatial = name == "spatial"
            features.append(
                coordinates(logits) if is_spatial else bilateral_features(logits, image)
            )
            groups.append([0, 0] if is_spatial else [0, 0] + [1] * image.shape[1])
            sigmas.append(sigma)
            couplings.append(self._coupling(getattr(self, f"{name}_weight")))
        iterations = self.training_iterations if self.training else self.eval_iterations
        return infer(
            logits,
            features,
            couplings,
            iterations,
            solver=self.solver,
            sigmas=sigmas,
            groups=groups,
            output=self.output,
            normalization=self.normalization,
            accuracy=self.accuracy,
            last=None if self.last is None else min(self.last, iterations),
            recompute=self.recompute,
            implicit=self.implicit,
            feature_gradient=self.image_gradient or "exact",
            sigma_step=self.sigma_step,
        )

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        sigmas = {name: [f"{s:.3g}" for s in sigma] for name, sigma in self._sigmas().items()}
        named = ", ".join(f"{name} sigma {' '.join(each)}" for name, each in sigmas.items())
        solver = "" if self.solver == MeanField() else f", solver {self.solver}"
        return (
            f"{self.num_classes}, {named}, iterations {self.training_iterations} in training and "
            f"{self.eval_iterations} in evaluation, normalization {self.normalization!r}{solver}"
        )

    def _add_kernel(self, name: str, given: Any, parts: tuple[str, ...], weights: str) -> None:
        """Register a kernel's weight and the logarithms of its sigmas, or that there is none."""
        log_name = f"{name}_log_sigma" + "s" * (len(parts) > 2)
        if given is None:
            self.register_parameter(f"{name}_weight", None)
            self.register_parameter(log_name, None)
            return
        *sigmas, weight = check.parts(_WHERE, name, given, parts)
        sigmas = [
            check.positive(_WHERE, f"{name} {part}", sigma)
            for part, sigma in zip(parts, sigmas, strict=False)
        ]
        value = torch.tensor(check.finite(_WHERE, f"{name} weight", weight))
        if weights == "class":
            value = value.repeat(self.num_classes)
        elif weights == "matrix":
            value = value * torch.eye(self.num_classes)
        self.register_parameter(f"{name}_weight", nn.Parameter(value))
        self.register_parameter(log_name, nn.Parameter(torch.tensor(sigmas).log()))

    def _learn(self, learn: Any) -> None:
        for name in arguments.sequence(_WHERE, "learn", learn, f"a tuple out of {_LEARNED}"):
            check.choice(_WHERE, "learn", name, _LEARNED)
        of_names = {"weight": "weights", "compatibility": "compatibility"}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(of_names.get(name.split("_")[-1], "sigmas") in learn)

    def _sigmas(self) -> dict[str, Tensor]:
        """The sigmas of the kernels there are."""
        logs = {"spatial": self.spatial_log_sigma, "bilateral": self.bilateral_log_sigmas}
        return {name: log.exp() for name, log in logs.items() if log is not None}

    def _coupling(self, weight: Tensor) -> Tensor:
        """M = -mu diag(w), or -mu W; without learned compatibility, its diagonal alone."""
        if self.compatibility is None:
            return weight if weight.ndim else weight.expand(self.num_classes)
        if weight.ndim < 2:
            return -self.compatibility * weight
        with torch.autocast(weight.device.type, enabled=False):
            return -self.compatibility @ weight

    def _check(self, logits: Any, image: Any) -> None:
        arguments.same_device(
            _WHERE, ("logits", logits), ("image", image), ("the layer", self._anything())
        )
        arguments.tensor(_WHERE, "logits", logits)
        arguments.tensor(_WHERE, "image", image, arguments.LEVELS)
        expected = f"(N, {self.num_classes}, H, W)"
        if logits.ndim == 3:
            expected += ": logits[None] is a batch of one"
        fits = logits.ndim == 4 and logits.shape[1] == self.num_classes
        arguments.shape(_WHERE, "logits", logits, fits, expected)
        if logits.shape[2] == 0 or logits.shape[3] == 0:
            raise fault.empty(_WHERE, "logits", tuple(logits.shape))
        n_items, _, height, width = logits.shape
        check_image(_WHERE, image, n_items, (height, width))
        if image.requires_grad and torch.is_grad_enabled() and self.image_gradient is None:
            raise check.invalid(
                _WHERE,
                "image requires a gradient but image_gradient is None; expected "
                "CRF(image_gradient='exact') or 'smooth', or image.detach()",
            )

    def _anything(self) -> Tensor | None:
        return next(self.parameters(), None)
