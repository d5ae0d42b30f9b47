"""What a measured figure depends on: processor, level, versions."""

from __future__ import annotations

import platform

from gristmill._core import __version__
from gristmill.cpu import cpu_info

__all__ = ["machine"]


def machine() -> dict[str, object]:
    """Return what belongs beside every figure.

    Example:
        >>> sorted(machine())
        ['cpu', 'gristmill', 'level', 'numpy', 'python', 'usable_cores']
    """
    import numpy as np

    info = cpu_info()
    return {
        "gristmill": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": info.model,
        "level": info.active,
        "usable_cores": info.usable_cores,
    }
