"""What a real GPU computes. ``python -m pytest -m gpu`` runs this, and every op case on the GPU.

New memory holds what is not a number. Bounds are those of `test_cuda_networks`: a few times the
reference's own error in float32.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

import training_cases as small
from test_cuda_networks import TIMES, apart, images, network, wide

from tinyresnext.cli import main as cli
from tinyresnext.errors import OutOfMemoryError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.model import Model
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.resnext import forward, parameters
from tinyresnext.network.spec import Spec, variant
from tinyresnext.network.step import Step
from tinyresnext.ops import reference
from tinyresnext.ops.cuda.runtime.library import NAMES
from tinyresnext.training import run
from tinyresnext.training.train import train

pytestmark = pytest.mark.gpu


def model(name: str, ops) -> tuple[Model, tuple[int, ...]]:
    spec, params, shape = network(name)
    labels = tuple(map(str, range(spec.classes)))
    return Model(spec, params, Preprocess(), labels, {}, ops), shape


def bits(*arrays: np.ndarray) -> bytes:
    return b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


# --- whole networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnext14", "bundled"])
@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_inference(gpu, name, count):
    made, (_, *rest) = model(name, gpu)
    x = images((count, *rest))
    want = forward(wide(made.params), made.spec, x.astype(np.float64), reference)
    own = apart(forward(dict(made.params), made.spec, x, reference), want)
    y = made(x)
    assert apart(y, want) <= TIMES * own
    assert apart(made.trace(x)["fc"], want) <= TIMES * own
    for _ in range(3):  # the graph is started again, on the same and on other input
        made(-x)
        assert bits(made(x)) == bits(y)
    plan = made.plan(x.shape)
    assert all(seconds > 0 for seconds in plan.profile(x, 2).seconds)  # one by one, no graph
    assert bits(plan(x)) == bits(y)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext101_32x8d"])
@pytest.mark.parametrize("shape", [(1, 224, 224, 3), (8, 160, 160, 3)], ids=str)
def test_published_architectures_are_the_processors(gpu, name, shape):
    """As far from the processor's as rounding makes them: both are float32."""
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.ops import cpu

    spec = variant(name)
    params, x = random_parameters(spec), images(shape)
    found = [Plan(program(params, spec, ops), shape, ops)(x) for ops in (gpu, cpu)]
    assert np.isfinite(found[0]).all()
    assert apart(*found) <= 2e-5


@pytest.mark.parametrize("name", ["resnext14", "bundled"])
@pytest.mark.parametrize("count", [2, 32])
def test_a_step_of_training(gpu, name, count):
    spec, params, (_, *rest) = network(name)
    shape = (count, *rest)
    x, labels = images(shape), np.arange(count) % spec.classes
    exact = Step(wide(params), spec, shape, reference, smoothing=0.1)
    plain = Step(params, spec, shape, reference, smoothing=0.1)
    loss, logits = exact(x.astype(np.float64), labels)
    _, roughly = plain(x, labels)
    there = {key: gpu.upload(value) for key, value in params.items()}
    step = Step(there, spec, shape, gpu, smoothing=0.1)
    seen = set()
    for _ in range(3):
        own_loss, own_logits = step(x, labels)
        gradients = {key: gpu.download(value) for key, value in step.gradients.items()}
        seen.add(bits(own_logits, *gradients.values()))
    assert len(seen) == 1, "sums are taken in the same order every time"
    assert abs(own_loss - loss) <= 1e-5 * abs(loss)
    assert apart(own_logits, logits) <= TIMES * apart(roughly, logits)
    errors = [apart(gradients[key], want) for key, want in exact.gradients.items()]
    own = [apart(plain.gradients[key], want) for key, want in exact.gradients.items()]
    assert max(errors) <= TIMES * max(own)
    assert np.median(errors) <= TIMES * np.median(own)


# --- training -------------------------------------------------------------------------------------


def trained(folder, device: str, **more) -> np.ndarray:
    """Return all weights after a run of the small network."""
    options = {"validation": small.pictures(20, seed=1), "preprocess": small.PREPROCESS} | more
    made = train(small.SPEC, small.pictures(), small.RECIPE, folder, device=device, **options)
    return np.concatenate([made.params[name].reshape(-1) for name in made.params])


@pytest.fixture(scope="module")
def both(tmp_path_factory, gpu):
    """Return the weights of the run on the processor, and how far another order of sums leads."""
    folder = tmp_path_factory.mktemp("runs")
    on_cpu = trained(folder / "cpu", "cpu")
    return on_cpu, apart(trained(folder / "reference", "reference"), on_cpu)


def test_a_run_is_the_processors_but_for_rounding(tmp_path, both):
    """The reference rounds in another order than the processor, too: so far a run may drift."""
    want, drift = both
    first, second = (trained(tmp_path / name, "cuda") for name in "ab")
    assert bits(first) == bits(second)
    assert apart(first, want) <= 8 * drift


@pytest.mark.parametrize(("begun", "ended"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_stopped_run_goes_on_here_and_elsewhere(tmp_path, both, monkeypatch, begun, ended):
    want, drift = both
    real, left = run.Run.step, [6]

    def stopping(self, x, labels):
        left[0] -= 1
        real(self, x, labels)
        if left[0] == 0:
            self.stop()

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "run", begun)
    found = trained(tmp_path / "run", ended, resume=True)
    assert apart(found, want) <= 8 * drift
    if begun == ended:
        assert bits(found) == bits(trained(tmp_path / "whole", begun))


# --- memory, threads, processes -------------------------------------------------------------------


def test_out_of_memory_and_then_everything_goes_on(gpu):
    free = gpu.machine.free_bytes()
    with pytest.raises(OutOfMemoryError, match="MiB more are needed") as caught:
        gpu.empty((free // 2,))
    assert caught.value.wanted == free // 2 * 4
    del caught
    x = images((3, 5))
    assert bits(gpu.download(gpu.relu(gpu.upload(x)))) == bits(np.maximum(x, 0))
    assert gpu.machine.free_bytes() >= free - (64 << 20)


def test_a_mini_batch_that_does_not_fit_is_named(gpu):
    spec = variant("resnext101_32x8d")
    params = {name: gpu.empty(shape) for name, shape in parameters(spec).items()}
    with pytest.raises(OutOfMemoryError, match=r"\d+ at once fit: give a smaller"):
        Step(params, spec, (4096, 224, 224, 3), gpu)
    gpu.empty((1,))


def test_a_plan_that_does_not_fit_goes_in_parts(gpu):
    spec = Spec((1, 1, 1, 1), 32, 4, 10)
    made = program(network("resnext14")[1], spec, gpu)
    gc.collect()  # what tests before this one left
    held = gpu.empty(((gpu.machine.free_bytes() - (3 << 29)) // 4,))
    plan, x = Plan(made, (256, 224, 224, 3), gpu), images((256, 224, 224, 3))
    some, y = plan.at_once, plan(x)
    assert some < 256
    del plan  # both together may not fit
    few = Plan(made, (some, 224, 224, 3), gpu)
    assert bits(y[-some:]) == bits(few(x[-some:]))
    del held


def test_an_array_of_four_gibibytes(gpu):
    """Indices are 32 bits wide: so far they reach."""
    count = (1 << 30) + 3
    if gpu.machine.free_bytes() < 20 << 30:
        pytest.skip("the GPU has too little free memory for it")
    x, out, end = gpu.empty((count,)), gpu.empty((count,)), images((1000,))
    for start in (0, count - 1000):
        gpu.upload(end, out=gpu.view(x, (1000,), start))
    gpu.relu(x, out=out)
    for start in (0, count - 1000):
        assert bits(gpu.download(gpu.view(out, (1000,), start))) == bits(np.maximum(end, 0))


def test_two_models_in_two_threads(gpu):
    made, (_, *rest) = model("resnext14", gpu)
    other, _ = model("resnext14", gpu)
    inputs = [images((4, *rest), seed) for seed in range(8)]
    want = [made(x) for x in inputs]
    found: dict[tuple[int, int], np.ndarray] = {}

    def work(which: int, net: Model) -> None:
        for i, x in enumerate(inputs * 3):
            found[which, i] = net(x)

    nets = (made, other, made)  # two of them have the same plan
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(nets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 * 3 * len(inputs)
    assert all(bits(y) == bits(want[i % len(want)]) for (_, i), y in found.items())


def test_two_plans_at_once(gpu):
    """One thread starts both before it waits for either: they have streams of their own."""
    pairs = [model(name, gpu) for name in ("resnext14", "bundled")]
    inputs = [images((4, *shape[1:]), seed) for seed, (_, shape) in enumerate(pairs)]
    plans = [made.plan(x.shape) for (made, _), x in zip(pairs, inputs, strict=True)]
    want = [bits(plan(x)) for plan, x in zip(plans, inputs, strict=True)]
    for turn in range(20):
        for plan, x in zip(plans, inputs, strict=True):
            plan._load(x if turn % 2 else -x, 0)
            plan._load(x, 0)
        for plan in plans * (1 + turn % 3):
            plan._run()
        assert [bits(gpu.download(plan._y)) for plan in plans] == want


def test_the_context_of_others_is_current_again(gpu):
    def context() -> int | None:
        found = ctypes.c_void_p()
        assert ctypes.CDLL(NAMES[sys.platform]).cuCtxGetCurrent(ctypes.byref(found)) == 0
        return found.value

    before = context()
    gpu.download(gpu.relu(gpu.upload(images((3, 5)))))
    assert context() == before


def test_threads_that_have_ended_leave_no_memory_behind(gpu):
    """Each had 8 MiB of pinned memory, which a process may have as much of as it can pay for."""
    x = gpu.upload(images((3, 5)))
    run = gpu.chain([gpu.bind("relu", x, out=x)])
    for _ in range(20):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    gc.collect()
    assert len(gpu.machine._dropped) < 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_after_a_fork(gpu):
    code = """if True:
        import os, sys
        from tinyresnext.errors import DeviceError
        from tinyresnext.ops import backend
        ops = backend("cuda")
        x = ops.upload([1.0, -1.0])
        child = os.fork()
        if child == 0:
            for use in (lambda: ops.relu(x), lambda: backend("cuda"), lambda: backend("auto")):
                try:
                    use()
                except DeviceError as error:
                    assert "forked" in str(error)
                else:
                    os._exit(1)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(ops.download(ops.relu(x)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[1.", "0.]"]


def test_a_second_process_compiles_nothing(gpu, home):
    code = """if True:
        from tinyresnext.ops.cuda.runtime.kernel import Kernel
        real, names = Kernel.ptx, []
        def ptx(self, *arguments, **settings):
            names.append(self.name)
            return real(self, *arguments, **settings)
        Kernel.ptx = ptx
        from tinyresnext.ops import backend
        ops = backend("cuda")
        ops.relu(ops.upload([1.0]))
        print(len(names))"""
    counts = [
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert counts == [2, 0]


# --- the command line -----------------------------------------------------------------------------


def test_commands(gpu, capsys):
    cat = os.path.join(os.path.dirname(__file__), "data", "chelsea.jpg")
    outputs = {}
    for device in ("cpu", "cuda", "cuda:0", "auto"):
        assert cli.main(["classify", cat, "--device", device]) == 0
        outputs[device] = capsys.readouterr()
    assert outputs["auto"].err.startswith("tinyresnext: --device auto is cuda:0: cuda:0 (")
    assert len({found.out for found in outputs.values()}) == 1
    assert cli.main(["classify", cat, "--device", "cuda:99"]) == 4
    assert "no device cuda:99: this process sees cuda:0" in capsys.readouterr().err


def test_limits_are_plausible(gpu):
    [found] = gpu.peak([1])
    assert 1e3 < found.gflops < 1e6
    assert 50 < found.read < 2e4
    assert 50 < found.copy < 2e4
