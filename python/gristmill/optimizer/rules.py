"""Rules: which layers are pruned and how much, and why others are not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from gristmill.errors import ArgumentError
from gristmill.optimizer.layers import Layer
from gristmill.optimizer.schedules import check_sparsity

__all__ = ["kept_dense", "per_layer", "select_ignored", "without_own_channels"]

#: Layers below this many weights are not worth an index.
_TINY = 1024


def select_ignored(layers: Sequence[Layer], ignore: Collection[str]) -> dict[str, str]:
    """The layers that a user's names or regular expressions leave alone, with the reason.

    Raises:
        ArgumentError: An entry matches no layer, or is no regular expression.
    """
    found: dict[str, str] = {}
    for entry in ignore:
        names = _matching(layers, entry, "ignore")
        found.update((name, f"ignored by {entry!r}") for name in names)
    return found


def kept_dense(layers: Sequence[Layer]) -> dict[str, str]:
    """The layers that are better left dense, with the reason."""
    found = {}
    for index, layer in enumerate(layers):
        if index == 0:
            found[layer.name] = "first layer: few weights, and every error goes through the whole network"
        elif layer.depthwise:
            found[layer.name] = "depthwise: few weights, and a dense kernel is faster"
        elif layer.size < _TINY:
            found[layer.name] = f"tiny: fewer than {_TINY} weights"
    return found


def without_own_channels(layers: Sequence[Layer], owners: Collection[str]) -> dict[str, str]:
    """The layers that cannot lose whole channels, with the reason."""
    reason = "channels cannot be removed: they meet others in a sum, are mixed, or are what the network gives out"
    return {layer.name: reason for layer in layers if layer.name not in owners}


def per_layer(layers: Sequence[Layer], table: Mapping[str, float]) -> dict[str, float]:
    """Sparsity by layer from a table of names or regular expressions; the first entry that fits counts.

    Raises:
        ArgumentError: An entry matches no layer, is no regular expression, or its sparsity is out of range.
    """
    found: dict[str, float] = {}
    for entry, sparsity in table.items():
        check_sparsity(sparsity, f"sparsity of {entry!r}")
        for name in _matching(layers, entry, "sparsity"):
            found.setdefault(name, sparsity)
    return found


def _matching(layers: Sequence[Layer], entry: str, what: str) -> list[str]:
    exact = [layer.name for layer in layers if layer.name == entry]
    if exact:
        return exact
    try:
        pattern = re.compile(entry)
    except re.error as error:
        raise ArgumentError(f"{entry!r} is neither a layer nor a regular expression: {error}", node=what) from error
    names = [layer.name for layer in layers if pattern.fullmatch(layer.name)]
    if not names:
        raise ArgumentError(
            f"{entry!r} matches no layer; there are: {', '.join(layer.name for layer in layers)}", node=what
        )
    return names
