"""Measuring: both models run in sessions, in turns, and the report learns kernels, times and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gristmill.artefact import pack_artefact
from gristmill.console import status
from gristmill.graph import Array, Graph
from gristmill.kernels import get_isa, get_num_threads
from gristmill.optimizer.layers import find_layers, owner_of
from gristmill.optimizer.prepare import prepare
from gristmill.profile import StepProfile
from gristmill.report import LayerReport, Report, Whole
from gristmill.session import InferenceSession
from gristmill.timing import interleave

__all__ = ["file_bytes", "measure", "one_sample", "run_time"]


def measure(report: Report, before: Graph, after: Graph, feeds: Mapping[str, Array], seconds: float = 0.5) -> Report:
    """The report with kernels, times and memory of both models, on inputs of this shape.

    Args:
        report: Of layers whose weights bear the same names in both graphs.
        before: The original.
        after: What was made of it.
        feeds: Inputs, by name.
        seconds: Time to spend on runs of the whole; at least five of each are made.
    """
    with status("measuring both models"):
        sessions = {"before": InferenceSession(before), "after": InferenceSession(after)}
        runs = {name: _runner(session, feeds) for name, session in sessions.items()}
        timings = interleave(runs, seconds=seconds)
        profiles = {name: session.profile(*feeds.values()) for name, session in sessions.items()}
    layers = find_layers(prepare(before, feeds))
    steps = [{owner_of(step.weights, layers): step for step in profile.steps} for profile in profiles.values()]
    memory = [profile.arena_bytes + sum(step.weight_bytes for step in profile.steps) for profile in profiles.values()]
    whole = Whole(
        inputs=", ".join(f"{name}: {x.dtype.name}[{', '.join(map(str, x.shape))}]" for name, x in feeds.items()),
        isa=get_isa(),
        threads=get_num_threads(),
        ms_before=1e3 * timings["before"].best,
        ms_after=1e3 * timings["after"].best,
        file_before=file_bytes(before),
        file_after=file_bytes(after),
        memory_before=memory[0],
        memory_after=memory[1],
    )
    rows = tuple(_measured(row, steps[0].get(row.name), steps[1].get(row.name)) for row in report.layers)
    return replace(report, layers=rows, whole=whole)


def run_time(graph: Graph, feeds: Mapping[str, Array], seconds: float = 0.1) -> float:
    """Milliseconds of a run, the best of several."""
    return 1e3 * interleave({"run": _runner(InferenceSession(graph), feeds)}, seconds=seconds)["run"].best


def file_bytes(graph: Graph) -> int:
    """The size of a graph's file."""
    return sum(memoryview(part).nbytes for part in pack_artefact(graph))


def one_sample(graph: Graph, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The least that the network takes: the first sample of a batch, or as many as a fixed batch size asks for."""
    fixed = [info.shape[0] for info in graph.inputs if info.shape and isinstance(info.shape[0], int)]
    return {info.name: batch[info.name][: max(fixed, default=1)] for info in graph.inputs}


def _runner(session: InferenceSession, feeds: Mapping[str, Array]) -> Callable[[], list[Array]]:
    return lambda: session.run(None, feeds)


def _measured(row: LayerReport, before: StepProfile | None, after: StepProfile | None) -> LayerReport:
    if before is not None:
        row = replace(row, ms_before=before.milliseconds, memory_before=before.weight_bytes)
    if after is not None:
        row = replace(row, ms_after=after.milliseconds, memory_after=after.weight_bytes, kernel=after.kernel)
    return row
