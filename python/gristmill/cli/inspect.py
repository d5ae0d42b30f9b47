"""``gristmill inspect``: the convolutions and linear layers of a model file; weights as stored: shape, type, bytes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gristmill.cli import options
from gristmill.console import Cell, Console, Table, format_bytes
from gristmill.loaders import load
from gristmill.model import Model
from gristmill.summary import LayerSummary


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect", help="show the layers of a model: weights, types, sparsity, bytes", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", help="a model file")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def _layers(model: Model) -> list[LayerSummary]:
    """Convolutions and linear layers with constant weights."""
    return [layer for layer in model.layers() if layer.weight]


def _totals(layers: Sequence[LayerSummary]) -> dict[str, float]:
    """Of all layers; weights that several share count once."""
    stored = {layer.weight: layer for layer in layers}.values()
    parameters = sum(layer.parameters for layer in stored)
    sparsity = sum(layer.zeros for layer in stored) / max(parameters, 1)
    return {"parameters": parameters, "bytes": sum(layer.nbytes for layer in stored), "sparsity": sparsity}


def _document(model: Model) -> dict[str, object]:
    weights, layers = model.weights().values(), _layers(model)
    return {
        "file": model.source,
        "format": model.format,
        "inputs": [str(info) for info in model.inputs],
        "outputs": [str(info) for info in model.outputs],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "shape": list(layer.weight_shape or ()),
                "dtype": str(layer.dtype),
                "output": None if layer.shape is None else list(layer.shape),
                "parameters": layer.parameters,
                "bytes": layer.nbytes,
                "sparsity": layer.sparsity,
            }
            for layer in layers
        ],
        "totals": _totals(layers),
        "parameters": sum(w.size for w in weights),
        "bytes": sum(w.nbytes for w in weights),
    }


def _table(model: Model) -> Table:
    layers, weights = _layers(model), model.weights().values()
    table = Table(["layer", "op", "output", "weights", "dtype", "parameters", "bytes", "zeros"], align="<<<<<>>>")
    for layer in layers:
        output = "?" if layer.shape is None else "×".join(map(str, layer.shape))
        shape = "×".join(map(str, layer.weight_shape or ()))
        figures = f"{layer.parameters:,}", format_bytes(layer.nbytes), f"{layer.sparsity:.1%}"
        table.add(layer.name, layer.op, output, shape, str(layer.dtype), *figures)
    totals, whole, size = _totals(layers), sum(w.size for w in weights), sum(w.nbytes for w in weights)
    rest = whole - totals["parameters"], size - totals["bytes"]
    name = f"{len(layers)} layer{'s' * (len(layers) != 1)}"
    sums = [name, "", "", "", "", f"{totals['parameters']:,}", format_bytes(totals["bytes"])]
    table.add(*(Cell(text, "bold") for text in [*sums, f"{totals['sparsity']:.1%}"]))
    table.add("biases, scales and others", "", "", "", "", f"{rest[0]:,}", format_bytes(rest[1]))
    table.add(*(Cell(text, "bold") for text in ("all", "", "", "", "", f"{whole:,}", format_bytes(size))))
    return table


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    model = load(arguments.model)
    if arguments.json:
        options.print_json(_document(model))
        return 0
    console = Console()
    console.print(Cell(f"{model.source}, {model.format}", "bold cyan"))
    for kind, infos in (("takes", model.inputs), ("gives", model.outputs)):
        console.print(f"{kind}  {', '.join(map(str, infos))}")
    console.print()
    console.print(_table(model))
    return 0
