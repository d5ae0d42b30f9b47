"""What operators take at each opset, as the package onnx states it; asked once for each, since asking is slow."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Schema:
    """The form of an operator.

    Attributes:
        since: The opset that gave it this form.
        kinds: The types of its attributes by name, as schemas call them.
        required: The attributes that it cannot do without.
        inputs: The least and the greatest number of inputs.
        results: The same of results.
    """

    since: int
    kinds: Mapping[str, str]
    required: tuple[str, ...]
    inputs: tuple[int, int]
    results: tuple[int, int]


@functools.lru_cache(maxsize=1024)
def find_schema(op: str, version: int) -> Schema | None:
    """The form that an operator of ONNX's own has at an opset, if there is one."""
    from onnx import defs

    known = min(version, defs.onnx_opset_version())
    if not defs.has(op, known, ""):
        return None
    schema = defs.get_schema(op, known, "")
    attributes = schema.attributes
    return Schema(
        schema.since_version,
        {name: str(item.type).rpartition(".")[2] for name, item in attributes.items()},
        tuple(name for name, item in attributes.items() if item.required),
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
    )
