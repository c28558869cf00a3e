# SPDX-License-Identifier: MIT
"""python -m crfseg.torch.train: folders, what it prints, and what it says of bad input."""

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from crfseg.io import write_labels, write_picture
from shapes import some_shapes
from subprocesses import run_script

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch.train import Pictures  # noqa: E402 - needs torch
from crfseg.torch.train.cli import build_parser, main  # noqa: E402
from crfseg.torch.train.networks import KINDS  # noqa: E402
from crfseg.torch.train.pictures import count_classes  # noqa: E402
from crfseg.torch.train.progress import Bar  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 40
SMALL = ("--width", "2", "--crop", "32", "--batch-size", "2", "--iterations", "2")


def write(folder, images, labels, names, *, suffix=".png"):
    """Pictures and label maps, into two folders of theirs."""
    for path in (folder / images, folder / labels):
        path.mkdir(parents=True)
    levels, maps = some_shapes(np.random.default_rng(3), len(names), SIZE)
    for name, picture, one in zip(names, levels, maps, strict=True):
        write_picture(folder / images / f"{name}{suffix}", picture.transpose(1, 2, 0).astype("u1"))
        write_labels(folder / labels / f"{name}.png", one)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    write(folder, "images", "labels", "abcde")
    (folder / "train.txt").write_text("a\nb\nc\n")
    (folder / "val.txt").write_text("d\n\n e \n")
    (folder / "classes.txt").write_text("ground\ndisc\nbar\nbox\n")
    return folder


@pytest.fixture
def voc(tmp_path):
    folder = tmp_path / "voc"
    write(folder, "JPEGImages", "SegmentationClass", ["2007_1", "2007_2", "2007_3"], suffix=".jpg")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_3\n2007_1\n")
    (lists / "val.txt").write_text("2007_2\n")
    return folder


def call(data, out, *options, model="unet"):
    return main(["--model", model, "--data", str(data), "-o", str(out), *SMALL, *options])


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# --- folders --------------------------------------------------------------------------------------


def test_voc_layout_is_read(voc):
    pictures = Pictures(voc, "train", num_classes=count_classes(voc))
    assert pictures.names == ["2007_3", "2007_1"]
    assert count_classes(voc) == 21
    levels, labels = pictures[0]
    assert (levels.shape, levels.dtype) == ((3, SIZE, SIZE), torch.uint8)
    _, expected = some_shapes(np.random.default_rng(3), 3, SIZE)
    assert np.array_equal(labels, expected[2])


def test_augmented_voc_labels_are_taken_where_there_are_some(voc):
    (voc / "SegmentationClassAug").mkdir()
    for name in ("2007_1", "2007_3"):
        write_labels(voc / "SegmentationClassAug" / f"{name}.png", np.full((SIZE, SIZE), 7))
    assert set(Pictures(voc, "train", num_classes=21)[1].labels.flatten().tolist()) == {7}


def test_plain_folders_are_read(data):
    pictures = Pictures(data, "val", num_classes=4)
    images, labels = some_shapes(np.random.default_rng(3), 5, SIZE)
    assert pictures.names == ["d", "e"]
    assert np.array_equal(pictures[1].levels, images[4].astype("u1"))
    assert np.array_equal(pictures[1].labels, labels[4])


def test_without_a_list_all_that_is_not_for_validation_is_for_training(data):
    (data / "train.txt").unlink()
    assert Pictures(data, num_classes=4).names == ["a", "b", "c"]
    (data / "val.txt").unlink()
    assert Pictures(data, num_classes=4).names == ["a", "b", "c", "d", "e"]


def test_pixels_without_a_label_are_kept(data):
    write_labels(data / "labels" / "a.png", np.full((SIZE, SIZE), 255))
    assert Pictures(data, num_classes=4)[0].labels.unique().tolist() == [255]


def test_grey_pictures_have_three_channels(data):
    from PIL import Image

    Image.fromarray(np.full((SIZE, SIZE), 9, "u1")).save(data / "images" / "a.png")
    assert Pictures(data, num_classes=4)[0].levels.unique().tolist() == [9]


# --- runs -----------------------------------------------------------------------------------------


def test_validation_is_printed_with_and_without_a_crf(data, tmp_path, capsys):
    assert call(data, tmp_path / "out", "--validate-every", "1") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("iteration 1: without CRF mIoU ")
    assert "; with CRF mIoU " in lines[1]
    assert "layer" not in out
    assert err == ""  # no bar where nobody watches
    scores = log_of(tmp_path / "out")[-1]["validation"]
    assert f"without CRF mIoU {100 * scores['network']['mean_iou']:.2f} accuracy" in lines[1]
    assert scores["network"] != scores["refine"]


def test_a_run_without_validation_says_where_its_network_is(data, tmp_path, capsys):
    (data / "val.txt").unlink()
    assert call(data, tmp_path / "out") == 0
    out, _ = capsys.readouterr()
    path = tmp_path / "out" / "checkpoint.pth"
    assert out == f"{path}: trained; not validated, for there is no val.txt\n"


@pytest.mark.parametrize("model", KINDS)
def test_every_network_trains_and_is_validated(data, tmp_path, model, capsys):
    crop = "34" if KINDS[model].crop % 8 == 2 else "33"
    options = ("--crop", crop, "--width", "1", "--iterations", "1", "--bilateral", "5", "9", "1")
    assert call(data, tmp_path / "out", *options, model=model) == 0
    assert capsys.readouterr().out.startswith("iteration 1: without CRF mIoU ")


@pytest.mark.parametrize("model", ["deeplab-largefov", "unet"])
def test_a_crf_layer_is_trained_with_the_network(data, tmp_path, model, capsys):
    options = ("--crf-layer", "--crf-rate", "0.1", "--bilateral", "8", "20", "1", "--crop", "33")
    assert call(data, tmp_path / "out", *options, model=model) == 0
    assert "; with CRF layer mIoU " in capsys.readouterr().out
    state = torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)["crf"]
    assert state["bilateral_log_sigmas"].exp().tolist() == pytest.approx([8, 20])
    assert (state["bilateral_weight"] != 1).all()


def test_a_run_goes_on(data, tmp_path):
    assert call(data, tmp_path / "whole", "--iterations", "4") == 0
    assert call(data, tmp_path / "parts", "--iterations", "2") == 0
    assert call(data, tmp_path / "parts", "--iterations", "4", "--resume") == 0
    states = [
        torch.load(tmp_path / name / "checkpoint.pth")["model"] for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert {"iteration": 2, "resumed": True} in log_of(tmp_path / "parts")


def test_a_seed_says_all_and_another_one_something_else(data, tmp_path):
    for name, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        assert call(data, tmp_path / name, "--seed", seed) == 0
    logs = {name: log_of(tmp_path / name) for name in ("one", "same", "other")}
    assert logs["one"] == logs["same"]
    assert logs["one"] != logs["other"]


def test_random_weights_begin_in_the_unit_that_they_learn_in(data, tmp_path):
    for unit in ("2", "4"):
        assert call(data, tmp_path / unit, "--input-unit", unit, "--rate", "1e-30") == 0
    two, four = (torch.load(tmp_path / unit / "checkpoint.pth")["model"] for unit in ("2", "4"))
    for key in (key for key in two if key.endswith("weight")):
        assert torch.equal(two[key], (2 if key == "down.0.conv1.weight" else 1) * four[key])


def test_training_begins_with_given_weights(data, tmp_path):
    assert call(data, tmp_path / "first") == 0
    weights = str(tmp_path / "first" / "checkpoint.pth")
    tiny = ("--weights", weights, "--rate", "1e-30")
    assert call(data, tmp_path / "second", *tiny) == 0
    before, after = (
        torch.load(tmp_path / name / "checkpoint.pth")["model"] for name in ("first", "second")
    )
    assert all(torch.equal(before[key], after[key]) for key in before)


def state_of(out):
    return torch.load(out / "checkpoint.pth")["model"]


TINY = ("--rate", "1e-30", "--crop", "33", "--bilateral", "5", "9", "1")


@pytest.mark.parametrize(
    ("coarser", "finer"),
    [("fcn-32", "fcn-16"), ("fcn-16", "fcn-8"), ("deeplab-largefov", "deeplab-msc-largefov")],
)
def test_training_goes_on_from_the_stage_before(data, tmp_path, coarser, finer):
    for out, model, more in (
        ("first", coarser, ()),
        ("second", finer, ("--from", str(tmp_path / "first" / "checkpoint.pth"))),
    ):
        assert call(data, tmp_path / out, "--width", "1", *TINY, *more, model=model) == 0
    before, after = (state_of(tmp_path / name) for name in ("first", "second"))
    common = before.keys() & after.keys()
    assert {"trunk.conv1_1.weight", "classifier.fc7.bias"} <= common
    # Biases of 0 have learned a little, at that rate.
    assert all(torch.allclose(before[key], after[key], rtol=0, atol=1e-20) for key in common)
    assert after.keys() - common


def test_frozen_modules_do_not_learn(data, tmp_path):
    options = ("--freeze", "trunk", "classifier", "--crop", "33", "--width", "1")
    assert call(data, tmp_path / "none", *options, *TINY, model="deeplab-msc-largefov") == 0
    assert call(data, tmp_path / "some", *options, model="deeplab-msc-largefov") == 0
    none, some = (state_of(tmp_path / name) for name in ("none", "some"))
    changed = {key.split(".")[0] for key in none if not torch.equal(none[key], some[key])}
    assert changed == {"branches"}


def test_checkpoints_say_in_which_unit_they_learn(data, tmp_path):
    """Else the first layer would learn 64^2 times too fast."""
    assert call(data, tmp_path / "first") == 0
    first = tmp_path / "first" / "checkpoint.pth"
    assert call(data, tmp_path / "second", "--weights", str(first)) == 0
    torch.save(torch.load(first)["model"], tmp_path / "plain.pth")
    assert call(data, tmp_path / "third", "--weights", str(tmp_path / "plain.pth")) == 0
    units = [
        torch.load(tmp_path / out / "checkpoint.pth")["options"]["input_unit"]
        for out in ("first", "second", "third")
    ]
    assert units == [64, 64, 1]


def test_workers_change_nothing(data, tmp_path):
    """In a process of its own: tests and their threads are not to be forked."""
    arguments = ["--model", "unet", "--data", str(data), *SMALL]
    script = f"""
        import sys, torch
        from pathlib import Path
        from crfseg.torch.train.cli import main
        torch.set_num_threads(1)
        for workers in "02":
            assert main({arguments} + ["-o", f"{tmp_path}/{{workers}}", "--workers", workers]) == 0
        Path("{data}/labels/b.png").write_bytes(Path("{data}/classes.txt").read_bytes())
        sys.stderr = sys.stdout
        assert main({arguments} + ["-o", "{tmp_path}/bad", "--workers", "1"]) == 2
    """
    lines = run_script(script).splitlines()
    assert log_of(tmp_path / "0") == log_of(tmp_path / "2")
    assert len(lines) == 3
    assert lines[2].startswith(f"crfseg: error: {data}/labels/b.png: ")


@pytest.mark.parametrize("document", ["README.md", "docs/training.md"])
def test_documents_show_commands_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^python -m crfseg.torch.train (.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        assert build_parser().parse_args(shlex.split(command)).model in KINDS


class Terminal(io.StringIO):
    """Where people watch."""

    def isatty(self):
        return True


def test_a_bar_is_drawn_on_terminals_alone():
    screen, pipe = Terminal(), io.StringIO()
    for stream in (screen, pipe):
        bar = Bar(stream, 4)
        for iteration in (1, 2):
            bar.show(iteration, 0.25)
        bar.clear()
    assert pipe.getvalue() == ""
    frames = screen.getvalue().split("\r\x1b[K")
    assert frames[2].startswith(f"2/4 [{'=' * 15:30}] loss 0.2500, 0:00 left")
    assert frames[-1] == ""


# --- bad input ------------------------------------------------------------------------------------


def without(name):
    def spoil(data):
        (data / name).rename(data / "elsewhere")

    return spoil


def with_labels(labels):
    def spoil(data):
        write_labels(data / "labels" / "b.png", labels)

    return spoil


def with_text(name, text):
    def spoil(data):
        (data / name).write_text(text)

    return spoil


def out_of_range():
    labels = np.zeros((SIZE, SIZE), int)
    labels[3, 5] = 11
    return labels


BAD = {
    "no folder": (lambda data: data.rename(data.parent / "elsewhere"), "data: is no folder"),
    "no images": (without("images"), "has neither JPEGImages nor images"),
    "no labels": (without("labels"), "labels: is no folder; expected the labels of"),
    "no classes": (without("classes.txt"), "has no classes.txt; expected --classes"),
    "no label map": (without("labels/c.png"), "c.png: is no file"),
    "no picture": (without("images/c.png"), "c.jpg: is no file"),
    "empty list": (with_text("train.txt", "\n"), "train.txt: names no picture"),
    "out of range": (
        with_labels(out_of_range()),
        "b.png: has label 11 at row 3, column 5; expected 0 to 3, or 255 where there is none",
    ),
    "sizes differ": (
        with_labels(np.zeros((SIZE, 30), int)),
        "b.png: is 30 x 40, but b.png is 40 x 40; expected labels of the picture's size",
    ),
    "no picture file": (with_text("images/b.png", "nothing"), "b.png: "),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD.values(), ids=BAD)
def test_bad_folders_are_told_in_a_sentence(data, tmp_path, spoil, sentence, capsys):
    spoil(data)
    assert call(data, tmp_path / "out") == 2
    assert_one_sentence(capsys, sentence)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--resume"], "checkpoint.pth: is no file; there is no run to resume"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--device", "cuda:99"], "no such device"),
        (["--width", "0"], "width is 0"),
        (["--train-list", "other"], "other.txt: is no file"),
        (["--val-list", "other"], "other.txt: is no file"),
        (["--bilateral", "0", "3", "1"], "sigma_xy"),
        (["--freeze", "trunk"], "frozen has 'trunk', which model has no module of"),
        (["--from", "nowhere.pth"], "--from: unet has no stage before it; expected 'deeplab-msc"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_bad_options_are_told_in_a_sentence(data, tmp_path, options, sentence, capsys):
    assert call(data, tmp_path / "out", *options) == 2
    assert_one_sentence(capsys, sentence)
    assert not (tmp_path / "out" / "log.jsonl").exists()  # before anything is trained


def test_runs_of_other_models_are_told_in_a_sentence(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(data, out) == 0
    capsys.readouterr()
    assert call(data, out, "--resume", model="segnet") == 2
    assert_one_sentence(capsys, "checkpoint.pth: is of another network: encoder.0.conv1_1.weight")
    assert call(data, out) == 2
    assert_one_sentence(capsys, "is there already")
    (out / "checkpoint.pth").write_bytes(b"something else")
    assert call(data, out, "--resume") == 2
    assert_one_sentence(capsys, "cannot be read as a checkpoint")


def test_crops_that_do_not_fit_a_network_are_told_in_a_sentence(data, tmp_path, capsys):
    assert call(data, tmp_path / "out", model="deeplab-largefov") == 2
    assert_one_sentence(capsys, "one at every eighth of 8 k + 1 pixels")


def assert_one_sentence(capsys, sentence):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("crfseg: error: ")
    assert err.count("\n") == 1
    assert sentence in err
