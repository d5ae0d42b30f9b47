"""Comparing a model's forms with each other and with other engines, on this machine."""

from __future__ import annotations

from gristmill.comparison.agreement import Agreement
from gristmill.comparison.api import compare
from gristmill.comparison.candidates import PEERS, Candidate
from gristmill.comparison.result import Comparison, Facts, Measurement, Setting

__all__ = ["PEERS", "Agreement", "Candidate", "Comparison", "Facts", "Measurement", "Setting", "compare"]
