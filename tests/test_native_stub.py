# SPDX-License-Identifier: MIT
"""The stubs of native modules against what is compiled: names, parameters, types and results."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import emulated
from crfseg import _core

PACKAGE = Path(__file__).resolve().parent.parent / "crfseg"


def members(cls):
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}


def is_property(function):
    return any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)


class Twin:
    """A stub and the module that it speaks of."""

    def __init__(self, name, module):
        self.name, self.module = name, module
        body = ast.parse((PACKAGE / f"{name}.pyi").read_text(encoding="utf-8")).body
        self.classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.constants = {node.target.id: node for node in body if isinstance(node, ast.AnnAssign)}

    def callables(self):
        """(what to call it, the compiled function or None, its stub)"""
        module = self.module
        yield from ((name, getattr(module, name, None), f) for name, f in self.functions.items())
        for name, member, node in self.members():
            if not is_property(node):
                compiled = getattr(getattr(module, name, None), member, None)
                yield f"{self.name}.{name}.{member}", compiled, node

    def members(self):
        """(class, member, its stub)"""
        for name, cls in self.classes.items():
            for member, node in members(cls).items():
                yield name, member, node


# Of the module for devices, its emulation has the same bindings.
TWINS = [Twin("_core", _core)]
if emulated.MODULE is not None:
    TWINS.append(Twin("_cuda", emulated.MODULE))
CALLABLES = [one for twin in TWINS for one in twin.callables()]
PROPERTIES = [
    (getattr(twin.module, cls), member, node)
    for twin in TWINS
    for cls, member, node in twin.members()
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
        (r"typing_extensions\.CapsuleType", "Any"),
        (r"(crfseg\._core|_cuda|collections\.abc)\.", ""),
    ):
        text = re.sub(pattern, spelling, text)
    return text


def public(names):
    return {name for name in names if not name.startswith("_")}


@emulated.needs_emulation
def test_both_modules_are_here():
    assert [twin.name for twin in TWINS] == ["_core", "_cuda"]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_module_and_stub_have_the_same_names(twin):
    declared = twin.classes.keys() | twin.functions.keys() | twin.constants.keys()
    assert public(vars(twin.module)) == declared


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_constants_have_the_declared_type(twin):
    assert twin.constants
    for name, node in twin.constants.items():
        assert ast.unparse(node.annotation) == "Final[int]", "teach this test the new type"
        assert type(getattr(twin.module, name)) is int


def test_constants_of_a_family_differ():
    for family in ("NORMALIZATION_", "UNARY_", "FEATURES_"):
        values = [getattr(_core, name) for name in TWINS[0].constants if name.startswith(family)]
        assert len(values) > 1
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_classes_have_the_same_members_and_bases(twin):
    for name, cls in twin.classes.items():
        compiled = getattr(twin.module, name)
        if cls.bases:
            assert [base.__name__ for base in compiled.__bases__] == [b.id for b in cls.bases]
            continue
        declared = members(cls)
        assert public(vars(compiled)) == public(declared)
        for member, node in declared.items():
            static = inspect.getattr_static(compiled, member)
            assert isinstance(static, property) == is_property(node)


@pytest.mark.parametrize(("name", "function", "stub"), CALLABLES, ids=[c[0] for c in CALLABLES])
def test_parameters_and_results_agree(name, function, stub):
    assert function is not None, f"the module has no {name}"
    compiled = compiled_signature(function)
    assert parameters(compiled) == parameters(stub)
    assert meaning(compiled.returns) == meaning(stub.returns)


@pytest.mark.parametrize(("cls", "member", "stub"), PROPERTIES, ids=[p[1] for p in PROPERTIES])
def test_properties_are_read_only_and_of_the_declared_type(cls, member, stub):
    compiled = inspect.getattr_static(cls, member)
    assert compiled.fset is None
    line = compiled.fget.__doc__.splitlines()[0]
    assert line.rpartition("-> ")[2] == ast.unparse(stub.returns)
