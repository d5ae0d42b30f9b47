"""``gristmill inspect``: the layers of a model file, their weights, sparsity and bytes."""

from __future__ import annotations

import argparse

from gristmill.cli import options
from gristmill.console import Cell, Console, Table, format_bytes
from gristmill.loaders import load
from gristmill.model import Model


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect", help="show the layers of a model: shapes, types, sparsity, bytes", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", help="a model file")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def _document(model: Model) -> dict[str, object]:
    weights = model.weights().values()
    return {
        "file": model.source,
        "format": model.format,
        "inputs": [str(info) for info in model.inputs],
        "outputs": [str(info) for info in model.outputs],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "shape": None if layer.shape is None else list(layer.shape),
                "parameters": layer.parameters,
                "bytes": layer.nbytes,
                "sparsity": layer.sparsity,
            }
            for layer in model.layers()
        ],
        "parameters": sum(w.size for w in weights),
        "bytes": sum(w.nbytes for w in weights),
    }


def _table(model: Model) -> Table:
    """Layers with weights, or all if there are none."""
    layers = model.layers()
    shown = [layer for layer in layers if layer.parameters] or layers
    table = Table(["layer", "op", "output", "parameters", "bytes", "zeros"], align="<<<>>>")
    for layer in shown:
        shape = "?" if layer.shape is None else "×".join(map(str, layer.shape))
        figures = f"{layer.parameters:,}", format_bytes(layer.nbytes), f"{layer.sparsity:.1%}"
        table.add(layer.name, layer.op, shape, *figures)
    total, size = sum(layer.parameters for layer in shown), sum(layer.nbytes for layer in shown)
    zeros = sum(layer.zeros for layer in shown) / max(total, 1)
    bold = [Cell(text, "bold") for text in (f"{len(layers)} layers", "", "", f"{total:,}", format_bytes(size))]
    table.add(*bold, Cell(f"{zeros:.1%}", "bold"))
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
