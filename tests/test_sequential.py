from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill.sequential import Conv2d, Linear, Op


def normal(*shape: int) -> Any:  # noqa: ANN401
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_a_chain_computes_what_its_layers_say() -> None:
    kernel, bias, head = normal(4, 3, 1, 1), normal(4), normal(2, 4 * 9)
    model = gm.Sequential(
        (3, 6, 6), [Conv2d(kernel, bias, stride=2), Op("Relu"), Op("Flatten"), Linear(head, normal(2))]
    )
    x = normal(5, 3, 6, 6)
    hidden = np.einsum("mc,nchw->nmhw", kernel[:, :, 0, 0], x[:, :, ::2, ::2]) + bias.reshape(4, 1, 1)
    expected = np.maximum(hidden, 0).reshape(5, -1) @ head.T + normal(2)
    np.testing.assert_allclose(gm.InferenceSession(model)(x), expected, rtol=1e-5, atol=1e-5)
    assert model.outputs[0].shape == ("n", 2)


def test_operators_take_constants_and_attributes() -> None:
    pool = Op("MaxPool", attributes={"kernel_shape": (2, 2), "strides": (2, 2)})
    model = gm.Sequential((1, 4, 4), [pool, Op("Clip", [np.float32(0), np.float32(1)])])
    x = normal(2, 1, 4, 4)
    expected = x.reshape(2, 1, 2, 2, 2, 2).max((3, 5)).clip(0, 1)
    np.testing.assert_array_equal(gm.InferenceSession(model)(x), expected)


def test_layers_that_do_not_fit_are_named() -> None:
    with pytest.raises(gm.GristmillError, match="layer1"):
        gm.Sequential((3,), [Linear(normal(4, 3)), Linear(normal(2, 5))])
    with pytest.raises(gm.ShapeError, match=r"layer0: expected weights of rank 4"):
        gm.Sequential((3, 4, 4), [Conv2d(normal(4, 3))])
    with pytest.raises(gm.ShapeError, match=r"layer0: expected a bias"):
        gm.Sequential((3,), [Linear(normal(4, 3), normal(3))])
    with pytest.raises(gm.UnsupportedOpError, match="Lstm"):
        gm.Sequential((3,), [Op("Lstm")])
    with pytest.raises(gm.ArgumentError, match="at least one"):
        gm.Sequential((3,), [])
