"""A whole network, the embedded one: dense, int8 and sparse beside other engines; one thread.

Run with ``pytest bench/bench_models.py``; ``gristmill compare`` does it for any model, with what is lost.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gristmill.comparison import Candidate
from gristmill.comparison.candidates import make_forms, peer_candidates
from gristmill.comparison.engines import ENGINES
from gristmill.comparison.samples import gather
from gristmill.embedded import load_digits

_PEERS = ["onnxruntime", "openvino"]
NAMES = [f"gristmill {form}" for form in ("dense f32", "dense int8", "90% f32", "90% int8", "90% int8 1x4")]
NAMES += [f"{peer} {precision}" for peer in _PEERS for precision in ("f32", "int8")]


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Candidate]:
    """The forms by name; of peers, those that are installed."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("models")
    samples = gather(digits.model.graph, digits.calibration, 128)
    forms = make_forms(digits.model, samples, [0.9], "magnitude", Path(folder), lambda text: None)
    others, _ = peer_candidates(digits.model, forms, _PEERS, None, Path(folder))
    return {candidate.name: candidate for candidate in [*forms.candidates, *others]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 16])
def test_digits(benchmark: BenchmarkFixture, candidates: dict[str, Candidate], batch: int, name: str) -> None:
    benchmark.group = f"digits, batch {batch}"
    if name not in candidates:
        pytest.skip(f"{name.split(maxsplit=1)[0]} is not installed")
    candidate = candidates[name]
    feeds = {"image": load_digits().images[:batch]}
    benchmark(ENGINES[candidate.engine].open(candidate.path, 1, feeds).run)
