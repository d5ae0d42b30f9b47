"""The nine networks whose shapes the onnx package carries run in sessions, and agree with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from onnxruntime_peer import exact_session

onnx = pytest.importorskip("onnx")

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
IMAGE = (1, 3, 224, 224)
#: Wide linear layers get this many outputs instead: 400 MB of random weights tell no more than 6 MB do.
WIDTHS = {4096: 64}


def drawn(path: Path) -> Any:  # noqa: ANN401
    """The network with random weights, where the file fills them with one number each."""
    made = onnx.load(path)
    generator = np.random.default_rng(0)
    shapes = {item.name: onnx.numpy_helper.to_array(item) for item in made.graph.initializer}
    nodes = [node for node in made.graph.node if node.op_type != "ConstantOfShape"]
    for node in made.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = [WIDTHS.get(extent, extent) for extent in shapes[node.input[0]].tolist()]
            values = generator.uniform(0.5, 1.5, shape) if len(shape) < 2 else generator.standard_normal(shape, "f4")
            values = np.asarray(values * np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else values, np.float32)
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_networks_agree_with_onnxruntime(name: str) -> None:
    path = FOLDER / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("the installed onnx carries no such network")
    made = drawn(path)
    session = gm.InferenceSession(made)
    (info,) = session.get_inputs()
    x = np.random.default_rng(1).standard_normal(IMAGE, np.float32)
    peer = exact_session(made)
    expected, actual = peer.run(None, {info.name: x})[0], session.run(None, {info.name: x})[0]
    assert expected.std() > 0.2 * np.abs(expected).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"bvlc_alexnet", "vgg19", "zfnet512"}])
def test_files_give_their_stored_outputs(name: str) -> None:
    path = FOLDER / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("the installed onnx carries no such network")
    session = gm.InferenceSession(path)
    (info,) = session.get_inputs()
    assert info.shape == IMAGE
    count = np.prod(IMAGE)
    x = (np.arange(count).reshape(IMAGE) / count).astype(np.float32)
    stored = onnx.load_tensor(str(path.with_name(f"light_{name}_output_0.pb")))
    np.testing.assert_allclose(session(x), onnx.numpy_helper.to_array(stored), rtol=1e-3, atol=1e-7)
