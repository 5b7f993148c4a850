"""The program for a machine with a GPU (`benchmarks/gpu.py`), rehearsed where there is none.

Its parts compute on a driver in Python (`fake_cuda`), with a small network; the times are of the
emulator.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("numba.cuda")

from fake_cuda import FakeCuda, installed
from on_device import by_fibers

from tinyresnext.network.spec import Spec
from tinyresnext.ops.contract import Peak
from tinyresnext.ops.cuda import elementwise

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SPEC = Spec((1,), 2, 4, 5, stem="cifar", expansion=1)


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return import_module("gpu")


@pytest.fixture
def small(program, monkeypatch):
    """The program, for a fake GPU and sizes that an emulator computes in seconds."""
    installed(monkeypatch, FakeCuda(memory=1 << 30))
    limits = Peak(1, 1e3, 1e2, 1e2)
    monkeypatch.setattr("tinyresnext.ops.cuda.runtime.peak.measure", lambda machine: limits)
    monkeypatch.setattr("tinyresnext.network.spec.variant", lambda name: SPEC)
    for name, value in {"SIDE": 8, "BATCHES": (1, 2), "TRAINED": 2}.items():
        monkeypatch.setattr(program, name, value)
    medians = program.medians
    monkeypatch.setattr(program, "medians", lambda run, wait, repeats=1: medians(run, wait, 1))
    return program


def test_limits_are_eight_minutes_and_tests_end_before_theirs(program):
    assert sum(program.LIMITS.values()) <= 8 * 60
    assert program.LIMITS["tests"] > program.TESTED + 5
    files = " ".join(program.TESTS).split()
    assert all((BENCHMARKS.parent / f"tests/test_{name}.py").exists() for name in files)
    assert all(callable(getattr(program, name)) for name in program.LIMITS)


def test_what_a_part_has_found_stays_when_another_is_stopped(program, tmp_path, monkeypatch):
    """The parts are processes; one writes, is late, and a later one fails."""

    def limited(command, name, said):
        program.write(tmp_path, name, {"row": name, "device": "cuda:0"})
        said.write(f"this is {name}")
        said.flush()
        return {"speed": program.LATE, "step": 3}.get(name, 0)

    monkeypatch.setattr(program, "limited", limited)
    assert program.all_parts(tmp_path, ["machine", "speed", "step"]) == 1
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [found[name]["row"] for name in ("machine", "speed", "step")] == list(found["seconds"])
    assert found["failed"] == {"speed": "stopped after 65 s", "step": "exit code 3"}
    text = (tmp_path / "output.txt").read_text("utf-8")
    assert text == "".join(f"\n=== {name}\nthis is {name}" for name in found["seconds"])


def test_without_a_gpu_nothing_else_is_tried(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "limited", lambda command, name, said: 1)
    program.write(tmp_path, "machine", {"device": "that of another run"})
    assert program.all_parts(tmp_path, ["machine", "tests", "speed"]) == 1
    assert list(program.results(tmp_path)["seconds"]) == ["machine"]


@pytest.mark.parametrize("code", [1, -999])
def test_a_gpu_whose_limits_are_not_measured_is_a_gpu(program, tmp_path, monkeypatch, code: int):
    def limited(command, name, said):
        if name == "machine":
            program.write(tmp_path, name, {"device": "cuda:0"})
        return code * (name == "machine")

    monkeypatch.setattr(program, "limited", limited)
    assert program.all_parts(tmp_path, ["machine", "speed"]) == 1
    assert list(program.results(tmp_path)["seconds"]) == ["machine", "speed"]


def test_what_failed_in_another_run_is_forgotten_when_it_succeeds(program, tmp_path, monkeypatch):
    program.write(tmp_path, "failed", {"speed": "exit code 1", "step": "exit code 1"})
    monkeypatch.setattr(program, "limited", lambda command, name, said: 0)
    assert program.all_parts(tmp_path, ["speed"]) == 0
    assert program.results(tmp_path)["failed"] == {"step": "exit code 1"}
    assert program.all_parts(tmp_path, ["step"]) == 0
    assert program.results(tmp_path)["failed"] == {}


@pytest.mark.parametrize("interrupted", [True, False])
def test_pytest_ends_with_two_for_what_it_cannot_collect_too(
    program, tmp_path, monkeypatch, interrupted: bool, capsys
):
    found = {"ops": {"exit": 2, "interrupted": interrupted}, "gpu": {"exit": 0, "interrupted": 0}}
    monkeypatch.setattr(program, "tests", lambda folder: found)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path), "--only", "tests"])
    assert program.main() == (not interrupted)
    monkeypatch.setattr(program, "limited", lambda command, name, said: 0)
    program.all_parts(tmp_path, ["tests"])
    said = "the time was over before all tests had run: ops\n"
    assert (said in capsys.readouterr().out) == interrupted


def test_a_toolkit_is_named_where_the_compiler_is_no_package(program, tmp_path, monkeypatch):
    program_of = tmp_path / "bin" / "nvcc"
    (tmp_path / "nvvm").mkdir()
    monkeypatch.setattr(program.shutil, "which", lambda name: str(program_of))
    monkeypatch.setattr(program, "version", lambda package: None)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert program.toolkit() == {"CUDA_HOME": str(tmp_path.resolve())}
    monkeypatch.setattr(program, "version", lambda package: "13.0")
    assert program.toolkit() == {}


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="the system has no groups of processes")
@pytest.mark.parametrize("why", [subprocess.TimeoutExpired("late", 1), KeyboardInterrupt()])
def test_a_part_ends_with_all_that_it_has_started(program, tmp_path, monkeypatch, why):
    """A late one, else its tests would go on beside what is timed next; and when a user stops."""
    out = tmp_path / "out"
    code = """if True:
        import subprocess, sys, time
        sleeping = "import time; time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", sleeping])
        print(child.pid, "started", flush=True)
        time.sleep(600)"""

    class Late(subprocess.Popen):
        def wait(self, timeout=None):
            while timeout is not None and not out.read_text("utf-8").endswith("started\n"):
                time.sleep(0.01)
            if timeout is not None:
                raise why
            return super().wait()

    monkeypatch.setattr(program.subprocess, "Popen", Late)
    stopped = isinstance(why, KeyboardInterrupt)
    with (
        open(out, "w", encoding="utf-8") as said,
        pytest.raises(KeyboardInterrupt) if stopped else nullcontext(),
    ):
        assert program.limited([sys.executable, "-c", code], "machine", said) == program.LATE
    child = int(out.read_text("utf-8").split()[0])
    while alive(child):
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Return whether a process runs; what has ended and nobody has asked for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_table_of_what_is_expected_stands_at_the_end(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "limited", lambda command, name, said: 0)
    program.write(tmp_path, "peer", {"absent": "PyTorch is not there"})
    program.all_parts(tmp_path, ["peer"])
    said = capsys.readouterr().out
    assert "| what | expected | measured | ratio | met |" in said
    assert said.endswith("peer is absent: PyTorch is not there; pip install torch torchvision\n")


def test_a_layer_of_pytorch_is_also_timed_as_a_graph(program):
    calls, replays = [], []

    class Cuda:
        synchronize = staticmethod(lambda: None)
        CUDAGraph = staticmethod(lambda: SimpleNamespace(replay=lambda: replays.append(1)))
        graph = staticmethod(nullcontext)

    torch = SimpleNamespace(cuda=Cuda)
    assert program.as_a_graph(torch, lambda: calls.append(1), 7)["graph_ms"] > 0
    assert (len(calls), len(replays)) == (7, 8)

    def refused():
        raise RuntimeError("this is not captured")

    assert program.as_a_graph(torch, refused, 7) == {"no_graph": "this is not captured"}


def test_a_file_of_tests_says_what_it_had(program, tmp_path, monkeypatch):
    """With its failures by name, and without a GPU: nothing is skipped in silence.

    It finds the kernels that the part before it has compiled.
    """
    home = tmp_path / "cache" / "tinyresnext"
    monkeypatch.delenv("TINYRESNEXT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home.parent))
    monkeypatch.setenv("LOCALAPPDATA", str(home.parent))
    monkeypatch.setattr("tinyresnext.system.home.sys.platform", "linux")
    text = f"""
        def test_wrong():
            assert 1 == 2

        def test_home():
            assert os.environ["TINYRESNEXT_HOME"] == {str(home)!r}"""
    monkeypatch.setattr(program, "ROOT", written(tmp_path, text))
    found = program.tested("some", 1, 600)
    assert (found["exit"], found["interrupted"]) == (1, False)
    assert found["failed"] == [{"test": "tests/test_some.py::test_wrong", "why": "assert 1 == 2"}]
    assert found["summary"].startswith("1 failed, 1 passed in")


def written(folder: Path, tests: str) -> Path:
    """Write a file of tests for a GPU into a folder, and return the folder."""
    (folder / "tests").mkdir()
    text = f"import os\n\nimport pytest\n\npytestmark = pytest.mark.gpu\n{dedent(tests)}\n"
    (folder / "tests" / "test_some.py").write_text(text, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", "utf-8")
    return folder


def test_the_process_that_loses_the_gpu_ends(program, tmp_path, monkeypatch):
    """What the tests after that would say hides which one it was."""
    text = """
        def test_faulty():
            from tinyresnext.errors import DeviceError
            raise DeviceError("cuda:0: this process cannot use the GPU any more: start it again")

        def test_later(): ..."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, str(BENCHMARKS.parent)]))
    monkeypatch.setenv("PYTEST_PLUGINS", "conftest")
    monkeypatch.setattr(program, "ROOT", written(tmp_path, text))
    found = program.tested("some", 1, 600)
    assert found["exit"] == 1
    [failed] = found["failed"]
    assert failed["test"] == "tests/test_some.py::test_faulty"
    assert "test_faulty lost the GPU, and what comes after it did not run" in found["summary"]


def test_many_calls_are_made_before_they_are_waited_for(program):
    made = []
    program.medians(lambda: made.append("run"), lambda: made.append("wait"), 2, 3)
    assert made == ["run", "run", "run", "wait", *["run", "run", "run", "wait"] * 2]


@by_fibers
def test_the_driver_loads_what_is_compiled(program, monkeypatch):
    fake = FakeCuda()
    installed(monkeypatch, fake)
    import assembled

    some = [elementwise.relu_kernel(), elementwise.add_kernel(), elementwise.zero_kernel()]
    monkeypatch.setattr(assembled, "kernels", lambda: some)
    assert list(program.compiled(0, 2)) == ["relu", "zero"]
    assert fake.calls["cuModuleLoadDataEx"] == 3  # with the one that shows that it works


def test_packages_of_nvidia_are_loaded_for_onnx_runtime(program, tmp_path, monkeypatch):
    asked = []
    package = ModuleType("onnxruntime")
    package.preload_dlls = lambda: asked.append("cuDNN")
    package.get_available_providers = lambda: ["CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    assert "has no CUDA" in program.runtime(tmp_path)["absent"]
    assert asked == ["cuDNN"]


def test_peers_that_are_not_there_are_skipped(program, tmp_path, monkeypatch):
    for name in ("torch", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "not there" in program.peer(tmp_path)["absent"]
    assert "not installed" in program.runtime(tmp_path)["absent"]


def test_a_run_of_training(program, tmp_path, monkeypatch):
    """How it is asked for: `test_training` has what it computes."""
    from tinyresnext.training import train as module

    real, asked = inspect.signature(module.train), []

    def train(*args, **options):
        asked.append(real.bind(*args, **options).arguments)
        asked[-1]["out"].mkdir()
        (asked[-1]["out"] / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n', "utf-8")

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(program, "RUN", program.RUN | {"images": 100})
    assert program.run(tmp_path)["epochs"] == [{"epoch": 1}, {"epoch": 2}]
    [run] = asked
    assert (len(run["dataset"].names), len(run["validation"].names)) == (50, 10)
    assert (run["recipe"].epochs, run["device"]) == (4, "cuda")
    assert not run["out"].exists()


@pytest.mark.device
@by_fibers
def test_the_machine(small, tmp_path):
    found = small.machine(tmp_path)
    assert found["device"] == "cuda:0 (Fake GPU)"
    assert found["limits"]["gflops"] == 1e3
    json.dumps(found)


@pytest.mark.device
@by_fibers
def test_networks_and_their_layers_are_timed(small, tmp_path):
    found = small.speed(tmp_path)
    small.write(tmp_path, "speed", found)
    assert small.results(tmp_path)["speed"] == found
    kinds = [(row["precision"], row["batch"]) for row in found["rows"]]
    assert kinds == [(p, b) for p in ("float32", "float16") for b in (1, 2)]
    for row in found["rows"]:
        assert row["network"]["median_ms"] > 0
        assert row["layers"][0]["name"] == "conv1"
        assert all(layer["min_ms"] > 0 for layer in row["layers"])
        assert row["layers"][0]["gflops"] > 0


@pytest.mark.device
@by_fibers
def test_a_step_of_training_is_timed(small, tmp_path):
    found = small.step(tmp_path)
    assert found["images_per_second"] > 0
    assert found["losses"][-1] < found["losses"][0]
    assert small.results(tmp_path)["step"]["losses"] == found["losses"][:1]
