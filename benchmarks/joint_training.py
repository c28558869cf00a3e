# SPDX-License-Identifier: MIT
"""Does training a CRF layer with the network beat a CRF behind the trained network?

    python benchmarks/joint_training.py --data DIR

DIR has images, labels, train.txt, val.txt and classes.txt. A small DeepLab-LargeFOV is trained
from random weights on four fifths of the training pictures; then it is trained on for the same
number of iterations, with the same crops: alone, with a loss of every pixel (which is what a layer
sees), and with a CRF layer. The CRF's first parameters are chosen from a grid on the remaining
fifth, for post-processing and layer alike. All of that for every seed. Prints rows, and writes them
as CSV.
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from crfseg.torch import CRF
from crfseg.torch.models import deeplab_v1, load_weights
from crfseg.torch.train import Options, Pictures, fit, scale_first_layers, validate
from crfseg.torch.train.loop import CHECKPOINT
from crfseg.torch.train.pictures import count_classes
from crfseg.torch.train.rates import INPUT_UNIT
from table import read_machine, write_csv
from training import Joint

TUNED_ON_EVERY = 5  # training pictures, kept from training
GRID = {
    "spatial": [(1.5, 0.3), (1.5, 1.0), (3.0, 1.0)],
    "bilateral": [(xy, rgb, w) for xy in (10.0, 40.0) for rgb in (5.0, 13.0) for w in (0.5, 2.0)],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=2400, help="alone, before the comparison")
    parser.add_argument("--more", type=int, default=600, help="of the comparison")
    parser.add_argument(
        "--width", type=int, default=8, help="channels of the network's first block"
    )
    parser.add_argument("--every", type=int, default=1, help="validation pictures that are taken")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("build/joint_training.csv"))
    return parser.parse_args()


def report(event):
    if event["iteration"] % 50 == 0 and "loss" in event:
        print(f"  iteration {event['iteration']}: loss {event['loss']:.3f}", flush=True)


def chosen(model, pictures):
    """The grid's best mean IoU."""
    tried = [dict(zip(GRID, terms, strict=True)) for terms in itertools.product(*GRID.values())]
    plain = {**model.crf_parameters, "normalization": "symmetric"}
    ious = [validate(model, pictures, refine=plain | terms)["refine"].mean_iou() for terms in tried]
    return plain | tried[ious.index(max(ious))]


def rows(training, scores, seed, pictures):
    return [
        Joint(
            training,
            name,
            seed,
            pictures,
            round(100 * confusion.mean_iou(), 2),
            round(100 * confusion.pixel_accuracy(), 2),
        )
        for name, confusion in scores.items()
    ]


def compared(options, seed, folder):
    n_classes = count_classes(options.data)
    pictures = [*Pictures(options.data, "train", num_classes=n_classes)]
    tuned_on = pictures[::TUNED_ON_EVERY]
    trained_on = [p for i, p in enumerate(pictures) if i % TUNED_ON_EVERY]
    validation = [*Pictures(options.data, "val", num_classes=n_classes)][:: options.every]

    torch.manual_seed(seed)
    model = deeplab_v1(num_classes=n_classes, width=options.width)
    scale_first_layers(model)
    plan = Options(iterations=options.iterations, batch_size=4, rate=0.01, schedule="poly",
                   crop=161, input_unit=INPUT_UNIT, seed=seed)  # fmt: skip
    fit(model, trained_on, plan, folder=folder / "alone", report=report)
    refine = chosen(model, tuned_on)
    print(f"chosen: spatial {refine['spatial']}, bilateral {refine['bilateral']}", flush=True)

    more = replace(plan, iterations=options.more, rate=0.003, crf_rate=0.01,
                   seed=seed + 1)  # fmt: skip
    terms = {name: refine[name] for name in ("spatial", "bilateral", "normalization")}
    # No steps leave the scores as they are, stretched: the loss of every pixel, without a CRF.
    layers = {
        "alone": None,
        "every pixel": CRF(n_classes, training_iterations=0, eval_iterations=0),
        "joint": CRF(n_classes, **terms),
    }
    for training, crf in layers.items():
        load_weights(model, folder / "alone" / CHECKPOINT)
        fit(model, trained_on, more, folder=folder / f"more-{training}", crf=crf, report=report)
        scores = validate(model, validation, crf=crf, refine=refine)
        yield from rows(training, scores, seed, len(validation))


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    machine, found = read_machine(), []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for row in compared(options, seed, Path(folder)):
                print(row, flush=True)
                found.append(row)
    write_csv(options.csv, found, machine)


if __name__ == "__main__":
    main()
