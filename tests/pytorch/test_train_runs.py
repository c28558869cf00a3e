# SPDX-License-Identifier: MIT
"""Runs that are interrupted, resumed, validated and refused, and what they leave behind."""

import json

import pytest

from shapes import N_CLASSES

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

from crfseg.torch import CRF  # noqa: E402 - needs torch
from crfseg.torch.models import load_weights, unet  # noqa: E402
from crfseg.torch.train import fit, validate  # noqa: E402
from runs import options, shapes_for, small  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same(one, other):
    """Of nested dicts and lists."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict | list | tuple):
        assert len(one) == len(other)
        keys = one.keys() if isinstance(one, dict) else range(len(one))
        for key in keys:
            assert_same(one[key], other[key])
    else:
        assert one == other


class KilledError(Exception):
    """What ends a run in the middle."""


def interrupt_after(iteration):
    def report(event):
        if event["iteration"] == iteration:
            raise KilledError

    return report


@pytest.mark.parametrize("is_joint", [False, True], ids=["alone", "with a CRF layer"])
@pytest.mark.parametrize("schedule", ["step", "poly"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, schedule, is_joint):
    """Killed after 5 of 7 iterations, in the second epoch, with a checkpoint of 4."""
    source = shapes_for(0, 5, 40)
    chosen = options(iterations=7, schedule=schedule, step=3, save_every=4)

    def run(name, **given):
        model = small(given.pop("seed", 0))
        crf = CRF(N_CLASSES, spatial=(2.0, 1.0), bilateral=(8.0, 60.0, 1.0)) if is_joint else None
        fit(model, source, chosen, folder=tmp_path / name, crf=crf, **given)

    run("whole")
    with pytest.raises(KilledError):
        run("parts", report=interrupt_after(5))
    # A network of other weights, and other random numbers: the checkpoint has all that counts.
    run("parts", resume=True, seed=9)
    whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pth", weights_only=True)
        for name in ("whole", "parts")
    )
    for part in ("model", "optimizer", "rng", "crf"):
        assert_same(whole[part], parts[part])
    losses = {name: [e["loss"] for e in lines_of(tmp_path / name) if "loss" in e]
              for name in ("whole", "parts")}  # fmt: skip
    assert len(losses["whole"]) == 7
    # Nothing that was written is lost: iteration 5 stands there twice.
    assert losses["parts"] == losses["whole"][:5] + losses["whole"][4:]


def test_the_schedule_is_what_the_optimizer_goes_by(tmp_path):
    chosen = {"step": 1, "gamma": 1e-30}
    model, source = small(), shapes_for(0, 2, 32)
    fit(model, source, options(iterations=1, **chosen), folder=tmp_path)
    before = model.score.weight.clone()
    fit(model, source, options(iterations=3, **chosen), folder=tmp_path, resume=True)
    assert torch.equal(model.score.weight, before)
    rates = [e["rate"] for e in lines_of(tmp_path) if "rate" in e]
    assert rates == pytest.approx([0.01, 1e-32, 1e-62])


@pytest.mark.parametrize("is_training", [True, False])
def test_networks_train_in_training_mode_and_are_validated_in_the_other(tmp_path, is_training):
    model, source = small().train(is_training), shapes_for(0, 2, 32)
    seen = []
    model.register_forward_hook(lambda *_: seen.append(model.training))
    validate(model, source)
    assert (seen, model.training) == ([False, False], is_training)
    fit(model, source, options(iterations=2), folder=tmp_path)
    assert seen[2:] == [True, True]


def test_validation_changes_nothing(tmp_path):
    source = shapes_for(0, 4, 40)
    for name, given in {"with": {"validation": source}, "without": {}}.items():
        fit(small(), source, options(validate_every=2), folder=tmp_path / name, **given)
    states = [torch.load(tmp_path / name / "checkpoint.pth") for name in ("with", "without")]
    assert_same(states[0]["model"], states[1]["model"])
    assert_same(states[0]["rng"], states[1]["rng"])
    scored = [e["iteration"] for e in lines_of(tmp_path / "with") if "validation" in e]
    assert scored == [2, 4, 6]


def test_a_checkpoint_is_a_file_of_weights(tmp_path):
    model, other = small(), small(1)
    fit(model, shapes_for(0, 2), options(iterations=1), folder=tmp_path)
    load_weights(other, tmp_path / "checkpoint.pth")
    assert_same(model.state_dict(), other.state_dict())


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    source = shapes_for(0, 2)
    fit(small(), source, options(iterations=2), folder=tmp_path)
    before = (tmp_path / "checkpoint.pth").read_bytes()

    def failing(state, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="no space left"):
        fit(small(), source, options(iterations=4), folder=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pth").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pth", "log.jsonl"}


@pytest.mark.parametrize(
    ("model", "given", "pictures", "sentence"),
    [
        (unet(N_CLASSES, padding=True, width=5), {}, 3, "another network: down.0.conv1.weight is"),
        (small(), {"seed": 3}, 3, "trained with seed 0, not 3"),
        (small(), {"rate": 0.5}, 3, "trained with rate 0.01, not 0.5"),
        (small(), {}, 4, "trained with pictures 3, not 4"),
        (small(), {"schedule": "poly"}, 3, "trained with schedule step, not poly"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, model, given, pictures, sentence):
    source = shapes_for(0, pictures, 32)
    fit(small(), source[:3], options(iterations=1), folder=tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(model, source, options(iterations=2, **given), folder=tmp_path, resume=True)


def test_runs_from_before_an_option_go_on_without_it(tmp_path):
    source, path = shapes_for(0, 2, 32), tmp_path / "checkpoint.pth"
    fit(small(), source, options(iterations=1), folder=tmp_path)
    state = torch.load(path, weights_only=True)
    del state["options"]["frozen"]
    torch.save(state, path)
    fit(small(), source, options(iterations=2), folder=tmp_path, resume=True)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"trained with frozen \(\), not \('down',\)"):
        fit(small(), source, options(frozen=("down",)), folder=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("validation", "refine", "error", "sentence"),
    [
        ([], None, ValueError, r"\[validate\] there are no pictures to validate on"),
        (None, {"bilat": 1}, TypeError, r"\[validate\] refine has 'bilat'; expected .*'spatial'"),
        (None, [1], TypeError, r"\[validate\] refine is \[1\] \(list\); expected a mapping"),
        (None, {"spatial": (0, 1)}, ValueError, r"\[refine\] spatial sigma_xy is 0"),
    ],
)
def test_what_validation_cannot_do_is_said_before_training(
    tmp_path, validation, refine, error, sentence
):
    source = shapes_for(0, 2, 32)
    given = {"validation": source if validation is None else validation, "refine": refine}
    with pytest.raises(error, match=sentence):
        fit(small(), source, options(), folder=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
    with pytest.raises(error, match=sentence):
        validate(small(), given["validation"], refine=refine)


def test_runs_are_not_written_over(tmp_path):
    source = shapes_for(0, 2, 32)
    fit(small(), source, options(iterations=1), folder=tmp_path)
    with pytest.raises(FileExistsError, match=r"checkpoint.pth: is there already; .*--resume"):
        fit(small(), source, options(iterations=1), folder=tmp_path)


def test_a_layer_that_was_not_there_is_not_resumed(tmp_path):
    source = shapes_for(0, 2, 32)
    fit(small(), source, options(iterations=1), folder=tmp_path)
    with pytest.raises(ValueError, match="another CRF layer: spatial_weight is absent"):
        fit(small(), source, options(), folder=tmp_path, resume=True, crf=CRF(N_CLASSES))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path):
    chosen = options(rate=1e30, save_every=1)
    with pytest.raises(ValueError, match=r"loss is (nan|inf) in iteration \d+; .*smaller rate"):
        fit(small(), shapes_for(0, 2), chosen, folder=tmp_path)
