from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from graphs import Network
from gristmill.artefact import save_artefact
from gristmill.cli import build_parser, main, options
from gristmill.embedded import load_digits


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main([*argv, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"gristmill {gm.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["grind"], ["demo", "--threads", "0"], ["demo", "--threads", "two"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "usage: gristmill" in capsys.readouterr().err


def test_every_command_has_help_and_json() -> None:
    parser = build_parser()
    for command, *rest in (["compare"], ["bench"], ["cpu"], ["demo"], ["inspect", "m"], ["run", "m"]):
        assert parser.parse_args([command, *rest, "--json"]).json
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args([command, "--help"])


def test_cpu_shows_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpu"]) == 0
    text = capsys.readouterr().out
    info = gm.kernels.cpu_info()
    assert info.model in text
    assert ", ".join(info.supported) in text


def test_cpu_measure_gives_every_rate(capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, "cpu", "--measure", "--seconds", "0.1")
    calibration = document["calibration"]
    assert isinstance(calibration, dict)
    assert calibration["isa"] == gm.get_isa()
    assert calibration["int8_macs"]["best"] > 0
    caches = [cache.bytes for cache in gm.kernels.cpu_info().caches]
    memories = [read["memory"] for read in calibration["reads"]]
    # Memory cannot be told from a last cache of hundreds of MiB: the largest buffer is 512 MiB.
    dram = ["DRAM"] if not caches or caches[-1] <= 256 << 20 else []
    assert memories == ["L1", "L2", "L3", *dram]
    assert main(["cpu", "--measure", "--seconds", "0.1"]) == 0
    assert "GMAC/s" in capsys.readouterr().out


def test_mistakes_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpu", "--measure", "--seconds", "-1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gristmill: seconds: ")
    assert error.count("\n") == 1


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    net = Network()
    weights = net.random.standard_normal((5, 3)) * (net.random.random((5, 3)) < 0.5)
    path = tmp_path / "m.grist"
    save_artefact(net.graph(net.add("Gemm", net.input("n", 3), net.constant(weights), transB=1, name="fc")), path)
    return str(path)


def test_inspect_shows_layers(capsys: pytest.CaptureFixture[str], model_file: str) -> None:
    document = run_json(capsys, "inspect", model_file)
    layers = document["layers"]
    assert isinstance(layers, list)
    zeros = np.mean(gm.load(model_file).weights()["c"] == 0)
    figures = {"parameters": 15, "bytes": 60, "sparsity": pytest.approx(zeros)}
    about = {"name": "fc", "op": "Gemm", "shape": [5, 3], "dtype": "float32", "output": ["n", 5]}
    assert layers == [about | figures]
    assert document["totals"] == figures
    assert main(["inspect", model_file]) == 0
    text = capsys.readouterr().out
    assert "x: float32[n, 3]" in text
    assert f"{zeros:.1%}" in text


def test_inspect_shows_quantized_layers_as_stored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = load_digits().model
    small = gm.quantize(gm.prune(model, 0.5), load_digits().calibration[:64])
    small.save(tmp_path / "m.grist")
    document = run_json(capsys, "inspect", str(tmp_path / "m.grist"))
    layers, totals = document["layers"], document["totals"]
    assert isinstance(layers, list)
    assert isinstance(totals, dict)
    assert [(layer["name"], layer["op"]) for layer in layers] == [
        (node.name, node.op) for node in small.graph.nodes if node.op in {"Conv", "Gemm"}
    ]
    assert {layer["dtype"] for layer in layers} == {"int8"}
    assert layers[0]["shape"] == list(model.weights()["conv0.weight"].shape)
    assert totals["parameters"] == totals["bytes"] == sum(layer["bytes"] for layer in layers)
    assert 0.45 < totals["sparsity"] < 0.6
    assert main(["inspect", str(tmp_path / "m.grist")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in lines if line and line[0] in {"conv0", "head"}] == ["int8", "int8"]
    whole = f"{document['parameters']:,}"
    assert lines[-1][:2] == ["all", whole]


def test_run_computes_what_a_session_does(capsys: pytest.CaptureFixture[str], model_file: str, tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    (wanted,) = gm.InferenceSession(model_file, threads=1).run(None, {"x": x})
    for name in ("x.npy", "x.npz"):
        out = tmp_path / "y.npz"
        command = ["run", model_file, "--input", str(tmp_path / name), "--output", str(out), "--seconds", "0"]
        document = run_json(capsys, *command, "--profile", "--threads", "1")
        np.testing.assert_array_equal(np.load(out)["fc"], wanted)
        outputs, steps = document["outputs"], document["steps"]
        assert isinstance(outputs, dict)
        assert isinstance(steps, list)
        assert outputs["fc"]["shape"] == [2, 5]
        assert [step["op"] for step in steps] == ["LinearLayer"]
    assert main(["run", model_file, "--batch", "4", "--profile", "--seconds", "0"]) == 0
    text = capsys.readouterr().out
    assert "4×5" in text
    assert "LinearLayer" in text


def test_wrong_files_are_one_line(capsys: pytest.CaptureFixture[str], model_file: str, tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "no.onnx")]) == 2
    assert capsys.readouterr().err.count("no.onnx") == 1
    (tmp_path / "x.npy").write_bytes(b"hello")
    assert main(["run", model_file, "--input", str(tmp_path / "x.npy")]) == 2
    assert "x.npy: is no .npy or .npz file" in capsys.readouterr().err


def object_archive(path: Path) -> None:
    np.savez(path, x=np.array([{}], object))


def huge_array(path: Path, rows: int = 1 << 60) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, 3)})


def huge_member(path: Path) -> None:
    huge_array(path, 1 << 62)
    header = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header)


def unknown_method(path: Path) -> None:
    np.savez(path, x=np.ones((1, 3), np.float32))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 99
    path.write_bytes(data)


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b"PK\3\4junk" * 9), object_archive, huge_array, huge_member, unknown_method]
)
def test_damaged_arrays_are_one_line(
    capsys: pytest.CaptureFixture[str], model_file: str, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "x.npz"
    make(path)
    assert main(["run", model_file, "--input", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gristmill: {path}: is no .npy or .npz file that can be read: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("GRISTMILL_ISA", "avx9"), ("GRISTMILL_NUM_THREADS", "abc")])
@pytest.mark.parametrize("program", [["-m", "gristmill"], ["gristmill"]])
def test_wrong_environments_are_one_line(tmp_path: Path, name: str, value: str, program: list[str]) -> None:
    script = tmp_path / "gristmill"
    script.write_text("from gristmill.cli import main\nraise SystemExit(main())\n")
    where = {"cwd": tmp_path, "env": os.environ | {name: value}}
    found = subprocess.run([sys.executable, *program, "cpu"], capture_output=True, text=True, check=False, **where)  # type: ignore[call-overload]
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"gristmill: {name}: ")
    assert found.stderr.count("\n") == 1
    command = [sys.executable, "-c", "import gristmill"]
    assert b"Error" in subprocess.run(command, capture_output=True, check=False, **where).stderr  # type: ignore[call-overload]


def test_lack_of_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], model_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: gm.InferenceSession, *_arguments: object) -> None:
        raise MemoryError

    assert main(["run", model_file, "--shape", f"x={1 << 50}x{1 << 50}"]) == 2
    assert "x: random values of shape 1125899906842624×1125899906842624 do not fit" in capsys.readouterr().err
    monkeypatch.setattr(gm.InferenceSession, "run", fail)
    assert main(["run", model_file]) == 2
    assert capsys.readouterr().err == "gristmill: memory does not suffice\n"


def test_json_has_null_for_what_it_has_no_number_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net = Network()
    save_artefact(net.graph(net.add("Neg", net.input("n"))), tmp_path / "m.grist")
    np.save(tmp_path / "x.npy", np.array([np.inf, -np.inf], np.float32))
    command = ["run", str(tmp_path / "m.grist"), "--input", str(tmp_path / "x.npy"), "--seconds", "0", "--json"]
    assert main(command) == 0
    (figures,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["outputs"].values()
    assert (figures["least"], figures["mean"], figures["greatest"]) == (None, None, None)


def test_outputs_are_written_under_the_name_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Network()
    save_artefact(net.graph(net.add("Relu", net.input("n", 2), name="file")), tmp_path / "m.grist")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "m.grist", "--output", "."]) == 2
    assert capsys.readouterr().err.startswith("gristmill: .: cannot be written")
    assert sorted(os.listdir()) == ["m.grist"]
    assert main(["run", "m.grist", "--output", "y", "--seconds", "0"]) == 0
    assert sorted(os.listdir()) == ["m.grist", "y"]
    with np.load("y") as stored:
        assert stored["file"].shape == (1, 2)


def test_shapes_of_random_inputs_are_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net = Network()
    path = str(tmp_path / "m.grist")
    save_artefact(net.graph(net.conv(net.input("n", 3, "h", "w"), 3, 4, 5, pads=(0, 0, 0, 0))), path)
    assert main(["run", path]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gristmill: {path}: ")
    assert error.endswith("; random inputs were x=1x3x1x1: give others with --batch or --shape\n")
    document = run_json(capsys, "run", path, "--shape", "x=2x3x9x8", "--seconds", "0")
    outputs = document["outputs"]
    assert isinstance(outputs, dict)
    assert [value["shape"] for value in outputs.values()] == [[2, 4, 5, 4]]
    for shape, message in (("y=1x3", "--shape: there is no input y; there are: x n×3×h×w"), ("x=1x3", "x: expected")):
        assert main(["run", path, "--shape", shape]) == 2
        assert message in capsys.readouterr().err
    assert main(["run", path, "--shape", "x=1x3x9x9", "--input", "x.npy"]) == 2
    assert "--shape: is for random inputs" in capsys.readouterr().err
    for text in ("x", "=1", "x=1x", "x=-1", "x=a"):
        with pytest.raises(SystemExit, match="2"):
            main(["run", path, "--shape", text])
    assert options.named_shape("a=b=") == ("a=b", ())


def test_positive_int_refuses_what_int_would_take() -> None:
    import argparse

    assert options.positive_int("12") == 12
    for text in ("0", "-1", "1.5", " 3", "1_000", "٣", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            options.positive_int(text)


def test_module_runs_as_a_program_and_survives_a_closed_pipe(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "gristmill", "cpu"]
    whole = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (whole.returncode, whole.stderr) == (0, "")
    cut = subprocess.run(
        ["sh", "-c", 'exec 3>&1; { "$@" 2>&3; echo "status $?" >&3; } | true', "sh", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert cut.stdout.strip() in {"status 0", "status 141"}
