"""What this machine is, how fast one of its cores can be, and how many of them gristmill uses."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill import _core

__all__ = [
    "Cache",
    "Calibration",
    "CpuInfo",
    "Rate",
    "ReadBandwidth",
    "calibrate",
    "cpu_info",
    "get_num_threads",
    "set_num_threads",
]


@dataclass(frozen=True)
class Cache:
    """A data or unified cache.

    Attributes:
        level: 1, 2 or 3.
        bytes: Size of one instance.
        shared_by: Logical processors that share the instance.
    """

    level: int
    bytes: int
    shared_by: int


@dataclass(frozen=True)
class CpuInfo:
    """The processor, the levels that run on it, and how much of it this process may use.

    Attributes:
        model: The processor's own name, ``"unknown"`` where it cannot be found.
        compiled: Instruction-set levels in this build, lowest first.
        supported: Compiled levels that this machine can run, lowest first.
        active: The level that calls use.
        features: Instruction-set extensions by name, and whether processor and operating system offer them.
        caches: Data and unified caches of the first processor, smallest level first; empty where unknown.
        affinity_cores: Logical processors that the process may run on.
        quota_cores: The control group's CPU quota in cores, ``None`` where there is none.
        usable_cores: Threads worth using: ``affinity_cores``, lowered to the quota rounded up.
        num_threads: Threads that calls use now.
    """

    model: str
    compiled: tuple[str, ...]
    supported: tuple[str, ...]
    active: str
    features: dict[str, bool]
    caches: tuple[Cache, ...]
    affinity_cores: int
    quota_cores: float | None
    usable_cores: int
    num_threads: int


@dataclass(frozen=True)
class Rate:
    """Repeated measurements of one rate, in 10^9 per second.

    Attributes:
        best: The fastest repetition: the bound.
        median: The repetition in the middle.
        repetitions: How many there were.
    """

    best: float
    median: float
    repetitions: int

    @property
    def spread(self) -> float:
        """How far the median stays behind the best, as a fraction of it: large on a disturbed machine."""
        return 1.0 - self.median / self.best if self.best > 0 else 0.0


@dataclass(frozen=True)
class ReadBandwidth:
    """Sequential reads of a buffer that lives in one level of the memory hierarchy.

    Attributes:
        memory: ``"L1"``, ``"L2"``, ``"L3"`` or ``"DRAM"``.
        buffer_bytes: Size of the buffer.
        assumed: The cache sizes are unknown here, and usual ones were assumed.
        gigabytes: 10^9 bytes per second.
    """

    memory: str
    buffer_bytes: int
    assumed: bool
    gigabytes: Rate


@dataclass(frozen=True)
class Calibration:
    """What one core can do at best with one level, measured now: the bound that kernels are judged by.

    Attributes:
        isa: The level.
        int8_macs: Exact 8-bit multiply-adds of any weights, operands in registers.
        int8_saturating_macs: The same with instructions that are faster but saturate, which are exact for weights in a
            suitable order; ``None`` where a level has none.
        f32_fmas: f32 multiply-adds, operands in registers.
        reads: Read bandwidth, nearest memory first.
    """

    isa: str
    int8_macs: Rate
    int8_saturating_macs: Rate | None
    f32_fmas: Rate
    reads: tuple[ReadBandwidth, ...]

    @property
    def int8_peak(self) -> float:
        """10^9 exact 8-bit multiply-adds per second, at best, of weights that were packed before."""
        saturating = self.int8_saturating_macs
        return max(self.int8_macs.best, saturating.best if saturating is not None else 0.0)


def cpu_info() -> CpuInfo:
    """Return what this machine is; affinity and quota are read anew on each call.

    Example:
        >>> info = cpu_info()
        >>> info.active in info.supported
        True
        >>> 1 <= info.usable_cores <= info.affinity_cores
        True
    """
    found = _core.cpu_info()
    return CpuInfo(
        model=found["model"],
        compiled=tuple(_core.compiled_isas()),
        supported=tuple(_core.supported_isas()),
        active=_core.get_isa(),
        features=found["features"],
        caches=tuple(Cache(*cache) for cache in found["caches"]),
        affinity_cores=found["affinity_cores"],
        quota_cores=found["quota_cores"] or None,
        usable_cores=found["usable_cores"],
        num_threads=_core.get_num_threads(),
    )


def calibrate(isa: str | None = None, *, seconds: float = 1.0) -> Calibration:
    """Measure the core that the calling thread runs on.

    All loops take turns until the time is up, so that a disturbance hits a few repetitions of each. Compare figures
    only with others of the same run: a processor changes its clock.

    Args:
        isa: The level to measure; the active one by default.
        seconds: About how long to measure, at most 60. Five turns are taken however long they last.

    Raises:
        IsaError: The level is unknown or cannot run here.
        ArgumentError: ``seconds`` is not in (0, 60].

    Example:
        >>> measured = calibrate(seconds=0.05)
        >>> measured.int8_macs.best > 0 and measured.f32_fmas.repetitions >= 5
        True
    """
    level = _core.get_isa() if isa is None else isa
    found = _core.calibrate(level, seconds)
    saturating = found["int8_saturating_macs"]
    return Calibration(
        isa=level,
        int8_macs=Rate(*found["int8_macs"]),
        int8_saturating_macs=None if saturating is None else Rate(*saturating),
        f32_fmas=Rate(*found["f32_fmas"]),
        reads=tuple(
            ReadBandwidth(memory, size, assumed, Rate(*rate)) for memory, size, assumed, rate in found["reads"]
        ),
    )


def get_num_threads() -> int:
    """Return how many threads calls use that do not say ``threads=``: at first, the usable cores.

    Example:
        >>> get_num_threads() >= 1
        True
    """
    return _core.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set how many threads calls use that do not say ``threads=``, for the whole process.

    Results do not depend on it. The environment variable ``GRISTMILL_NUM_THREADS`` does the same at import.

    Args:
        threads: 1 to 256; more than the usable cores only slows things down.

    Raises:
        ArgumentError: The count is outside 1 to 256.

    Example:
        >>> before = get_num_threads()
        >>> set_num_threads(2)
        >>> get_num_threads()
        2
        >>> set_num_threads(before)
    """
    _core.set_num_threads(threads)
