# SPDX-License-Identifier: MIT
"""Imports run one way, numpy alone is needed; torch and the native modules have one wall each."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

# From the border outwards: a module imports from its own layer or from those before it, never the
# other way. A new module gets its place here. __init__ stands for names taken from the package.
LAYERS = (
    ("_check", "_fault", "_fault_device", "_fault_grids", "palette", "overlay", "io", "pairs"),
    ("_core", "_cuda"),
    ("_native",),
    ("_device", "graphs"),
    ("_device_arrays",),
    ("_containers", "_crew", "_explain", "_memory", "_preset", "_room", "cache", "manifest"),
    ("_published",),
    ("labels", "metrics", "presets"),
    ("lattice", "compatibility", "solvers", "upsample"),
    ("_image", "_scores", "unary", "pairwise", "_volumes"),
    ("_device_lattices",),
    ("_info", "_kernels", "_thin", "_unaries", "_results"),
    ("_coupled",),
    ("_sigmas",),
    ("_device_images",),
    ("_device_kernels", "_device_unaries"),
    ("_device_job", "_items", "crf", "gradients"),
    ("_job",),
    ("compat", "points", "refine"),
    ("cams",),
    ("adapters", "batch"),
    ("dataset",),
    ("__init__",),
    ("cli", "demo"),
    ("__main__",),
)
LAYER = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

PACKAGE = Path(__file__).resolve().parent.parent / "crfseg"
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    """``crf`` for crfseg/crf.py, ``demo`` for crfseg/demo/picture.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


ROOMS = {room_of(path) for path in MODULES} | {path.stem for path in PACKAGE.glob("*.pyi")}
ids = {"ids": lambda path: path.relative_to(PACKAGE).as_posix()}


def modules_outside(folder):
    return [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != folder]


def imported_names(path, *, module_level_only=False):
    """Absolute dotted names imported by a file: ``crfseg.crf`` for ``from .crf import x``."""
    package = ("crfseg", *path.relative_to(PACKAGE).parent.parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in at_module_level(tree) if module_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*base, *([node.module] if node.module else [])))
            # `from . import crf` names a module, `from .crf import DenseCRF` does not: keep both.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def at_module_level(node):
    """What runs when the module is imported: no bodies of functions, no ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_module_level(child)


def rooms_imported_by(path):
    """Modules of crfseg that a file imports: ``crf`` for ``from .crf import DenseCRF``."""
    parts = [name.split(".") for name in imported_names(path)]
    named = [p[1] if len(p) > 1 else "" for p in parts if p[0] == "crfseg"]
    return {name if name in ROOMS else "__init__" for name in named if name != "__version__"}


def test_importing_crfseg_loads_numpy_and_the_standard_library_alone():
    script = (
        "import sys, json; before = set(sys.modules); import crfseg;"
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    # -I: the source folder is not on the path, so the installed package is what is imported.
    command = [sys.executable, "-I", "-c", script]
    loaded = set(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    assert "crfseg" in loaded
    assert loaded - {"crfseg", "numpy"} - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", modules_outside("torch"), **ids)
def test_only_numpy_is_imported_at_module_level(path):
    """And what the command needs, in its room, whose own head imports it when it is called."""
    tops = {name.split(".")[0] for name in imported_names(path, module_level_only=True)}
    is_command = room_of(path) == "cli" and path.name != "__init__.py"
    allowed = {"crfseg", "numpy", *(["rich", "typer"] if is_command else [])}
    allowed |= {path.stem} if room_of(path) == "adapters" else set()
    assert tops - allowed - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("adapters/*.py")), **ids)
def test_an_adapter_knows_refine_and_the_library_that_it_is_named_after(path):
    names = set(imported_names(path))
    assert {name.split(".")[0] for name in names} <= {
        "crfseg",
        "collections",
        "numpy",
        "typing",
        path.stem,
    }
    assert rooms_imported_by(path) <= {"_check", "_info", "adapters", "refine"}


@pytest.mark.parametrize("path", modules_outside("torch"), **ids)
def test_nothing_outside_the_torch_folder_imports_torch(path):
    assert "torch" not in {name.split(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize("path", MODULES, **ids)
def test_only_native_imports_the_extension_modules(path):
    if room_of(path) != "_native":
        assert {"_core", "_cuda"}.isdisjoint(rooms_imported_by(path))


@pytest.mark.parametrize("path", modules_outside("torch"), **ids)
def test_imports_run_one_way(path):
    room = room_of(path)
    assert room in LAYER, f"crfseg/{room}.py has no place in LAYERS (tests/test_imports.py)"
    others = rooms_imported_by(path) & LAYER.keys()
    upwards = {other for other in others if LAYER[other] > LAYER[room]}
    assert upwards == set(), f"{room} imports {sorted(upwards)}, which stand above it"


def test_no_two_modules_import_each_other():
    edges = {}
    for path in modules_outside("torch"):
        room = room_of(path)
        edges[room] = edges.get(room, set()) | rooms_imported_by(path) - {room}
    while edges:
        leaves = {room for room, others in edges.items() if edges.keys().isdisjoint(others)}
        assert leaves, f"these import each other in a circle: {sorted(edges)}"
        edges = {room: others for room, others in edges.items() if room not in leaves}


def test_every_layer_names_a_module_that_exists():
    assert LAYER.keys() <= ROOMS


def native_includes():
    csrc = PACKAGE.parent / "csrc"
    for path in sorted(p for p in csrc.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE)
        yield path.relative_to(csrc).as_posix(), found


def test_python_headers_stay_in_bindings_and_torch_headers_nowhere():
    includes = list(native_includes())
    assert includes, "no native sources found"
    for name, headers in includes:
        assert not [h for h in headers if h.startswith(("torch/", "ATen/", "c10/"))], name
        if not name.startswith("bindings/"):
            assert not [h for h in headers if h == "Python.h" or h.startswith("pybind11")], name


def test_the_cpu_and_cuda_twins_do_not_include_each_other():
    for name, headers in native_includes():
        folder = name.split("/")[0]
        other = {"cpu": "cuda", "cuda": "cpu"}.get(folder)
        assert not [h for h in headers if other and other in h.split("/")], name
