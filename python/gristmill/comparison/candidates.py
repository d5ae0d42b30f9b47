"""What is compared: our forms of a model, and the same model for each peer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gristmill.comparison.engines import ENGINES
from gristmill.comparison.samples import Samples
from gristmill.errors import GristmillError
from gristmill.model import Model
from gristmill.optimizer import prune, quantize

__all__ = ["PEERS", "Candidate", "Forms", "is_quantized", "make_forms", "peer_candidates"]

PEERS = tuple(name for name in ENGINES if name != "gristmill")

_INSTALL = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch", "litert": "ai-edge-litert"}
_QUANTIZED_OPS = ("Quantize", "Dequantize", "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A model file and the engine that runs it.

    Attributes:
        name: Engine, form and precision.
        engine: A name of :data:`gristmill.comparison.engines.ENGINES`.
        precision: ``f32`` or ``int8``.
        path: The file.
        sparsity: The part of the weights that was asked to be zero.
        pattern: ``unstructured`` or ``1x4``; empty if nothing was pruned.
    """

    name: str
    engine: str
    precision: str
    path: str
    sparsity: float = 0.0
    pattern: str = ""

    @property
    def own(self) -> bool:
        """Whether it is ours."""
        return self.engine == "gristmill"

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return os.path.getsize(self.path)


@dataclass(frozen=True)
class Forms:
    """Our forms of a model.

    Attributes:
        candidates: Saved and ready to run; the first is what the others are compared with.
        dense: The dense models by precision, for peers.
    """

    candidates: list[Candidate]
    dense: dict[str, Model]


def is_quantized(model: Model) -> bool:
    """Tell whether a model computes on integers already."""
    return any(node.op.startswith(_QUANTIZED_OPS) for node in model.graph.nodes)


def make_forms(
    model: Model, samples: Samples, sparsity: Sequence[float], method: str | None, folder: Path, say: Say
) -> Forms:
    """Prune and quantize in every way that is compared, and save each form in a folder."""
    if is_quantized(model):
        given = _saved(model, "gristmill as given", "int8", folder)
        return Forms([given], {"int8": model})
    method = method or ("magnitude" if samples.random else "refit")
    say("quantizing the dense model")
    dense = {"f32": model, "int8": quantize(model, samples.calibration)}
    made = [_saved(form, f"gristmill dense {precision}", precision, folder) for precision, form in dense.items()]
    data = None if method == "magnitude" else samples.calibration
    for share in sparsity:
        for pattern, label in (("unstructured", ""), ("1x4", " 1x4")):
            say(f"pruning {share:.0%} of the weights, {pattern}")
            pruned = prune(model, share, pattern=pattern, method=method, calibration=data)
            name = f"gristmill {share:.0%}"
            if pattern == "unstructured":
                made.append(_saved(pruned, f"{name} f32", "f32", folder, share, pattern))
            say(f"quantizing with {share:.0%} zeros, {pattern}")
            small = quantize(pruned, samples.calibration)
            made.append(_saved(small, f"{name} int8{label}", "int8", folder, share, pattern))
    return Forms(made, dense)


def _saved(
    model: Model, name: str, precision: str, folder: Path, sparsity: float = 0.0, pattern: str = ""
) -> Candidate:
    path = folder / f"{name.replace(' ', '_').replace('%', '')}.grist"
    model.save(path)
    return Candidate(name, "gristmill", precision, str(path), sparsity, pattern)


def peer_candidates(
    model: Model, forms: Forms, peers: Sequence[str], torch_program: str | None, folder: Path
) -> tuple[list[Candidate], list[str]]:
    """The dense model for each installed peer in each precision, and a line for each peer that cannot take part."""
    found: list[Candidate] = []
    lines: list[str] = []
    for name in peers:
        engine = ENGINES[name]
        if engine.module is None:
            lines.append(f"{name} is not installed, so it is not compared: pip install {_INSTALL[name]}")
        elif name == "torch":
            if torch_program is None:
                lines.append(
                    "torch runs no model files of other frameworks: give it an exported program (--torch FILE)"
                )
            else:
                found.append(Candidate("torch eager f32", name, "f32", torch_program))
        elif name == "litert":
            if model.format == "TFLite" and model.source:
                found.append(Candidate(f"litert {_given(forms)}", name, _given(forms), os.path.abspath(model.source)))
            else:
                lines.append("litert runs .tflite models only, so it is not compared")
        else:
            _add_onnx(name, model, forms, folder, found, lines)
    return found, lines


def _given(forms: Forms) -> str:
    """The precision of the file that the user gave."""
    return next(iter(forms.dense))


def _add_onnx(engine: str, model: Model, forms: Forms, folder: Path, found: list[Candidate], lines: list[str]) -> None:
    for precision, form in forms.dense.items():
        path = folder / f"dense_{precision}.onnx"
        try:
            if form is model and model.format == "ONNX" and model.source and os.path.exists(model.source):
                path = Path(model.source).resolve()
            elif not path.exists():
                form.export_onnx(path)
        except GristmillError as error:
            lines.append(f"{engine} {precision} is not compared: {error}")
            continue
        found.append(Candidate(f"{engine} {precision}", engine, precision, str(path)))
