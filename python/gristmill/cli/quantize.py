"""``gristmill quantize``: layers of a model to int8, with ranges from calibration data."""

from __future__ import annotations

import argparse

from gristmill.cli import making
from gristmill.errors import ArgumentError
from gristmill.optimizer import quantize
from gristmill.optimizer.calibrators import CALIBRATORS
from gristmill.optimizer.pipeline import MODES


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("quantize", help="quantize layers to int8", description=__doc__)
    making.add_options(parser)
    making.add_calibration_options(parser, 512, required=False)
    parser.add_argument("--mode", default="static", choices=MODES, help="(default: static, which needs --calibration)")
    parser.add_argument("--calibrator", default="mse", choices=CALIBRATORS, help="how ranges are chosen (default: mse)")
    parser.add_argument(
        "--percentile", type=float, default=99.99, metavar="P", help="what percentile keeps (default: 99.99)"
    )
    parser.add_argument("--symmetric", action="store_true", help="int8 activations around zero instead of uint8")
    parser.add_argument("--per-tensor", action="store_true", help="one scale for all of a layer's weights")
    parser.add_argument("--no-bias-correction", action="store_true", help="leave the biases as they are")
    parser.add_argument(
        "--min-layer-sqnr", type=float, default=10.0, metavar="DB", help="worse layers stay float32 (default: 10)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.mode == "static" and arguments.calibration is None:
        raise ArgumentError("static quantization needs typical inputs: give --calibration FILE", node="--calibration")
    made = quantize(
        making.read_model(arguments),
        arguments.calibration,
        mode=arguments.mode,
        calibrator=arguments.calibrator,
        percentile=arguments.percentile,
        symmetric=arguments.symmetric,
        per_channel=not arguments.per_tensor,
        bias_correction=not arguments.no_bias_correction,
        min_layer_sqnr=arguments.min_layer_sqnr,
        ignore=arguments.ignore,
        samples=arguments.samples,
    )
    return making.write(made, arguments)
