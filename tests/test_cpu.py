from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill import _core
from gristmill.cpu import Rate

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux files")


def test_info_agrees_with_the_levels() -> None:
    info = gm.kernels.cpu_info()
    assert list(info.compiled) == gm.kernels.compiled_isas()
    assert list(info.supported) == gm.kernels.supported_isas()
    assert info.active == gm.get_isa()
    assert info.num_threads == gm.get_num_threads()
    for level in info.compiled:
        assert level == "scalar" or info.features[level] == (level in info.supported)


def test_info_follows_the_active_level(isa: str) -> None:
    assert gm.kernels.cpu_info().active == isa


def test_info_is_plain_data() -> None:
    info = gm.kernels.cpu_info()
    assert json.loads(json.dumps(dataclasses.asdict(info)))["model"] == info.model


@linux
def test_model_is_what_the_system_says() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    if not models:
        pytest.skip("/proc/cpuinfo names no model")
    assert gm.kernels.cpu_info().model in models


@linux
def test_caches_are_what_the_system_says() -> None:
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    if not (folder / "index0").exists():
        pytest.skip("no cache folder in sysfs")
    found = {
        (int((entry / "level").read_text()), int((entry / "size").read_text().strip()[:-1]) * 1024)
        for entry in folder.glob("index*")
        if (entry / "type").read_text().strip() != "Instruction"
    }
    assert {(cache.level, cache.bytes) for cache in gm.kernels.cpu_info().caches} == found


@linux
def test_affinity_is_followed() -> None:
    before = os.sched_getaffinity(0)
    assert gm.kernels.cpu_info().affinity_cores == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        info = gm.kernels.cpu_info()
    finally:
        os.sched_setaffinity(0, before)
    assert (info.affinity_cores, info.usable_cores) == (1, 1)


def test_calibration_measures_every_level(isa: str) -> None:
    measured = gm.kernels.calibrate(seconds=0.05)
    assert measured.isa == isa
    rates = [measured.int8_macs, measured.f32_fmas, *(read.gigabytes for read in measured.reads)]
    assert all(0 < rate.median <= rate.best < 1e5 for rate in rates)
    assert all(rate.repetitions >= 5 for rate in rates)
    assert measured.reads[0].memory == "L1"
    sizes = [read.buffer_bytes for read in measured.reads]
    assert sizes == sorted(sizes)


def test_calibration_of_a_named_level() -> None:
    assert gm.kernels.calibrate("scalar", seconds=0.02).isa == "scalar"


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0, float("nan"), float("inf")])
def test_calibration_refuses_odd_times(seconds: float) -> None:
    with pytest.raises(gm.ArgumentError, match="seconds"):
        gm.kernels.calibrate(seconds=seconds)


def test_calibration_refuses_unknown_levels() -> None:
    with pytest.raises(gm.IsaError):
        gm.kernels.calibrate("avx1024")


def test_rate_spread() -> None:
    assert Rate(best=4.0, median=3.0, repetitions=5).spread == 0.25
    assert Rate(best=0.0, median=0.0, repetitions=0).spread == 0.0


def test_copy_bounds_move_every_byte(isa: str) -> None:
    wide = np.random.default_rng(1).integers(0, 256, 64 * 256, dtype=np.uint8)
    narrow = np.empty(64 * 64, np.uint8)
    _core.bench.narrow(wide, narrow, streaming=False)
    quarters = wide.reshape(64, 4, 64)
    assert np.array_equal(narrow.reshape(64, 64), np.bitwise_xor.reduce(quarters, axis=1))
    _core.bench.widen(narrow, wide, streaming=False)
    assert np.array_equal(quarters, np.repeat(narrow.reshape(64, 1, 64), 4, axis=1))


def test_copy_bounds_refuse_arrays_that_do_not_fit() -> None:
    wide, narrow = np.zeros(256, np.uint8), np.zeros(64, np.uint8)
    with pytest.raises(gm.ShapeError):
        _core.bench.narrow(wide[:255], narrow, streaming=False)
    with pytest.raises(gm.ShapeError):
        _core.bench.widen(narrow, wide[:192], streaming=False)
    with pytest.raises(gm.ArgumentError):
        _core.bench.narrow(np.zeros(512, np.uint8)[::2], narrow, streaming=False)
