# SPDX-License-Identifier: MIT
"""The command ``python -m crfseg.torch.train``.

What is wrong with the input is one sentence on stderr and exit code 2.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from crfseg import _check as check
from crfseg._native import why_no_cuda
from crfseg.cli import wording
from crfseg.torch.crf import CRF
from crfseg.torch.models import load_imagenet_weights, load_weights

from . import checkpoint
from .loop import CHECKPOINT, LOG, Event, fit
from .networks import KINDS
from .options import Options
from .pictures import Pictures, count_classes, has_list, layout_of
from .progress import Bar
from .rates import INPUT_UNIT, scale_first_layers
from .schedules import SCHEDULES
from .validation import chosen_refinement

_EPILOG: Final = f"""\
DATA holds JPEGImages, SegmentationClassAug or SegmentationClass, and ImageSets/Segmentation
(PASCAL VOC); or images/NAME.jpg, labels/NAME.png and, where wanted, train.txt and val.txt. Labels
are palette or grey PNGs of class numbers. OUT gets {CHECKPOINT}, which load_weights reads, and
{LOG}.
"""
# Of Options: how it is called, and what it takes. Numbers have the type of their default.
_NUMBERS: Final = {
    "iterations": "steps of the optimizer",
    "batch_size": "crops in a step",
    "rate": "of learning; biases learn twice as fast",
    "step": "iterations between the steps of the rate",
    "gamma": "what a step multiplies the rate with",
    "power": "of --schedule poly",
    "momentum": "of gradient descent",
    "weight_decay": "of weights",
    "classifier_factor": "how much faster the layers of the scores learn",
    "crf_rate": "of learning of the CRF layer",
    "ignore_index": "label of pixels that do not count",
    "seed": "of weights, order, crops and dropout",
    "workers": "processes that read pictures",
    "save_every": "iterations between checkpoints",
}
_VALIDATION: Final = "val"
_DEFAULT_CRF: Final = "by default as published with the network, else as in crfseg.refine"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        train(options)
    except KeyboardInterrupt:
        print("crfseg: interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (ImportError, OSError, TypeError, ValueError) as error:
        wording.complain(error, options.debug)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m crfseg.torch.train",
        description="Train a network of crfseg.torch.models on pictures and label maps.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, choices=tuple(KINDS), help="network")
    add("--data", required=True, type=Path, metavar="DATA", help="folder of pictures and labels")
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the results")
    add("--resume", action="store_true", help="go on with the run in OUT")
    add("--classes", type=int, metavar="N", help="by default the lines of classes.txt; VOC: 21")
    add("--width", type=int, default=64, help="channels of the first block (default %(default)s)")
    add("--train-list", default="train", metavar="NAME", help="list to train on (default train)")
    add(
        "--val-list",
        default=_VALIDATION,
        metavar="NAME",
        help="list to validate on (default %(default)s, if there is one)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights", type=Path, metavar="FILE", help="of this network, to begin with"
    )
    weights.add_argument("--imagenet", type=Path, metavar="FILE", help="of VGG-16, to begin with")
    stages = ", ".join(f"{kind.before} for {name}" for name, kind in KINDS.items() if kind.before)
    weights.add_argument(
        "--from",
        dest="stage",
        type=Path,
        metavar="FILE",
        help=f"of the network of the stage before ({stages}), to begin with",
    )
    add(
        *("--preprocessing",),
        choices=("caffe", "torchvision"),
        default="caffe",
        help="what these weights were trained with (default %(default)s)",
    )
    _add_options(parser.add_argument_group("training"))
    _add_crf(parser.add_argument_group("CRF"))
    add("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def _add_options(group: Any) -> None:
    defaults = {field.name: field.default for field in fields(Options)}
    for name, text in _NUMBERS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(defaults[name]),
            default=defaults[name],
            metavar="N" if isinstance(defaults[name], int) else "X",
            help=f"{text} (default %(default)s)",
        )
    group.add_argument(
        "--schedule", choices=SCHEDULES, default="step", help="of the rate (default %(default)s)"
    )
    group.add_argument(
        "--crop", type=int, metavar="N", help="side of crops (default 321; by the network)"
    )
    group.add_argument(
        "--input-unit",
        type=float,
        metavar="X",
        help="levels; the first layer learns X^2 times slower (default: 64 for random weights, "
        "what checkpoints of --weights and --from were trained with, else 1)",
    )
    group.add_argument(
        "--freeze",
        dest="frozen",
        nargs="+",
        default=(),
        metavar="MODULE",
        help="modules that do not learn, such as trunk classifier behind --from of DeepLab's MSc",
    )
    group.add_argument("--no-mirror", dest="mirror", action="store_false", help="do not mirror")
    group.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    group.add_argument(
        "--validate-every", type=int, metavar="N", help="iterations (default: at the end alone)"
    )


def _add_crf(group: Any) -> None:
    group.add_argument(
        "--crf-layer", action="store_true", help="train a CRF layer with the network"
    )
    for name, parts in (
        ("spatial", ("SIGMA_XY", "WEIGHT")),
        ("bilateral", ("SIGMA_XY", "SIGMA_RGB", "WEIGHT")),
    ):
        group.add_argument(
            f"--{name}",
            type=float,
            nargs=len(parts),
            metavar=parts,
            help=f"term of the CRF in validation and of the layer's beginning, {_DEFAULT_CRF}",
        )


def train(options: argparse.Namespace) -> None:
    """Train, and print validations."""
    chosen = _chosen(options)
    layout_of(options.data)
    n_classes = options.classes or count_classes(options.data)
    labels = {"num_classes": n_classes, "ignore_index": chosen.ignore_index}
    source = Pictures(options.data, options.train_list, **labels)
    validation = None
    if options.val_list != _VALIDATION or has_list(options.data, options.val_list):
        validation = Pictures(options.data, options.val_list, **labels)
    torch.manual_seed(chosen.seed)
    model = _network(options, n_classes, chosen.input_unit)
    refine = _refinement(options, model)
    bar = Bar(sys.stderr, chosen.iterations)
    try:
        fit(
            model,
            source,
            chosen,
            folder=options.out,
            crf=_layer(n_classes, refine, chosen.device) if options.crf_layer else None,
            validation=validation,
            refine=refine,
            resume=options.resume,
            report=partial(_tell, bar),
        )
    finally:
        bar.clear()
    if validation is None:
        print(f"{options.out / CHECKPOINT}: trained; not validated, for there is no val.txt")


def _chosen(options: argparse.Namespace) -> Options:
    names = {field.name for field in fields(Options)} - {"classifier"}
    given = {name: getattr(options, name) for name in names}
    crop = KINDS[options.model].crop if options.crop is None else options.crop
    unit = options.input_unit
    if unit is None:
        begun = options.weights or options.stage
        unit = INPUT_UNIT if _is_random(options) else checkpoint.unit_of(begun) if begun else 1.0
    return Options(**{**given, "crop": crop, "input_unit": unit, "frozen": tuple(options.frozen)})


def _network(options: argparse.Namespace, n_classes: int, input_unit: float) -> nn.Module:
    model = KINDS[options.model].make(num_classes=n_classes, width=options.width)
    if _is_random(options):
        scale_first_layers(model, input_unit)
    if not options.resume:
        _load(options, model, n_classes)
    return model


def _load(options: argparse.Namespace, model: Any, n_classes: int) -> None:
    """The weights to begin with, if some are given."""
    how = {"preprocessing": options.preprocessing}
    if options.weights is not None:
        load_weights(model, options.weights, **how)
    if options.imagenet is not None:
        load_imagenet_weights(model, options.imagenet, **how)
    if options.stage is not None:
        before = KINDS[options.model].before
        if before is None:
            staged = check.options(name for name, kind in KINDS.items() if kind.before)
            raise ValueError(f"--from: {options.model} has no stage before it; expected {staged}")
        coarser = KINDS[before].make(num_classes=n_classes, width=options.width)
        load_weights(coarser, options.stage, **how)
        model.initialize_from(coarser)


def _is_random(options: argparse.Namespace) -> bool:
    return options.weights is None and options.imagenet is None and options.stage is None


def _refinement(options: argparse.Namespace, model: nn.Module) -> Mapping[str, Any]:
    """Arguments of ``crfseg.refine``."""
    given = {name: getattr(options, name) for name in ("spatial", "bilateral")}
    terms = {name: tuple(value) for name, value in given.items() if value is not None}
    return {**chosen_refinement(model, None), **terms}


def _layer(n_classes: int, refine: Mapping[str, Any], device: str) -> CRF:
    """A layer that begins as the CRF of validation is; on the CPU if it has no other device."""
    names = ("spatial", "bilateral", "normalization")
    layer = CRF(n_classes, **{name: refine[name] for name in names if name in refine})
    return layer.to(device if why_no_cuda() is None else "cpu")


def _tell(bar: Bar, event: Event) -> None:
    """A bar on stderr, and a line on stdout for each validation."""
    if "loss" in event:
        bar.show(event["iteration"], event["loss"])
    elif "validation" in event:
        bar.clear()
        scores = "; ".join(_line(*item) for item in event["validation"].items())
        print(f"iteration {event['iteration']}: {scores}", flush=True)


def _line(name: str, scores: Mapping[str, float]) -> str:
    """Per cent, under a title that says what was scored."""
    title = {"network": "without CRF", "refine": "with CRF", "layer": "with CRF layer"}[name]
    iou, accuracy = (100 * scores[key] for key in ("mean_iou", "pixel_accuracy"))
    return f"{title} mIoU {iou:.2f} accuracy {accuracy:.2f}"
