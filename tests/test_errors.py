"""Error classes: what they carry, what they are, and that they survive pickling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TypeAlias

import pytest

import gristmill as gm

_Clone: TypeAlias = Callable[[gm.GristmillError], gm.GristmillError]
_KINDS = [gm.ArgumentError, gm.DTypeError, gm.IsaError, gm.LimitError, gm.ShapeError]


@pytest.mark.parametrize("kind", [gm.GristmillError, *_KINDS])
@pytest.mark.parametrize("clone", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_clones_carry_everything(kind: type[gm.GristmillError], clone: _Clone) -> None:
    error = kind("expected 3, got 4", node="conv1", file="model.onnx")
    twin = clone(error)
    assert type(twin) is kind
    assert (twin.reason, twin.node, twin.file) == (error.reason, error.node, error.file)
    assert str(twin) == str(error) == "model.onnx: conv1: expected 3, got 4"


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ({}, "reason"),
        ({"node": "n"}, "n: reason"),
        ({"file": "f"}, "f: reason"),
        ({"node": "n", "file": "f"}, "f: n: reason"),
    ],
)
def test_text_names_the_places_that_are_known(places: dict[str, str], text: str) -> None:
    assert str(gm.GristmillError("reason", **places)) == text


@pytest.mark.parametrize("kind", _KINDS)
def test_each_kind_is_also_the_builtin_that_python_would_raise(kind: type[gm.GristmillError]) -> None:
    assert issubclass(kind, gm.GristmillError)
    assert issubclass(kind, TypeError if kind is gm.DTypeError else ValueError)


def test_errors_of_the_core_are_errors_of_the_package() -> None:
    with pytest.raises(gm.IsaError) as caught:
        gm.set_isa("avx1024")
    assert "avx1024" in str(caught.value)
    assert caught.value.reason
