# SPDX-License-Identifier: MIT
"""crfseg/_core.pyi against the compiled module: same names, parameters, types and results."""

import ast
import builtins
import inspect
import re
from pathlib import Path

import pytest

from crfseg import _core

STUB = ast.parse(
    (Path(__file__).resolve().parent.parent / "crfseg" / "_core.pyi").read_text(encoding="utf-8")
)
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CONSTANTS = {node.target.id: node for node in STUB.body if isinstance(node, ast.AnnAssign)}


def members(cls):
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}


def is_property(function):
    return any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)


CALLABLES = [(name, getattr(_core, name, None), node) for name, node in FUNCTIONS.items()] + [
    (f"{name}.{member}", getattr(getattr(_core, name, None), member, None), node)
    for name, cls in CLASSES.items()
    for member, node in members(cls).items()
    if not is_property(node)
]
PROPERTIES = [
    (name, member, node)
    for name, cls in CLASSES.items()
    for member, node in members(cls).items()
    if is_property(node)
]


def compiled_signature(function):
    """pybind11 writes the signature into the first line of the docstring; parse it as Python."""
    line = (function.__doc__ or "").splitlines()[0]
    try:
        node = ast.parse(f"def {line}: ...").body[0]
    except SyntaxError as error:
        raise AssertionError(f"not a Python signature (a C++ type leaked?): {line}") from error
    return node


def parameters(node):
    """(name, type) of each parameter but self, in order."""
    arguments = node.args
    assert arguments.vararg is None
    assert arguments.kwarg is None
    assert arguments.defaults == arguments.kwonlyargs == [], "teach this test defaults"
    names = [*arguments.posonlyargs, *arguments.args]
    return [(a.arg, meaning(a.annotation)) for a in names if a.arg != "self"]


def meaning(annotation):
    """A type as the stub spells it; pybind11 says what it converts, the stub what it expects."""
    text = ast.unparse(annotation)
    for pattern, spelling in (
        (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
        (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
        (r"numpy\.ndarray", r"NDArray[Any]"),
        (r"typing\.Annotated\[numpy\.typing\.ArrayLike, numpy\.(\w+)\]", r"NDArray[np.\1]"),
        (r"numpy\.typing\.NDArray\[numpy\.(\w+)\]", r"NDArray[np.\1]"),
        (r"(crfseg\._core|collections\.abc)\.", ""),
    ):
        text = re.sub(pattern, spelling, text)
    return text


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_module_and_stub_have_the_same_names():
    assert public(vars(_core)) == CLASSES.keys() | FUNCTIONS.keys() | CONSTANTS.keys()


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_have_the_declared_type(name):
    declared = CONSTANTS[name].annotation
    assert ast.unparse(declared) == "Final[int]", "teach this test the new type"
    assert type(getattr(_core, name)) is int


def test_constants_of_a_family_differ():
    for family in ("NORMALIZATION_", "UNARY_", "FEATURES_"):
        values = [getattr(_core, name) for name in CONSTANTS if name.startswith(family)]
        assert len(values) > 1
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_members_and_bases(name):
    compiled = getattr(_core, name)
    bases = tuple(getattr(builtins, base.id) for base in CLASSES[name].bases)
    if bases:
        assert compiled.__bases__ == bases
        return
    declared = members(CLASSES[name])
    assert public(vars(compiled)) == public(declared)
    for member, node in declared.items():
        assert isinstance(inspect.getattr_static(compiled, member), property) == is_property(node)


@pytest.mark.parametrize(("name", "function", "stub"), CALLABLES, ids=[c[0] for c in CALLABLES])
def test_parameters_and_results_agree(name, function, stub):
    assert function is not None, f"_core has no {name}"
    compiled = compiled_signature(function)
    assert parameters(compiled) == parameters(stub)
    assert meaning(compiled.returns) == meaning(stub.returns)


@pytest.mark.parametrize(("cls", "member", "stub"), PROPERTIES, ids=[p[1] for p in PROPERTIES])
def test_properties_are_read_only_and_of_the_declared_type(cls, member, stub):
    compiled = inspect.getattr_static(getattr(_core, cls), member)
    assert compiled.fset is None
    line = compiled.fget.__doc__.splitlines()[0]
    assert line.rpartition("-> ")[2] == ast.unparse(stub.returns)
