"""Makes pytest use what :mod:`protocol` defines."""

from __future__ import annotations

from protocol import one_core, pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_report_header

__all__ = [
    "one_core",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_report_header",
]
