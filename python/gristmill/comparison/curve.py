"""Forms of rising sparsity, to find where each kind of sparse weights begins to pay in a whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gristmill.comparison.candidates import Candidate
from gristmill.comparison.samples import Samples
from gristmill.model import Model
from gristmill.optimizer import prune, quantize

__all__ = ["KINDS", "curve_forms"]

#: Precision and pattern by name.
KINDS = {
    "float32, unstructured": ("f32", "unstructured"),
    "int8, unstructured": ("int8", "unstructured"),
    "int8, 1x4 blocks": ("int8", "1x4"),
}
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_RANGE_SAMPLES = 8


def curve_forms(model: Model, samples: Samples, folder: Path, say: Callable[[str], None]) -> list[Candidate]:
    """Forms that are pruned by magnitude, the same share in each layer: right for times, not for accuracy."""
    few = {name: value[:_RANGE_SAMPLES] for name, value in samples.calibration.items()}
    made = []
    for share in _SHARES:
        for pattern in ("unstructured", "1x4"):
            say(f"pruning {share:.0%} in every layer, {pattern}")
            pruned = prune(model, share, pattern=pattern, scope="layer", method="magnitude")
            forms = {"int8": quantize(pruned, few, calibrator="minmax", bias_correction=False, min_layer_sqnr=-1e9)}
            if pattern == "unstructured":
                forms["f32"] = pruned
            for precision, form in forms.items():
                name = f"{precision} {pattern} {share:.0%}"
                path = folder / f"curve_{precision}_{pattern}_{share:.2f}.grist"
                form.save(path)
                made.append(Candidate(name, "gristmill", precision, str(path), share, pattern))
    return made
