"""``gristmill cpu``: the machine, the levels that run on it, and with ``--measure`` how fast one core is now."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from gristmill import kernels
from gristmill.cli import options
from gristmill.console import Cell, Console, Table, format_bytes, status


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "cpu", help="show the processor, its levels and caches, and measure what a core can do", description=__doc__
    )
    parser.add_argument("--measure", action="store_true", help="calibrate the core: multiply-add rates and bandwidth")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="time to measure for, at most 60 (default: 2)"
    )
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


def _machine_table(info: kernels.CpuInfo) -> Table:
    table = Table(["machine", ""], align="<<")
    table.add("processor", Cell(info.model, "bold"))
    table.add("levels in this build", _names(info.compiled))
    table.add("levels it can run", _names(info.supported))
    table.add("active level", Cell(info.active, "green"))
    table.add("extensions", _names([name for name, found in info.features.items() if found]))
    for cache in info.caches:
        shared = f", shared by {cache.shared_by}" if cache.shared_by > 1 else ""
        table.add(f"L{cache.level} cache", format_bytes(cache.bytes) + shared)
    quota = f"{info.quota_cores:g} cores" if info.quota_cores is not None else "none"
    table.add("usable cores", f"{info.usable_cores} (affinity {info.affinity_cores}, quota {quota})")
    table.add("threads", str(info.num_threads))
    return table


def _rate_row(table: Table, name: str, rate: kernels.Rate, unit: str) -> None:
    table.add(name, f"{rate.best:.1f}", f"{rate.median:.1f}", unit)


def _calibration_table(measured: kernels.Calibration) -> Table:
    repetitions = measured.f32_fmas.repetitions
    table = Table(
        ["one core, now", "best", "median", "unit"],
        title=f"Calibration of level {measured.isa}, {repetitions} repetitions",
        align="<>><",
    )
    _rate_row(table, "int8 multiply-add, exact", measured.int8_macs, "GMAC/s")
    if measured.int8_saturating_macs is not None:
        _rate_row(table, "int8 multiply-add, saturating", measured.int8_saturating_macs, "GMAC/s")
    _rate_row(table, "float32 multiply-add", measured.f32_fmas, "GFMA/s")
    for read in measured.reads:
        assumed = ", size assumed" if read.assumed else ""
        _rate_row(table, f"read {read.memory} ({format_bytes(read.buffer_bytes)}{assumed})", read.gigabytes, "GB/s")
    return table


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    info = kernels.cpu_info()
    measured = None
    if arguments.measure:
        with status("measuring"):
            measured = kernels.calibrate(seconds=arguments.seconds)
    if arguments.json:
        document = asdict(info)
        if measured is not None:
            document["calibration"] = asdict(measured)
        options.print_json(document)
        return 0
    console = Console()
    console.print(_machine_table(info))
    if measured is not None:
        console.print()
        console.print(_calibration_table(measured))
    return 0
