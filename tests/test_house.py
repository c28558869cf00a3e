# SPDX-License-Identifier: MIT
"""The house itself: licence lines, file sizes, pins, and documents that name what exists."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import crfseg

ROOT = Path(__file__).resolve().parent.parent
CODE = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh", ".yml", ".yaml"}
CODE_NAMES = {"CMakeLists.txt", "Makefile", ".clang-format", "run"}
TEXT = {*CODE, ".md", ".toml", ".txt", ""}


def tracked_files():
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        return []
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


FILES = tracked_files()
CODE_FILES = [path for path in FILES if path.suffix in CODE or path.name in CODE_NAMES]
pytestmark = pytest.mark.skipif(not FILES, reason="not a git checkout: nothing is tracked")


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def lines_matching(pattern, paths):
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_every_code_file_has_one_licence_line_at_its_head():
    mark = "SPDX-License-Identifier" + ": MIT"
    assert len(CODE_FILES) > 10
    for path in CODE_FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [number for number, line in enumerate(lines, 1) if line.endswith(mark)]
        assert len(found) == 1, f"{path.relative_to(ROOT)} has {len(found)} licence lines"
        assert found[0] <= 2, f"{path.relative_to(ROOT)} has its licence line at {found[0]}"


def test_no_code_file_asks_to_be_split():
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in CODE_FILES}
    assert names(path for path, size in sizes.items() if size > 400) == []


def test_no_file_is_named_after_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    found = names(path for path in FILES if path.stem.lower() in vague)
    assert set(found) <= {"crfseg/compat/pydensecrf/utils.py"}  # the name programs import


def test_no_file_is_too_big_for_a_source_tree():
    assert names(path for path in FILES if path.stat().st_size > 500_000) == []


def test_no_tracked_file_knows_a_machine_it_was_made_on():
    folders = r"(^|[^\w.\-/])/(home|root|tmp|mnt|Users)/"
    texts = [path for path in FILES if path.suffix in TEXT]
    assert list(lines_matching(folders, texts)) == []


def test_no_left_over_marks():
    others = [path for path in CODE_FILES if path != Path(__file__).resolve()]
    assert list(lines_matching(r"\b(TODO|FIXME|XXX|HACK)\b", others)) == []
    assert list(lines_matching(r"<<<<<<<|>>>>>>>", others)) == []


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [pin for pin in requirements if pin.marker is None or pin.marker.evaluate()]


def test_every_requirement_has_a_pin_that_satisfies_it():
    versions = {pin.name: next(iter(pin.specifier)).version for pin in pins()}
    for text in metadata.requires("dense-crfseg"):
        needed = Requirement(text)
        if needed.name == "dense-crfseg":
            continue
        assert needed.name in versions, f"{needed.name} has no pin in constraints.txt"
        assert needed.specifier.contains(versions[needed.name]), text


def test_pins_are_exact_and_named_once():
    assert [str(pin) for pin in pins() if [s.operator for s in pin.specifier] != ["=="]] == []
    found = [pin.name for pin in pins()]
    assert len(found) == len(set(found))


def test_numpy_is_the_only_dependency():
    required = [Requirement(text) for text in metadata.requires("dense-crfseg")]
    plain = [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert plain == ["numpy"]


def test_version_is_said_once_and_in_the_changelog():
    assert crfseg.__version__ == metadata.version("dense-crfseg")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(crfseg.__version__)}\b", changelog, re.MULTILINE)


def test_every_public_name_exists_and_is_documented():
    for name in crfseg.__all__:
        value = getattr(crfseg, name)
        if not name.startswith("__"):
            assert (value.__doc__ or "").strip(), f"crfseg.{name} has no docstring"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_commands_and_files_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    assert targets, f"{document} names no make command"
    assert targets <= phony
    paths = re.findall(r"`((?:crfseg|csrc|tests|benchmarks|tools)/[\w./]+)`", text)
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)]
    paths += [path for path, _, _ in links]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for path, _, section in links:
        headings = (
            re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE) if section else []
        )
        assert not section or section in [title.lower().replace(" ", "-") for title in headings]
