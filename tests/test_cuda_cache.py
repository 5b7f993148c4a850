"""Kernels of GPUs on disk, and GPUs on the command line and in models, by `fake_cuda`."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

import training_cases as small
from fake_cuda import FakeCuda, installed, nothing_opened
from on_device import by_fibers

from tinyresnext.cli import main as cli
from tinyresnext.errors import DeviceError, OutOfMemoryError
from tinyresnext.inference.files import save
from tinyresnext.inference.model import Model
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec, variants
from tinyresnext.network.step import Step
from tinyresnext.ops import backend, reference
from tinyresnext.ops.contract import Peak
from tinyresnext.ops.cpu.runtime import cache as rules
from tinyresnext.ops.cuda.elementwise import add_kernel, relu_kernel
from tinyresnext.ops.cuda.runtime import cache
from tinyresnext.ops.cuda.runtime.kernel import Kernel

SPEC = Spec((1,), 2, 4, 5, stem="cifar", expansion=1)


# --- on disk --------------------------------------------------------------------------------------


@pytest.fixture
def compiled(home, monkeypatch):
    """Return the kernels that were compiled, each with the capability; the cache is empty."""
    made: list[tuple[str, tuple[int, int]]] = []

    def ptx(self, capability, lines=False):
        made.append((self.name, capability))
        return f"{self.name} for {capability}, compilation {len(made)}"

    monkeypatch.setattr(Kernel, "ptx", ptx)
    return made


def test_a_kernel_is_compiled_once_for_each_capability(compiled):
    texts = [cache.ptx(relu_kernel(), (8, 0)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert cache.ptx(relu_kernel(), (9, 0)) != texts[0]
    assert cache.ptx(add_kernel(), (8, 0)) != texts[0]
    assert compiled == [("relu", (8, 0)), ("relu", (9, 0)), ("add", (8, 0))]


def test_it_is_where_the_kernels_of_the_processor_are(compiled, home, capsys):
    cache.ptx(relu_kernel(), (8, 0))
    [entry] = cache.kept()
    assert (entry.files, entry.current) == (1, True)
    [file] = entry.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    assert cli.main(["cache", "info"]) == 0
    assert f"{entry.folder}  1 kernels" in capsys.readouterr().out
    assert cli.main(["cache", "clear"]) == 0
    assert cache.kept() == []
    cache.ptx(relu_kernel(), (8, 0))
    assert len(compiled) == 2


@pytest.mark.parametrize(
    "change", ["a source", "a package", "CUDA_HOME", "a toolkit", "a toolkit's file"]
)
def test_another_compiler_or_another_source_compiles_again(compiled, monkeypatch, tmp_path, change):
    for version in ("12.9", "13.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "libnvvm.so").write_text("of any version")
        os.utime(tmp_path / version / "libnvvm.so", (1, 1))
    link = tmp_path / "cuda"
    link.symlink_to("12.9", target_is_directory=True)
    paths = {"nvvm": SimpleNamespace(info=str(link / "libnvvm.so"))}
    monkeypatch.setattr(cache.cuda_paths, "get_cuda_paths", lambda: paths)
    now = cache.compiler.__wrapped__
    seen = now()
    assert now() == seen
    monkeypatch.setattr(cache, "compiler", lambda: seen)
    if change == "a toolkit":
        link.unlink()
        link.symlink_to("13.0", target_is_directory=True)
    elif change == "a toolkit's file":
        os.utime(link / "libnvvm.so", (2, 2))
    elif change == "a package":
        monkeypatch.setattr(cache.metadata, "version", lambda name: "0.0")
    elif change == "CUDA_HOME":
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    else:
        (tmp_path / "a.py").write_text("1")
        monkeypatch.setattr(cache, "SOURCES", (tmp_path, "*.py"))
        monkeypatch.setattr(cache, "IMPORTED", rules.sources(*cache.SOURCES))
    assert now() != seen
    cache.ptx(relu_kernel(), (8, 0))
    monkeypatch.setattr(cache, "compiler", now)
    cache.ptx(relu_kernel(), (8, 0))
    assert len(compiled) == 2


def test_what_is_compiled_after_a_source_changed_is_not_kept(compiled, monkeypatch, tmp_path):
    assert rules.sources(tmp_path, "*.py") is None  # a zipped application has no files
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(cache, "SOURCES", (tmp_path, "*.py"))
    monkeypatch.setattr(cache, "IMPORTED", rules.sources(*cache.SOURCES))
    cache.ptx(relu_kernel(), (8, 0))
    (tmp_path / "a.py").write_text("2")
    cache.ptx(add_kernel(), (8, 0))
    [entry] = cache.kept()
    assert [path.name.partition("-")[0] for path in entry.folder.iterdir()] == ["cuda_relu"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "of another kernel"])
def test_a_damaged_file_is_not_used(compiled, damage):
    whole = cache.ptx(relu_kernel(), (8, 0))
    [entry] = cache.kept()
    [file] = entry.folder.iterdir()
    content = file.read_bytes()
    if damage == "of another kernel":
        cache.ptx(add_kernel(), (8, 0))
        [other] = [path for path in entry.folder.iterdir() if path != file]
        other.replace(file)
    else:
        cut = {"cut": content[:-3], "changed": content[:-1] + b"#", "empty": b""}
        file.write_bytes(cut[damage])
    again = cache.ptx(relu_kernel(), (8, 0))
    assert again != whole
    assert compiled[-1] == ("relu", (8, 0))
    assert cache.ptx(relu_kernel(), (8, 0)) == again


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps other users out itself")
def test_a_folder_that_others_can_write_to_is_not_used(compiled):
    cache.ptx(relu_kernel(), (8, 0))
    rules.folder().chmod(0o777)
    cache.ptx(relu_kernel(), (8, 0))
    assert len(compiled) == 2


def test_a_word_when_compiling_takes_long(compiled):
    import time

    told = []
    with cache.when_compiling(told.append, after=0.01), cache.compiling("gemm"):
        time.sleep(0.5)
    assert told[0].name == "gemm"
    assert told[-1] is None
    with cache.compiling("gemm"):
        time.sleep(0.05)
    assert told[-1] is None


# --- the command line and models ------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Return the driver of one GPU, which the backend finds."""
    made = FakeCuda()
    installed(monkeypatch, made)
    return made


def a_model(ops) -> Model:
    rng = np.random.default_rng(0)
    params = {
        name: np.abs(rng.standard_normal(shape)).astype(np.float32) / max(shape)
        for name, shape in parameters(SPEC).items()
    }
    return Model(SPEC, params, small.PREPROCESS, tuple("abcde"), {}, ops)


@pytest.mark.device
@by_fibers
def test_auto_says_what_it_chose(fake, tmp_path, capsys, monkeypatch):
    save(a_model(reference), tmp_path / "model.h5")
    image = tmp_path / "cat.png"
    small.pictures(1)
    from PIL import Image

    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(image)
    command = ["classify", str(image), "--model", str(tmp_path / "model.h5"), "--device"]
    outputs = {}
    for device in ("reference", "cuda", "auto"):
        assert cli.main([*command, device]) == 0
        outputs[device] = capsys.readouterr()
    assert outputs["cuda"].err == ""
    assert outputs["auto"].err == (
        "tinyresnext: --device auto is cuda:0: cuda:0 (Fake GPU) can be used\n"
    )
    assert outputs["auto"].out == outputs["cuda"].out == outputs["reference"].out
    fake.fail["cuInit"] = 100
    nothing_opened(monkeypatch)
    assert cli.main([*command, "cuda"]) == 4
    assert "NVIDIA's driver finds no GPU" in capsys.readouterr().err
    assert cli.main([*command, "auto"]) == 0
    told = capsys.readouterr().err
    assert told.startswith(
        "tinyresnext: --device auto is cpu: the GPU cannot be used, since NVIDIA"
    )


@pytest.mark.device
@by_fibers
def test_every_command_computes_on_the_gpu(fake, run, tmp_path, monkeypatch):
    """None of them on the processor in its place; `test_auto_says_what_it_chose` has `classify`."""
    limits = Peak(1, 1e3, 1e2, 1e2)
    monkeypatch.setattr("tinyresnext.ops.cuda.runtime.peak.measure", lambda machine: limits)
    monkeypatch.setattr(variants, "VARIANTS", {"tiny": SPEC})
    small.write_folder(tmp_path / "data", 2)
    network = ["--blocks", "1", "--cardinality", "2", "--width", "4", "--widen", "1"]
    network += ["--stem", "cifar", "--size", "8"]
    steps = ["--batch", "4", "--epochs", "1", "--padding", "1"]
    commands = [
        ["train", "data", *network, *steps, "--lr", "0.1", "--out", "run"],
        ["evaluate", "data", "--model", "run/model.h5"],
        ["features", "data/test", "--model", "run/model.h5", "-o", "features.h5"],
        ["verify", "run/model.h5", "--reference", "r.npz"],
        ["finetune", "data", "--init", "run/model.h5", *steps, "--out", "tuned"],
        ["bench", "--model", "tiny", "--batch", "1", "--size", "8", "--repeats", "1"],
    ]
    for command in commands:
        if command[0] == "verify":
            assert run(*command[:2], "--make-reference", "r.npz")[0] == 0
        before = fake.calls["cuLaunchKernel"]
        code, _, err = run(*command, "--device", "cuda")
        assert code == 0, (command, err)
        assert fake.calls["cuLaunchKernel"] > before, command


@pytest.mark.device
@by_fibers
def test_a_model_on_a_gpu_is_copied_and_pickled(fake, monkeypatch):
    ops = backend("cuda")
    model, x = a_model(ops), small.pictures(2).pixels.astype(np.float32)
    want = model(x)
    assert np.allclose(want, a_model(reference)(x), rtol=1e-4, atol=1e-5)
    sent = pickle.dumps(model)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(sent)):
        assert other.ops is ops
        assert np.array_equal(other(x), want)
    fake.fail["cuInit"] = 100
    nothing_opened(monkeypatch)
    with pytest.raises(DeviceError, match="finds no GPU"):
        pickle.loads(sent)


@pytest.mark.device
@by_fibers
def test_two_models_in_three_threads(fake):
    """Two threads share a model, and so its plan; each has its own results."""
    ops = backend("cuda")
    nets = a_model(ops), a_model(ops)
    inputs = [small.pictures(2, seed=seed).pixels.astype(np.float32) for seed in range(3)]
    want, found = [nets[0](x) for x in inputs], {}

    def work(which: int, net: Model) -> None:
        for i, x in enumerate(inputs * 2):
            found[which, i] = net(x)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((*nets, nets[0]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 * 2 * len(inputs)
    assert all(np.array_equal(y, want[i % len(want)]) for (_, i), y in found.items())


@pytest.mark.device
@by_fibers
def test_a_mini_batch_that_does_not_fit_goes_in_parts(fake):
    fake.memory = 14 << 20  # of which pinned memory takes none
    model, x = a_model(backend("cuda")), np.zeros((64, 32, 32, 3), np.float32)
    plan = model.plan(x.shape)
    assert plan.at_once in (2, 4, 8, 16, 32)
    assert np.array_equal(model(x[:1])[0], model(x)[-1])
    fake.memory = fake.memory - fake.free() + (100 << 10)
    with pytest.raises(OutOfMemoryError, match=r"cuda:0 \(Fake GPU\) has .* MiB of memory left"):
        model.plan((1, 64, 64, 3))
    assert model(x[:1]).shape == (1, 5)  # what was there goes on


@pytest.mark.device
@by_fibers
def test_a_step_of_training_that_does_not_fit_names_the_mini_batch_that_does(fake):
    fake.memory = 24 << 20
    ops = backend("cuda")
    params = {name: ops.upload(value) for name, value in a_model(reference).params.items()}
    with pytest.raises(OutOfMemoryError, match=r"\d+ at once fit") as caught:
        Step(params, SPEC, (64, 32, 32, 3), ops)
    fitting = int(str(caught.value).partition(" at once fit")[0].rpartition(" ")[2])
    assert 4 < fitting < 64
    del caught
    step = Step(params, SPEC, (fitting, 32, 32, 3), ops)
    del step
    fake.memory = fake.memory - ops.machine.free_bytes() + (4 << 20)
    with pytest.raises(OutOfMemoryError, match="not even one image fits"):
        Step(params, SPEC, (64, 64, 64, 3), ops)


# --- what is not imported -------------------------------------------------------------------------


def test_the_processor_needs_nothing_of_gpus():
    code = (
        "import sys, numpy; sys.modules['numba.cuda'] = None; import tinyresnext as tr; "
        "from tinyresnext.ops import automatic, backend, cpu; ops = backend('cpu'); "
        "ops.relu(ops.upload(numpy.ones(3))); "
        "print([name for name in sys.modules if 'tinyresnext.ops.cuda' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
