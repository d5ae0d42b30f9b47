"""Pictures: plots drawn by matplotlib, which is needed for nothing else."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from gristmill.errors import MissingDependencyError

if TYPE_CHECKING:
    from gristmill.optimizer.sensitivity import Sensitivity

__all__ = ["sensitivity_picture"]


def sensitivity_picture(found: Sensitivity, kind: str) -> bytes:
    """A line for each layer, as the content of a file of that kind.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "pictures need matplotlib: pip install 'gristmill[plot]'; pages (.html) do not"
        ) from None
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    scale = 1.0 if found.dense is None else 100.0
    for name, row in found.items():
        axes.plot([100 * level for level in row], [scale * value for value in row.values()], marker="o", label=name)
    if found.dense is not None:
        axes.axhline(100 * found.dense, linestyle="--", color="gray", label="dense")
    axes.set(
        title=found.title,
        xlabel="zeros in the layer, %",
        ylabel="SNR, dB" if found.dense is None else "accuracy, %",
    )
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()
