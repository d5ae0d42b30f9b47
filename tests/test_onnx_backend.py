"""ONNX's own node tests for the operators of conv and linear networks, through each runner.

The onnx package generates the cases. Those that a runner does not pass are named in ``NOT_PASSING`` with the reason,
and must be exactly those: a case that starts to pass fails until it is taken off the list.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.reference import run

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

onnx = pytest.importorskip("onnx")

Array = npt.NDArray[Any]
Runner = Callable[[gm.Model, dict[str, Array]], list[Array]]

OPERATORS = re.findall(
    r"\w+",
    """
    Abs Add ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Exp Expand Flatten Gather Gelu
    Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Identity InstanceNormalization LRN LeakyRelu
    LogSoftmax MatMul MatMulInteger Max MaxPool Min Mul Neg PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
    ReduceMax ReduceMean ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax SpaceToDepth Split Sqrt Squeeze
    Sub Sum Swish Tanh TopK Transpose Unsqueeze
    """,
)

_NOWHERE = {
    r"test_(cast|castlike)_.*(FLOAT8|FLOAT4|INT4|INT2|E8M0|no_saturate).*": "types of less than 8 bits, and float8",
    r"test_(de)?quantizelinear_(e4m3fn|e5m2|float4|int4|uint4|int2|uint2).*": "types of less than 8 bits, and float8",
    r"test_training_dropout.*": "training",
    r"test_batchnorm_.*training_mode": "training",
    r"test_identity_(sequence|opt)": "values that are not tensors",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": "ONNX Runtime's coordinates, as elsewhere",
}
_UNPLANNED = "element types that plans have no kernels for"

#: Cases that do not pass, by runner and by a pattern that their names match as a whole.
NOT_PASSING = {
    "reference": _NOWHERE,
    "session": {
        **_NOWHERE,
        r"test_(add|div|mul|sub)_(u?int(8|16)|uint(32|64))": _UNPLANNED,
        r"test_(max|min)_(u?int16|uint32|uint64|float64)": _UNPLANNED,
        r"test_(pow_types_float32_uint(32|64)|top_k_uint64|reduce_max_(bool_inputs|empty_set_bool))": _UNPLANNED,
        r"test_(cast|castlike)_((FLOAT|FLOAT16)_to_DOUBLE|DOUBLE_to_(FLOAT|FLOAT16)).*": _UNPLANNED,
        r"test_flexattention_double_expanded_ver26": _UNPLANNED,
        r"test_((de)?quantizelinear_u?int16|quantizelinear_blocked_symmetric)": _UNPLANNED,
    },
}


def reference(model: gm.Model, feeds: dict[str, Array]) -> list[Array]:
    results = run(model.graph, feeds)
    return [results[info.name] for info in model.outputs]


def session(model: gm.Model, feeds: dict[str, Array]) -> list[Array]:
    return gm.InferenceSession(model).run(None, feeds)


RUNNERS: dict[str, Runner] = {"reference": reference, "session": session}


@functools.cache
def cases() -> dict[str, list[TestCase]]:
    """The cases whose nodes are all of the operators above, by the operator of the last node."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    result: dict[str, list[TestCase]] = {name: [] for name in OPERATORS}
    for case in found:
        if case.model is not None and all(node.op_type in OPERATORS for node in case.model.graph.node):
            result[case.model.graph.node[-1].op_type].append(case)
    return result


def why_not(name: str, runner: str) -> str:
    """Why a case does not pass; empty if it does."""
    return next((reason for pattern, reason in NOT_PASSING[runner].items() if re.fullmatch(pattern, name)), "")


def tensor(value: object) -> Array:
    """Data of a case; 16-bit floats in float32."""
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    return array.astype(np.float32) if array.dtype.name in {"float16", "bfloat16"} else array


def check(case: TestCase, runner: Runner) -> None:
    assert case.model is not None
    assert case.data_sets is not None
    model = gm.load(case.model)
    names = [info.name for info in case.model.graph.input]
    short = "float16" in case.name.lower() or "fp16" in case.name
    for inputs, expected in case.data_sets:
        got = runner(model, dict(zip(names, map(tensor, inputs), strict=True)))
        for result, value in zip(got, map(tensor, expected), strict=True):
            assert (result.dtype, result.shape) == (value.dtype, value.shape)
            np.testing.assert_allclose(result, value, rtol=5e-3 if short else case.rtol, atol=case.atol)


def outcome(case: TestCase, runner: Runner) -> str:
    """What is wrong with a case; empty if it is passed."""
    try:
        check(case, runner)
    except (gm.GristmillError, AssertionError) as error:
        return f"{case.name}: {str(error).strip()[:300]}"
    return ""


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_cases_of(operator: str, runner: str) -> None:
    found = {case.name: outcome(case, RUNNERS[runner]) for case in cases()[operator]}
    if not found:
        pytest.skip("the installed onnx has no case")
    assert [reason for name, reason in found.items() if reason and not why_not(name, runner)] == []
    assert [name for name, reason in found.items() if not reason and why_not(name, runner)] == []


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_is_not_passed_is_told(runner: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [case.name for group in cases().values() for case in group]
    missing = Counter(filter(None, (why_not(name, runner) for name in names)))
    passing = len(names) - missing.total()
    with capsys.disabled():
        print(f"\nONNX backend node tests, {runner}: {passing} of {len(names)} pass; not passing:")
        for reason, count in missing.items():
            print(f"  {count:3}  {reason}")
    assert passing >= 400
