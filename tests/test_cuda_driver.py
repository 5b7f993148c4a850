"""The GPU through NVIDIA's driver: what it is asked for, what it refuses, and what users read then.

The driver is one in Python (`fake_cuda`), whose streams are as late as they may be. What a real
GPU does with all this is in `test_gpu`.
"""

from __future__ import annotations

import gc
import pickle
import re
import threading
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from fake_cuda import FakeCuda, installed, nothing_opened
from on_device import by_fibers

from tinyresnext.errors import DeviceError, OutOfMemoryError
from tinyresnext.network.buffers import too_large
from tinyresnext.network.spec import Spec, parameters
from tinyresnext.network.step import Step
from tinyresnext.ops import automatic, backend, cpu
from tinyresnext.ops.cuda.runtime import arrays, cache, call, gpu, library, peak, staging
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.training.record.begin import computes

pytestmark = by_fibers


@pytest.fixture
def fake(monkeypatch):
    """Return the driver of one GPU, which the backend finds."""
    made = FakeCuda()
    installed(monkeypatch, made)
    return made


def some(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# --- computing ------------------------------------------------------------------------------------


def test_values_go_there_and_come_back(fake, monkeypatch):
    """Also in more parts than there are buffers, and of every size around a part's."""
    monkeypatch.setattr(staging, "SIZE", 1024)
    ops = backend("cuda")
    for size in (0, 1, 255, 256, 257, 511, 512, 513, 5000):
        x = some(size)
        there = ops.upload(x)
        assert np.array_equal(ops.download(there), x)
        assert ops.upload(2 * x, out=there) is there
        assert np.array_equal(ops.download(there), 2 * x)
        begun = size // 3
        part = ops.view(there, (size - begun,), begun)
        assert np.array_equal(ops.download(part), 2 * x[begun:])


def test_types_and_shapes(fake):
    ops = backend("cuda")
    assert ops.upload(np.ones(3)).dtype == np.float32
    assert ops.upload(np.arange(3)).dtype == np.int64
    assert ops.empty((2, 3)).shape == (2, 3)
    assert float(ops.download(ops.upload(np.float32(2)))) == 2
    for whole in (np.uint8, np.int64, bool):  # uint16 alone is bfloat16 itself
        there = ops.upload(np.arange(2).astype(whole), out=ops.empty((2,), "bfloat16"))
        assert ops.download(there).tolist() == [0, 1]
    x = ops.empty((2, 3))
    for touch in (np.asarray, np.exp, lambda a: a + np.ones(3)):
        with pytest.raises(TypeError):
            touch(x)
    with pytest.raises(ValueError, match="expected"):
        ops.upload(some(3, 2), out=x)
    with pytest.raises(TypeError, match="do not become"):
        ops.upload(np.ones((2, 3), np.complex64), out=x)
    with pytest.raises(ValueError, match="is not inside"):
        ops.view(ops.empty((5,)), (2, 3))
    with pytest.raises(TypeError, match=r"relu: x is a ndarray.*use upload\(x\)"):
        ops.relu(some(3))
    with pytest.raises(TypeError, match="relu: x is int64"):
        ops.relu(ops.upload(np.arange(3)))


def test_a_kernel_is_loaded_once_and_computes(fake):
    ops, x = backend("cuda"), some(3, 5)
    for _ in range(2):
        assert np.array_equal(ops.download(ops.relu(ops.upload(x))), np.maximum(x, 0))
    assert fake.calls["cuModuleLoadDataEx"] == 2  # with the one that was loaded to see if it can be
    assert backend("cuda:0") is ops is backend("cuda")


def test_a_chain_is_one_graph_that_is_started_again(fake):
    ops, x = backend("cuda"), some(4, 4)
    given, out = ops.upload(x), ops.empty((4, 4))
    calls = [ops.bind("relu", given, out=out), ops.bind("add", out, given, out=out)]
    run = ops.chain(calls)
    assert fake.calls["cuLaunchKernel"] == 2
    for factor in (1, -2):
        ops.upload(factor * x, out=given)
        run()
        assert np.array_equal(ops.download(out), np.maximum(factor * x, 0) + factor * x)
    assert fake.calls["cuLaunchKernel"] == 2
    assert fake.calls["cuGraphLaunch"] == 2


@pytest.mark.parametrize(("enough", "times"), [(0, 1), (1e9, 20)])
def test_a_short_call_is_timed_in_a_graph_of_many(fake, monkeypatch, enough: float, times: int):
    monkeypatch.setattr("tinyresnext.ops.cuda.LONG", enough)
    ops = backend("cuda")
    one, out = ops.upload(np.ones(3)), ops.upload(np.zeros(3))
    run, found = ops.repeated(ops.bind("add", out, one, out=out))
    ops.upload(np.zeros(3), out=out)
    started = fake.calls["cuLaunchKernel"] + fake.calls["cuGraphLaunch"]
    run()
    assert found == times
    assert ops.download(out).tolist() == [times] * 3
    assert fake.calls["cuLaunchKernel"] + fake.calls["cuGraphLaunch"] == started + 1


@pytest.mark.device
def test_limits_are_those_of_launches_that_are_started_together(fake, monkeypatch):
    """What a start and a wait cost is divided among them."""
    sizes = {"VALUES": 1 << 14, "ROUNDS": 16, "RESIDENT": 256, "READERS": 1, "LAUNCHES": 3}
    for name, value in {**sizes, "REPEATS": 1, "WARM": 0.0}.items():
        monkeypatch.setattr(peak, name, value)
    found = peak.measure(backend("cuda").machine)
    assert fake.calls["cuGraphLaunch"] == 3
    # Without a graph: those that fill the array with zeros. The others are recorded.
    assert fake.calls["cuLaunchKernel"] == 1 + 3 * 3
    assert min(found.gflops, found.read, found.copy) > 0


@pytest.mark.device
def test_every_value_is_read_once_when_the_limit_is_measured(emulated):
    machine, x, readers = emulated.backend.machine, np.arange(5 * peak.SIDE_BY_SIDE) % 7, 2
    there = arrays.upload(machine, x.astype(np.float32))
    out = arrays.empty(machine, (readers * peak.THREADS,))
    given = (there, out, x.size, readers * peak.SIDE_BY_SIDE)
    machine.launch(Launch(peak.read_kernel(), readers, given))
    assert arrays.download(out).sum() == x.sum()


@pytest.mark.device
def test_multiply_adds_are_as_many_as_are_counted_when_the_limit_is_measured(emulated):
    """Each sum halves its distance from 2 in each round."""
    machine, rounds = emulated.backend.machine, 2 * peak.UNROLLED
    out = arrays.empty(machine, (2 * peak.THREADS,))
    machine.launch(Launch(peak.multiply_kernel(), 2, (out, 0.5, 1.0, rounds)))
    sums = np.arange(peak.CHAINS, dtype=np.float32)
    for _ in range(rounds):
        sums = sums * np.float32(0.5) + np.float32(1)
    assert (arrays.download(out) == sums.sum()).all()


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("cuStreamBeginCapture_v2", 801),
        ("cuLaunchKernel", 900),
        ("cuStreamEndCapture", 901),
        ("cuGraphInstantiateWithFlags", 2),
    ],
)
def test_where_no_graph_can_be_recorded_launches_are_made_one_by_one(fake, function, code):
    ops, x = backend("cuda"), some(4, 4)
    fake.fail[function] = code
    given, out = ops.upload(x), ops.empty((4, 4))
    run = ops.chain([ops.bind("relu", given, out=out)])
    fake.fail.clear()
    tried = fake.calls["cuLaunchKernel"]
    for _ in range(2):
        run()
    assert np.array_equal(ops.download(out), np.maximum(x, 0))
    assert fake.calls["cuLaunchKernel"] == tried + 2
    assert fake.calls["cuGraphLaunch"] == 0
    assert not fake.graphs


@pytest.mark.parametrize("more", [{}, {"cuStreamEndCapture": 901}])
def test_a_launch_that_fails_while_it_is_recorded_is_said(fake, more):
    """The end of the recording then fails, too, and knows no cause."""
    ops = backend("cuda")
    x = ops.upload(some(4))
    call = ops.bind("relu", x, out=x)
    fake.fail.update({"cuLaunchKernel": 2, **more})
    with pytest.raises(OutOfMemoryError, match="give a smaller mini-batch"):
        ops.chain([call])
    fake.fail.clear()
    assert not fake.graphs
    ops.chain([call])()


def test_what_is_recorded_keeps_its_arrays_and_gives_them_back(fake):
    ops = backend("cuda")
    before = fake.free()
    run = ops.chain([ops.bind("relu", ops.upload(some(4)), out=ops.upload(some(4)))])
    gc.collect()
    ops.empty((1,))
    run()
    assert fake.free() < before - 16
    del run
    gc.collect()
    ops.machine.free_bytes()
    assert fake.calls["cuGraphExecDestroy"] == 1
    ops.machine.free_bytes()
    assert fake.free() == before


class Two:
    """Two plans: relu into ``outs[0]``, and twice that or twice an own input into ``outs[1]``."""

    def __init__(self, apart: bool) -> None:
        self.ops = ops = backend("cuda")
        self.given = [ops.upload(some(64)) for _ in range(2)]
        self.outs = [ops.empty((64,)) for _ in range(2)]
        source = self.given[1] if apart else self.outs[0]
        self.first = ops.chain([ops.bind("relu", self.given[0], out=self.outs[0])])
        self.second = ops.chain([ops.bind("add", source, source, out=self.outs[1])])

    def found(self) -> list[np.ndarray]:
        return [self.ops.download(out) for out in self.outs[::-1]]


def waiting(fake: FakeCuda) -> int:
    """Return how many streams have something to do."""
    return sum(map(bool, fake.streams.values()))


@pytest.mark.parametrize("graphs", [True, False])
def test_two_plans_of_a_thread_run_at_the_same_time(fake, graphs: bool):
    """They have no memory in common: the result of one is there, and the other has not begun."""
    if not graphs:
        fake.fail["cuStreamBeginCapture_v2"] = 801
    two, x = Two(apart=True), some(64)
    started = waiting(fake)
    two.second()
    two.first()
    assert waiting(fake) == started + 3  # of both plans, and of the thread
    assert np.array_equal(two.ops.download(two.outs[0]), np.maximum(x, 0))
    assert waiting(fake) == started + 1
    assert np.array_equal(two.ops.download(two.outs[1]), x + x)
    assert waiting(fake) == started


@pytest.mark.parametrize("graphs", [True, False])
def test_a_plan_waits_for_a_plan_with_the_same_memory(fake, graphs: bool):
    if not graphs:
        fake.fail["cuStreamBeginCapture_v2"] = 801
    two, x = Two(apart=False), some(64)
    for factor in (1, -1):
        two.ops.upload(factor * x, out=two.given[0])
        two.first()
        two.second()
        assert np.array_equal(two.found()[0], 2 * np.maximum(factor * x, 0))


def test_what_a_thread_does_waits_for_its_plans_and_they_for_it(fake):
    two, x = Two(apart=True), some(64)
    ops, (given, _), (out, _) = two.ops, two.given, two.outs
    ops.bind("add", given, given, out=given)()  # before the plan reads it
    two.first()
    ops.upload(-x, out=given)  # when the plan has read it
    assert np.array_equal(ops.download(out), 2 * np.maximum(x, 0))
    two.first()
    assert np.array_equal(ops.download(ops.add(out, out)), 2 * np.maximum(-x, 0))
    two.first()
    ops.upload(7 * x, out=out)  # when it has written it
    assert np.array_equal(ops.download(out), 7 * x)
    two.second()
    ops.wait()
    assert not waiting(fake)


def test_a_plan_that_is_gone_is_waited_for(fake):
    ops, x = backend("cuda"), some(64)
    given, out = ops.upload(x), ops.empty((64,))
    ops.chain([ops.bind("relu", given, out=out)])()
    gc.collect()
    assert np.array_equal(ops.download(out), np.maximum(x, 0))
    streams = len(fake.streams)
    ops.machine.free_bytes()
    assert len(fake.streams) == streams - 1


def test_nothing_is_freed_while_a_graph_is_recorded(fake, monkeypatch):
    """Python may collect garbage at any moment."""
    ops = backend("cuda")
    given, out = ops.upload(some(4)), ops.empty((4,))
    call = ops.bind("relu", given, out=out)
    left, real = [ops.empty((8,))], type(fake)._LaunchKernel

    def launch(self, *arguments):
        left.clear()
        return real(self, *arguments)

    monkeypatch.setattr(type(fake), "_LaunchKernel", launch)
    freed = fake.calls["cuMemFree_v2"]
    ops.chain([call])()
    assert fake.calls["cuMemFree_v2"] == freed
    ops.machine.free_bytes()
    assert fake.calls["cuMemFree_v2"] == freed + 1


def test_each_thread_has_a_stream_and_the_context(fake):
    ops, x, found = backend("cuda"), some(64), []
    shared = ops.upload(x)

    def work(factor):
        mine = ops.upload(np.float32(factor) * x)
        with ops.machine.current() as own:
            found.append((factor, ops.download(ops.add(shared, mine)), own.stream.value))

    threads = [threading.Thread(target=work, args=(factor,)) for factor in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({stream for *_, stream in found}) == 3
    for factor, y, _ in found:
        assert np.array_equal(y, x + np.float32(factor) * x)
    del thread, threads
    gc.collect()
    ops.machine.free_bytes()
    assert len(fake.streams) == 1  # theirs ended with them
    assert len(fake.pinned) == 2


def in_a_thread(work) -> BaseException | None:
    """Call this in a thread of its own, and return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except DeviceError as error:
            raised.append(error.with_traceback(None))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def test_a_thread_for_each_request_finds_what_those_before_it_had(fake):
    """A kept plan allocates nothing, so what ended threads had is freed when a new one begins."""
    ops = backend("cuda")
    x = ops.upload(some(4))
    run = ops.chain([ops.bind("relu", x, out=x)])
    fake.most_pinned = 4  # of this thread, and of one more
    for _ in range(3):
        assert in_a_thread(run) is None
    assert len(fake.streams) == 3  # of this thread, of the plan, and of the last thread


def test_a_thread_for_which_there_is_no_pinned_memory_leaves_nothing(fake):
    ops = backend("cuda")
    ops.upload(some(4))
    fake.most_pinned = 3  # the second buffer of the next thread is refused
    for _ in range(2):
        assert isinstance(in_a_thread(lambda: ops.upload(some(4))), OutOfMemoryError)
    ops.machine.free_bytes()
    assert (len(fake.pinned), len(fake.streams)) == (2, 1)


def test_the_context_of_another_library_is_current_again(monkeypatch):
    """PyTorch computes on the GPU whose context is current, and does not look which one it is."""
    fake = FakeCuda(((9, 0), (8, 0)))
    installed(monkeypatch, fake)
    fake.contexts.append(99)
    for device in ("cuda:1", "cuda:0"):
        ops = backend(device)
        x = ops.upload(some(9))
        run = ops.chain([ops.bind("relu", x, out=x)])
        uses = [run, lambda: ops.relu(x), lambda: ops.download(x), ops.wait]  # noqa: B023
        for use in [*uses, ops.machine.free_bytes]:
            use()
            assert fake.contexts == [99]
    fake.fail["cuEventSynchronize"] = 700
    with pytest.raises(DeviceError, match="cuEventSynchronize"):
        ops.download(x)
    assert fake.contexts == [99]


@pytest.mark.device
def test_what_a_thread_has_packed_is_there_for_all(fake):
    """The weights of a model are packed once, for the plans of all threads."""
    ops = backend("cuda")
    weight = ops.upload(some(8, 4, 3, 3))
    packed = ops.pack(weight, 2)
    assert fake.calls["cuLaunchKernel"] > 0
    assert not any(fake.streams.values())
    assert packed.shape == weight.shape


def test_two_gpus(monkeypatch):
    fake = FakeCuda(((9, 0), (8, 0)))
    installed(monkeypatch, fake)
    first, second = backend("cuda"), backend("cuda:1")
    assert (first.__name__, second.__name__) == ("tinyresnext.ops.cuda:0", "tinyresnext.ops.cuda:1")
    assert second.machine.capability == (8, 0)
    with pytest.raises(ValueError, match="y is on cuda:1 and the others on cuda:0"):
        first.add(first.upload(some(3)), second.upload(some(3)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = "there is no device cuda:2: this process sees cuda:0, cuda:1"
    with pytest.raises(DeviceError, match=f"^{said}; give one of these$"):
        backend("cuda:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    with pytest.raises(DeviceError, match=rf"^{said} \(CUDA_VISIBLE_DEVICES is '1,3'\); give"):
        backend("cuda:2")


def test_a_pickle_has_the_name_of_the_device(fake):
    ops = backend("cuda")
    assert pickle.loads(pickle.dumps(ops)) is ops


# --- memory ---------------------------------------------------------------------------------------


def test_out_of_memory_is_said_and_everything_goes_on(fake):
    ops = backend("cuda")
    whole = ops.machine.free_bytes()
    with pytest.raises(OutOfMemoryError, match="64 MiB of memory left, and 80 MiB more") as caught:
        ops.empty((20 << 20,))
    assert (caught.value.wanted, caught.value.free) == (80 << 20, whole)
    x = some(5)
    assert np.array_equal(ops.download(ops.relu(ops.upload(x))), np.maximum(x, 0))


@pytest.mark.parametrize(
    ("wanted", "free", "fitting"),
    [(1000, 500, 4), (400, 100, 7), (900, 800, 8), (2000, 1900, 8), (1000, 99, 0)],
)
def test_the_mini_batch_that_would_fit(wanted, free, fitting):
    """Ten images need 1000 bytes in buffers; where these were had, the kernels wanted more."""
    said = str(too_large((10, 32, 32, 3), 1000, OutOfMemoryError("", wanted, free)))
    assert ("not even one image fits" in said) == (fitting == 0)
    part = f"{fitting} at once fit: give a smaller --batch, or more --parts of it, so that a part"
    assert fitting == 0 or f"{part} has {fitting} at most" in said


def test_a_device_that_is_full_before_a_step_is_placed_says_so(fake, monkeypatch):
    """Such as with the weight of a shortcut of type A, which is uploaded first."""
    ops = backend("cuda")
    spec = Spec((1, 1), 2, 8, 4, stem="cifar", expansion=2, shortcut="A")
    params = {name: ops.empty(shape) for name, shape in parameters(spec).items()}
    upload = ops.upload

    def full(values, *more, **options):
        if np.ndim(values) == 4:
            raise OutOfMemoryError("cuda:0 has 0 MiB of memory left", 64, 8)
        return upload(values, *more, **options)

    monkeypatch.setattr(ops, "upload", full)
    with pytest.raises(OutOfMemoryError, match=r"^cuda:0 has 0 MiB of memory left$") as caught:
        Step(params, spec, (4, 8, 8, 3), ops)
    assert (caught.value.wanted, caught.value.free) == (64, 8)


def test_a_kernel_for_which_there_is_no_memory_is_no_kernel_that_is_refused(fake):
    ops = backend("cuda")
    x, fake.fail["cuModuleLoadDataEx"] = ops.upload(some(5)), 2
    with pytest.raises(OutOfMemoryError, match="cuda:0 has not enough memory"):
        ops.relu(x)
    fake.fail.clear()
    assert np.array_equal(ops.download(ops.relu(x)), np.maximum(some(5), 0))


@pytest.mark.parametrize(
    ("function", "code", "says"),
    [
        ("cuDevicePrimaryCtxRetain", 2, "^cuda:0 has not enough memory; end what else uses"),
        ("cuModuleLoadDataEx", 2, "has not enough memory; give a smaller.*, or end what else uses"),
        ("cuMemAllocHost_v2", 2, "^this computer has no memory left.*; end what else uses its mem"),
        ("cuDevicePrimaryCtxRetain", 46, "another process has the GPU for itself .*: end that"),
    ],
)
def test_a_gpu_that_others_use_says_so_when_it_is_opened(fake, function, code, says):
    fake.fail[function] = code
    with pytest.raises(DeviceError, match=says) as caught:
        backend("cuda")
    assert isinstance(caught.value, OutOfMemoryError) == (code == 2)


def test_all_threads_prepare_mini_batches_for_a_gpu(fake):
    assert [ops.loaders(8) for ops in (backend("cuda"), cpu)] == [8, 2]


@pytest.mark.parametrize(
    ("device", "told"),
    [("cuda:0 (Fake GPU)", False), ("the processor", True)],
)
def test_bits_of_a_gpu_do_not_depend_on_threads(device, told):
    few, many = (SimpleNamespace(origin={"device": device}, threads=n) for n in (1, 4))
    assert (computes(few) != computes(many)) == told


def test_memory_that_nobody_holds_is_given_back_before_more_is_refused(fake):
    ops = backend("cuda")
    for _ in range(5):
        held = ops.empty((40 << 18,))
        circle = [held]
        circle.append(circle)
        del held, circle
    assert ops.machine.free_bytes() >= fake.memory - (41 << 20)


def test_more_values_than_kernels_count(fake, monkeypatch):
    monkeypatch.setattr(call, "MOST_VALUES", 10)
    ops = backend("cuda")
    with pytest.raises(DeviceError, match=r"\[11\] has 11 values, and kernels count up to 10"):
        ops.relu(ops.upload(some(11)))


def test_two_threads_give_back_what_nobody_holds(fake):
    """One may take the last of it after the other has seen that there is something."""

    class Seen(deque):
        def __bool__(self) -> bool:
            return True

    machine = backend("cuda").machine
    machine._dropped = Seen()
    machine.allocate(8)


def test_updates_allocate_in_the_first_step_only(fake, monkeypatch):
    """Later another process may have taken what is free, and half of the weights be updated."""
    monkeypatch.setattr(FakeCuda, "_LaunchKernel", lambda *arguments: 0)  # what they compute: aside
    ops = backend("cuda")
    sets = [[ops.upload(some(*shape)) for _ in range(4)] for shape in ((4, 4), (8, 16), (4, 8))]
    numbers = {"lr": 0.1, "momentum": 0.9, "beta2": 0.99, "eps": 1e-6, "decay": 0.1}

    def step(number: int) -> None:
        for weight, gradient, velocity, squares in sets:
            ops.clip_norm_step(gradient, most=1.0)
            ops.clip_units_step(gradient, weight, most=0.1)
            ops.lamb_step(weight, gradient, velocity, squares, **numbers, step=number)
            ops.muon_step(weight, gradient, velocity, groups=2, lr=0.1)

    step(1)
    fake.fail["cuMemAlloc_v2"] = fake.fail["cuMemFree_v2"] = 2
    step(2)


def test_each_thread_has_room_of_its_own_and_gives_it_back_for_others(fake, monkeypatch):
    machine = backend("cuda").machine
    first, others = machine.room(1000), []
    assert machine.room(500) is first is machine.room(1000)
    assert in_a_thread(lambda: others.append(machine.room(1000).address)) is None
    assert others != [first.address]
    monkeypatch.setattr(gpu, "KEPT", 1 << 20)
    assert machine.room(2 << 20) is not machine.room(2 << 20)
    del first
    machine.room(1 << 20)
    fake.memory = fake.memory - machine.free_bytes() + (1 << 19)
    machine.allocate(1 << 20)


def test_a_single_call_has_its_place_only_while_it_runs(fake):
    """The call that comes next in the thread has the same room; this one may be in a plan then."""
    ops = backend("cuda")
    x, ones, out = ops.upload(some(2, 2, 2, 8)), ops.upload(np.ones(8)), ops.empty((2, 2, 2, 8))
    bound = ops.bind("batch_norm", x, ones, ones, ones, ones, out=out)
    waiting = list(call.unplaced(bound))
    assert waiting
    bound()
    assert list(call.unplaced(bound)) == waiting
    ops.chain([bound])
    assert not list(call.unplaced(bound))
    assert waiting[0].within is not ops.machine.room(1)


# --- what is missing ------------------------------------------------------------------------------


def test_no_driver(monkeypatch):
    def missing(name):
        raise OSError(name)

    nothing_opened(monkeypatch)
    monkeypatch.setattr(library.ctypes, "CDLL", missing)
    monkeypatch.setattr(library.ctypes, "WinDLL", missing, raising=False)
    with pytest.raises(DeviceError, match=r"driver is not there \(.*docker run --gpus all"):
        backend("cuda")
    ops, why = automatic()
    assert ops is cpu
    assert why.startswith("the GPU cannot be used, since NVIDIA's driver is not there (")
    assert ";" not in why
    assert backend("auto") is cpu


def test_a_system_without_cuda(monkeypatch):
    monkeypatch.setattr(library.sys, "platform", "darwin")
    with pytest.raises(DeviceError, match="no driver of CUDA for darwin"):
        library.load()


def test_a_driver_without_a_function(monkeypatch):
    class Old:
        def __getattr__(self, name):
            if name.startswith("cuGraph"):
                raise AttributeError(name)
            return lambda *a: 0

    for which in ("CDLL", "WinDLL"):
        monkeypatch.setattr(library.ctypes, which, lambda name: Old(), raising=False)
    with pytest.raises(DeviceError, match="too old: it has no cuGraph"):
        library.load()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (100, r"finds no GPU \(CUDA_VISIBLE_DEVICES is ''\)"),
        (803, "the driver was updated; restart the computer"),
        (999, "does not start: cuInit failed"),
    ],
)
def test_a_driver_that_does_not_start(fake, monkeypatch, code, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fake.fail["cuInit"] = code
    with pytest.raises(DeviceError, match=says):
        backend("cuda")


def test_no_device(monkeypatch):
    installed(monkeypatch, FakeCuda(()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(DeviceError, match="finds no GPU; look whether nvidia-smi"):
        backend("cuda")


def test_an_old_gpu(monkeypatch):
    installed(monkeypatch, FakeCuda(((6, 1),)))
    with pytest.raises(DeviceError, match=r"compute capability 6\.1, and the kernels need 7\.5"):
        backend("cuda")
    assert automatic()[0] is cpu


@pytest.mark.parametrize(
    ("version", "package"),
    [(12040, "nvidia-cuda-nvcc-cu12==12.4.*"), (13000, "nvidia-nvvm==13.0.*")],
)
def test_a_driver_that_is_too_old_for_the_kernels(fake, monkeypatch, version, package):
    """The package of NVIDIA's compiler has another name since CUDA 13."""
    monkeypatch.setattr(cache, "_version", lambda name: "0.30")
    fake.fail["cuModuleLoadDataEx"], fake.version = 222, version
    with pytest.raises(DeviceError) as caught:
        backend("cuda")
    shown = f"{version // 1000}.{version % 1000 // 10}"
    said = f"it is for CUDA {shown}, and they are PTX 9.0; update the driver, or install"
    assert said in str(caught.value)
    assert f"'{package}')" in str(caught.value)
    assert ("pip uninstall -y nvidia-nvvm && " in str(caught.value)) == (version < 13000)
    monkeypatch.setattr(cache, "_version", lambda name: None)  # Numba's own target reads no package
    with pytest.raises(DeviceError, match=rf"the CUDA toolkit {shown}, and let CUDA_HOME name it"):
        backend("cuda")


def test_a_kernel_that_the_driver_does_not_take(fake):
    fake.log = b"ptxas error : line 3\n"
    with pytest.raises(DeviceError, match=r"does not take the kernel copy.*ptxas error : line 3"):
        backend("cuda")


@pytest.mark.parametrize("said", ["libNVVM cannot be found", "Missing libdevice file."])
def test_no_compiler(fake, monkeypatch, said: str):
    """Numba says of a library of NVVM that is not there with a plain RuntimeError."""
    from numba.cuda.cudadrv.error import NvvmSupportError

    from tinyresnext.ops.cuda.runtime import kernel

    def missing(*arguments, **settings):
        raise (RuntimeError if "libdevice" in said else NvvmSupportError)(said)

    monkeypatch.setattr(kernel.cuda, "compile_ptx", missing)
    monkeypatch.setattr(gpu, "ptx", lambda kernel, capability: kernel.ptx(capability))
    with pytest.raises(DeviceError, match=re.escape(said) + r".*pip install 'tinyresnext\[cuda\]'"):
        backend("cuda")


def test_no_compiler_on_macos(monkeypatch):
    """NVIDIA has none for it: a command that installs one would fail, so none is given."""
    from numba.cuda.cudadrv.error import NvvmSupportError

    from tinyresnext.emulator import assembler
    from tinyresnext.ops.cuda.runtime import kernel

    monkeypatch.setattr(kernel, "sys", SimpleNamespace(platform="darwin"))
    said = r"^(?!.*pip install).*for Linux and Windows, and not for macOS"
    with pytest.raises(DeviceError, match=said), kernel.compiled_for("copy", (8, 0)):
        raise NvvmSupportError("libNVVM cannot be found")
    with pytest.raises(DeviceError, match=said):
        assembler.tool("no-such-program")


def test_a_numba_without_its_target(fake, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tinyresnext.ops.cuda.runtime.gpu", None)
    with pytest.raises(DeviceError, match=r"cuda:0.*pip install 'tinyresnext\[cuda\]'"):
        backend("cuda")


def test_after_a_fork(fake, monkeypatch):
    ops = backend("cuda")
    monkeypatch.setattr(gpu.os, "getpid", lambda: -1)
    monkeypatch.setattr(gpu, "OPENING", None)  # another thread may have held it at the fork
    for use in (lambda: ops.empty((3,)), lambda: backend("cuda"), automatic):
        with pytest.raises(DeviceError, match="forked from one that had already used the GPU"):
            use()


def test_after_a_fork_from_a_process_that_used_the_gpu_by_another_library(fake, monkeypatch):
    """The driver says so when it is initialised."""
    assert fake.cuInit(0) == 0
    monkeypatch.setattr(gpu.os, "getpid", lambda: -1)
    for use in (lambda: backend("cuda"), automatic):
        with pytest.raises(DeviceError, match=r"or in another library.*device 'cpu'"):
            use()


@pytest.mark.parametrize("capabilities", [(), ((6, 1),)])
def test_after_a_fork_auto_is_the_processor_where_it_was_so_before(monkeypatch, capabilities):
    installed(monkeypatch, FakeCuda(capabilities))
    assert automatic()[0] is cpu
    monkeypatch.setattr(gpu.os, "getpid", lambda: -1)
    assert automatic()[0] is cpu


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (700, "cannot use the GPU any more"),
        (220, "cannot use the GPU any more"),
        (721, "cannot use the GPU any more"),
        (219, "run it again"),
        (1, "report it"),
    ],
)
def test_a_fault_of_the_gpu(fake, code, says):
    ops = backend("cuda")
    x = ops.upload(some(3))
    fake.fail["cuEventSynchronize"] = code
    with pytest.raises(DeviceError, match=f"cuda:0: cuEventSynchronize failed with.*{says}"):
        ops.download(x)


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "CUDA", "cuda:²"])
def test_names_that_are_no_device(name):
    with pytest.raises(DeviceError, match="expected one of cpu, cuda, auto, reference"):
        backend(name)


EXPLAINING = {"cuGetErrorName", "cuGetErrorString"}  # the failures of the others


@pytest.mark.parametrize("function", sorted(library.FUNCTIONS.keys() - EXPLAINING))
def test_whatever_fails_is_a_device_error(fake, function):
    """Each function of the driver in turn, from the first call on."""
    fake.fail[function] = 1

    def use():
        ops = backend("cuda")
        x = ops.upload(some(9))
        ops.chain([ops.bind("relu", x, out=x)])()
        ops.relu(x)
        ops.download(x)
        del x
        ops.machine.free_bytes()

    unused = ("cuDriverGetVersion", "cuMemFreeHost")
    no_graph = "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"
    if function in (*unused, *no_graph):
        use()
    else:
        with pytest.raises(DeviceError, match=r"CUDA_ERROR_INVALID_VALUE|finds no GPU"):
            use()
    assert not fake.contexts or function == "cuCtxPopCurrent_v2"
    fake.fail.clear()
    gc.collect()
