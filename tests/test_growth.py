"""Compilation takes time in proportion to the nodes, whatever they are: lines of Python are counted, not seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest

import gristmill as gm
import onnx_models as om

PACKAGE = str(gm.__file__).removesuffix("__init__.py")


def lines_of(run: Callable[[], object]) -> int:
    """How many lines of the package run."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:  # noqa: ANN401
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def chain(count: int, op: str, names: str = "n{}", second: str = "") -> Any:  # noqa: ANN401
    """Each node reads the one before."""
    nodes = [om.node(op, f"v{i} {second}", f"v{i + 1}", name=names.format(i)) for i in range(count)]
    inputs, outputs = [om.value("v0", [4])], [om.value(f"v{count}", [4])]
    return om.model(nodes, inputs, outputs, c=np.ones(4, np.float32))


def fan(count: int, op: str, end: str, **attributes: int) -> Any:  # noqa: ANN401
    """All nodes read the input, and one reads them all."""
    parts = [f"r{i}" for i in range(count)]
    nodes = [om.node(op, "x", part, name=part) for part in parts]
    last = om.node(end, " ".join(parts), "y", name="last", **attributes)
    return om.model([*nodes, last], [om.value("x", [4])], [om.value("y", None)])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: chain(n, "Add", second="c"), id="sums in place"),
        pytest.param(lambda n: chain(n, "Relu", names="same"), id="one name for all"),
        pytest.param(lambda n: chain(n, "Softmax"), id="values of short lives"),
        pytest.param(lambda n: fan(n, "Relu", "Concat", axis=0), id="branches joined"),
        pytest.param(lambda n: fan(n, "Softmax", "Sum"), id="values that all live"),
        pytest.param(lambda n: fan(n, "Identity", "Sum"), id="identities of one value"),
    ],
)
def test_twice_the_nodes_take_twice_the_steps(make: Callable[[int], Any]) -> None:
    models = [make(count).SerializeToString() for count in (400, 800)]
    few, many = (lines_of(partial(gm.InferenceSession, model, threads=1)) for model in models)
    assert many < 2.2 * few
