"""PyTorch modules answer as they did in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill import reference

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore")


def _network() -> Any:  # noqa: ANN401
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    ).eval()


def test_a_module_answers_as_it_did_for_any_batch() -> None:
    module = _network()
    model = gm.from_torch(module, torch.zeros(1, 3, 16, 16))
    x = torch.randn(4, 3, 16, 16)
    (got,) = reference.run(model.graph, {"input": x.numpy()}).values()
    np.testing.assert_allclose(got, module(x).detach().numpy(), atol=1e-5)


def test_masks_of_pruning_become_zeros_and_the_module_keeps_them() -> None:
    module = _network()
    torch.nn.utils.prune.l1_unstructured(module[0], "weight", amount=0.5)
    model = gm.from_torch(module, torch.zeros(1, 3, 16, 16))
    kernel = next(array for array in model.weights().values() if array.shape == (8, 3, 3, 3))
    assert (kernel == 0).mean() == 0.5
    assert hasattr(module[0], "weight_mask")


def test_what_is_no_module_or_does_not_fit_is_refused() -> None:
    with pytest.raises(gm.ArgumentError, match=r"expected a torch.nn.Module, got int"):
        gm.from_torch(3, torch.zeros(1))
    with pytest.raises(gm.ArgumentError, match="cannot be called"):
        gm.from_torch(_network(), torch.zeros(1, 2, 16, 16))
    with pytest.raises(gm.ArgumentError, match="expected a tensor"):
        gm.from_torch(_network(), [])
