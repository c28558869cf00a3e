# SPDX-License-Identifier: MIT
"""Runs that were stopped go on where they stopped, and redo exactly what has changed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from command import only_sentence
from crfseg import cli, presets, refine_dataset
from crfseg.io import atomic_write, write_picture
from crfseg.manifest import NAME, Manifest, describe, opened
from datasets import (
    assert_all_valid,
    command_line,
    make_dataset,
    noted,
    results,
    sample,
    start_command,
    summary,
)

MANY = [f"{'in/' * (i % 2)}{i:03}" for i in range(60)]
SLOW = ("--iterations", "300", "--no-skip")  # some hundredths of a second an image


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path)


def run(data, **options):
    return refine_dataset(data / "images", data / "scores", out=data / "out", **options)


def redone(data, **options):
    """Names that a run writes anew where all were there."""
    before = results(data / "out")
    found = run(data, resume=True, **options)
    after = results(data / "out")
    names = {name for name in after if after[name] != before.get(name)}
    assert found.refined == len(names)
    assert found.unchanged == 4 - len(names)
    return names


# --- stopped --------------------------------------------------------------------------------------


def wait_for(process, out, n_noted):
    """Until so many results are noted, of a process that is not to end before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (out / NAME).exists() and len(noted(out)) >= n_noted:
            return
        time.sleep(0.002)
    raise AssertionError("no end")


def test_kill_9_loses_what_is_in_flight_at_most_and_resume_repeats_none(tmp_path):
    data, out = make_dataset(tmp_path, MANY), tmp_path / "out"
    killed_at = []
    for n_noted in (5, 20):
        process = start_command(data, *SLOW, "--workers", 3, "--resume")
        wait_for(process, out, n_noted)
        process.kill()
        process.communicate()
        done, before = noted(out), results(out)
        killed_at.append(len(done))
        whole = {name for name in before if not name.endswith(".partial")}
        assert done.keys() <= whole
        assert len(before) - len(done) <= 5  # three at work, two read or written beside them
        (out / ".lost.png.123.partial").write_bytes(b"as a kill leaves it")
    assert cli.main(command_line(data, *SLOW, "--resume", "--quiet")) == 0
    assert summary(out)["unchanged"] == killed_at[-1] < len(MANY)
    assert summary(out)["refined"] == len(MANY) - killed_at[-1]
    after = results(out)
    assert after.keys() == {f"{name}.png" for name in MANY}
    assert all(after[name] == before[name] for name in done)
    assert_all_valid(out)


def test_control_c_leaves_valid_results_and_is_no_traceback(tmp_path):
    data, out = make_dataset(tmp_path, MANY), tmp_path / "out"
    process = start_command(data, "--iterations", 3_000_000, "--no-skip", "--threads", 2)
    deadline = time.monotonic() + 60
    while not (out / NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    told, complaint = process.communicate(timeout=30)
    assert (process.returncode, told, complaint) == (130, "", "crfseg: interrupted\n")
    assert results(out) == {}


def test_two_runs_into_one_folder_are_refused(data, capsys):
    (data / "out").mkdir()
    with opened(data / "out"):
        assert cli.main(command_line(data)) == 1
        sentence = only_sentence(capsys)[1]
        assert "out: another run is writing there; expected it to have ended" in sentence
    assert cli.main(command_line(data)) == 0


# --- changed --------------------------------------------------------------------------------------


def test_nothing_is_redone_where_nothing_has_changed(data):
    run(data)
    assert redone(data) == set()
    assert redone(data, workers=1, threads=1) == set()
    assert run(data).refined == 4  # without resume all is


def test_a_changed_parameter_redoes_all_and_goes_on_from_there(data):
    run(data)
    everything = results(data / "out").keys()
    for options in (
        {"iterations": 3},
        {"iterations": 3, "spatial": None},
        {"iterations": 3, "spatial": None, "palette": "grey"},
        {"compatibility": np.array([1.0, 2, 1])},
        {"compatibility": np.array([1.0, 3, 1])},
    ):
        assert redone(data, **options) == everything
        assert redone(data, **options) == set()


def test_labels_and_probabilities_lie_side_by_side(data):
    run(data)
    assert run(data, returns="probs", resume=True).refined == 4
    assert redone(data) == redone(data, returns="probs") == set()


def test_a_preset_is_what_it_says_and_not_what_it_is_called(data, tmp_path):
    own = tmp_path / "own.json"
    presets.save(own, "deeplab-v2")
    run(data, preset="deeplab-v2")
    assert redone(data, preset=str(own)) == set()
    presets.save(own, "unet")
    assert len(redone(data, preset=str(own))) == 4


def test_a_changed_input_redoes_that_image_alone(data):
    run(data)
    np.save(data / "scores" / "in" / "c.npy", sample(9)[1])
    assert redone(data) == {"in/c.png"}
    write_picture(data / "images" / "b.png", sample(9)[0])
    assert redone(data) == {"b.png"}
    assert redone(data) == set()


def test_touching_a_file_is_a_change_unless_contents_are_compared(data):
    run(data, compare="contents")
    os.utime(data / "scores" / "a.npy", ns=(1, 1))
    assert redone(data, compare="contents") == set()
    run(data)
    os.utime(data / "scores" / "a.npy", ns=(2, 2))
    assert redone(data) == {"a.png"}
    run(data, compare="contents")
    status = (data / "scores" / "b.npy").stat()
    np.save(data / "scores" / "b.npy", sample(9)[1])
    os.utime(data / "scores" / "b.npy", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert redone(data, compare="contents") == {"b.png"}


def test_missing_and_damaged_results_are_redone(data):
    run(data)
    (data / "out" / "a.png").unlink()
    (data / "out" / "b.png").write_bytes(b"")
    assert redone(data) == {"a.png", "b.png"}


def test_arrays_are_compared_by_their_contents(tmp_path):
    def go(*shifts):
        triples = ((f"{i}", *sample(shift)) for i, shift in enumerate(shifts))
        return refine_dataset(triples, out=tmp_path / "out", resume=True)

    assert go(0, 1, 2).refined == 3
    found = go(0, 5, 2)
    assert (found.refined, found.unchanged) == (1, 2)


def test_failures_are_tried_again(data, tmp_path):
    scores = data / "scores" / "a.npy"
    whole = scores.read_bytes()
    scores.write_bytes(whole[:300])
    assert run(data, tell=lambda _: None).failed.keys() == {"a"}
    scores.write_bytes(whole)
    assert redone(data) == {"a.png"}


# --- the manifest ---------------------------------------------------------------------------------


def note(folder, names):
    with opened(folder) as notes:
        for name in names:
            (folder / name).write_bytes(name.encode())
            notes.add(name, "key", folder / name)


def test_a_manifest_that_is_cut_off_anywhere_keeps_its_whole_lines(tmp_path):
    note(tmp_path, ["a", "b", "c"])
    whole = (tmp_path / NAME).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / NAME).write_bytes(whole[:length])
        with opened(tmp_path) as notes:
            kept = [name for name in "abc" if notes.holds(name, "key", tmp_path / name)]
            missing = whole[:length].count(b"}")
            assert kept == list("abc")[:missing]
            notes.add("c", "other", tmp_path / "c")
        with opened(tmp_path) as notes:
            assert notes.holds("c", "other", tmp_path / "c")


def test_a_result_that_is_about_to_be_replaced_is_off_the_list(tmp_path):
    """A kill after the new file has taken its place must not leave it under the old key."""
    note(tmp_path, ["a"])
    with opened(tmp_path) as notes:
        notes.forget("a")
    with opened(tmp_path) as notes:
        assert not notes.holds("a", "key", tmp_path / "a")


def test_results_that_were_replaced_but_not_noted_are_not_taken_for_the_old_ones(data, monkeypatch):
    def fail(*_):
        raise RuntimeError("as if killed here")

    run(data, palette="grey", iterations=3)
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "add", fail)
        assert len(run(data, palette="grey", iterations=4, tell=lambda _: None).failed) == 4
    assert len(redone(data, palette="grey", iterations=3)) == 4


def test_a_manifest_does_not_grow_with_the_runs(data):
    sizes = set()
    for _ in range(3):
        run(data)
        with opened(data / "out"):
            sizes.add((data / "out" / NAME).stat().st_size)
    assert len(sizes) == 1


def test_lines_of_others_are_not_read(tmp_path):
    strange = ["[" * 100_000, '{"name": "a", "key": "key", "bytes": Infinity}', "[]", "3"]
    strange += ['{"name": "a"}', '{"name": "a", "key": "key"}', "\xff", "null", ""]
    (tmp_path / NAME).write_text("\n".join(strange))
    (tmp_path / "a").touch()
    with opened(tmp_path) as notes:
        assert not notes.holds("a", "key", tmp_path / "a")


def test_parameters_are_described_by_their_contents():
    a, b = np.arange(4.0), np.arange(4.0)
    assert describe({"x": a, "y": (1, 2)}) == describe({"y": [1, 2], "x": b})
    b[3] = 9
    assert describe(a) != describe(b) != describe(b.astype(np.float32))
    with pytest.raises(TypeError, match="has no contents to compare"):
        describe({"x": object()})


# --- no room --------------------------------------------------------------------------------------

FULL_DISK = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
from crfseg import cli
from crfseg.io import read_labels
small, data = Path(sys.argv[1]), Path(sys.argv[2])
options = ["--images", data / "images", "--scores", data / "scores", "--out", small / "out"]
words = ["run", *map(str, options)]
report = {"full": cli.main(words)}
written = sorted((small / "out").glob("*.png"))
for path in written:
    read_labels(path)
lines = [json.loads(l)["name"] for l in (small / "out/crfseg-manifest.jsonl").open()]
report |= {"noted": len(lines), "written": len(written)}
report["partial"] = [p.name for p in small.rglob("*.partial")]
subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
report["read-only"] = cli.main(words)
subprocess.run(["mount", "-o", "remount,rw,size=8m", str(small)], check=True)
report["resumed"] = cli.main([*words, "--resume"])
report |= json.loads((small / "out/crfseg-summary.json").read_text())
print(json.dumps(report))
"""


def test_a_full_disk_and_a_read_only_one_are_a_line_each(tmp_path):
    """On a small file system of the test's own, where the system grants one."""
    image, scores = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), 3
    noise = np.random.default_rng(1).dirichlet(np.full(scores, 0.1), (64, 96)).transpose(2, 0, 1)
    for name in ("images", "scores", "small"):
        (tmp_path / name).mkdir()
    for i in range(40):
        write_picture(tmp_path / "images" / f"{i:02}.png", image)
        np.save(tmp_path / "scores" / f"{i:02}.npy", np.float32(noise))
    shell = 'mount -t tmpfs -o size=40k tmpfs "$1" || exit 77; shift; exec "$@"'  # 77: not granted
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    small = tmp_path / "small"
    words += [small, sys.executable, "-I", "-c", FULL_DISK, small, tmp_path]
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f"no file system of its own: {done.stderr}")
    report = json.loads(done.stdout.splitlines()[-1])
    full, read_only = done.stderr.splitlines()
    assert full.startswith("crfseg: error: ")
    assert full.endswith(": No space left on device")
    assert read_only.endswith("crfseg-manifest.jsonl: Read-only file system")
    assert "partial" not in done.stderr
    assert (report["full"], report["read-only"], report["resumed"]) == (1, 1, 0)
    assert 0 < report["noted"] <= report["written"] < 40
    assert report["partial"] == []
    assert report["unchanged"] == report["noted"]
    assert report["refined"] == 40 - report["noted"]


def test_a_full_disk_ends_the_run_wherever_it_is_met(tmp_path, capsys, monkeypatch):
    import errno

    from crfseg import batch

    data = make_dataset(tmp_path, MANY)
    write, calls, numbers = batch.write_labels, [], itertools.count(1)

    def write_some(path, *arguments):
        calls.append(path)
        if next(numbers) >= 3:
            with atomic_write(path) as file:
                file.write(b"half of it")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *arguments)

    monkeypatch.setattr(batch, "write_labels", write_some)
    assert cli.main(command_line(data, "--workers", "1")) == 1
    assert only_sentence(capsys)[1].endswith(".png: No space left on device\n")
    assert len(noted(data / "out")) == 2
    assert 3 <= len(calls) <= 5  # one at work, two beside it
    assert_all_valid(data / "out")


def test_an_unwritable_folder_is_one_line(data, capsys):
    (data / "file").touch()
    words = command_line(data)
    words[words.index("--out") + 1] = str(data / "file" / "out")
    assert cli.main(words) == 1
    assert only_sentence(capsys)[1].endswith("file/out: Not a directory\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_folder_is_one_line(data, capsys):
    (data / "out").mkdir(mode=0o500)
    assert cli.main(command_line(data)) == 1
    assert only_sentence(capsys)[1].endswith(f"{NAME}: Permission denied\n")


def test_a_folder_inside_that_cannot_be_written_to_is_a_failure_of_its_images(data, capsys):
    (data / "out").mkdir()
    (data / "out" / "in").write_bytes(b"a file")
    assert cli.main(command_line(data)) == 1
    out, err = capsys.readouterr()
    assert "2 refined, 2 failed" in out
    endings = {line.rpartition(": ")[2] for line in err.splitlines()}
    assert endings == {"File exists", "Not a directory"}
    assert set(results(data / "out")) == {"a.png", "b.png", "in"}
