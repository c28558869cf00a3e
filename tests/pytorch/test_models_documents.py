# SPDX-License-Identifier: MIT
"""The tables of docs/networks.md hold what the networks have."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")

import crfseg.torch.models  # noqa: E402 - needs torch
from crfseg.torch.models import describe  # noqa: E402 - needs torch

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "networks.md").read_text("utf-8")


def rows(name):
    table = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL).group(1)
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def make(call):
    """What the first column says, without values."""
    with torch.device("meta"):
        return eval(call.strip("`"), vars(crfseg.torch.models))


@pytest.mark.parametrize("row", rows("networks"), ids=lambda row: row[0].strip("`"))
def test_the_table_of_networks(row):
    call, parameters, view, field, stride, size, output = row
    model = make(call)
    described = describe(model, int(size))
    assert f"{described.parameters:,}" == parameters
    assert described.output[3:] == (int(field), int(stride), (int(output), int(output)))
    end = getattr(model, "classifier", None)
    assert (end is None) == (view == "")
    if end is not None:
        fc6 = next(layer for layer in described.layers if layer.name == "classifier.fc6")
        reach = (end.fc6.kernel_size[0] - 1) * end.fc6.dilation[0]
        assert reach * fc6.stride + 32 == int(view)


def test_the_table_has_every_network():
    calls = " ".join(row[0] for row in rows("networks"))
    for variant in ("largefov", "4x4", "7x7", "4x4-dilated"):
        assert f'"{variant}"' in calls
    assert all(f"{name}(" in calls for name in ("deeplab_v1", "fcn", "segnet", "unet", "vgg16"))


@pytest.mark.parametrize("row", rows("crf"), ids=lambda row: row[0].strip("`"))
def test_the_table_of_crf_parameters(row):
    parameters = make(row[0]).crf_parameters
    assert parameters["bilateral"] == tuple(float(cell) for cell in row[1:])
    assert parameters["spatial"] == (3, 3)
    assert parameters["iterations"] == 10
    assert parameters["normalization"] == "after"


def test_it_names_what_there_is():
    functions = [name for name in crfseg.torch.models.__all__ if name[0].islower()]
    assert [name for name in functions if not re.search(rf"`{name}\b|import .*{name}", TEXT)] == []
