"""PTX executed and watched: right kernels compute, and every planted mistake is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numba import cuda
from numba.cuda import libdevice
from on_device import by_fibers
from planted import RIGHT, THREADS, WRONG, kernel, reversed_in_warps, unknown

from tinyresnext.emulator import KernelFault, check
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.emulator.ptx.source.parse import parse
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import load4, shared, store4

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
X = np.random.default_rng(0).standard_normal(THREADS).astype(np.float32)
PROCESSORS = [(7, 5), (8, 0), (9, 0)]
COPIES = ("two_groups", "waits_for_the_wrong_group", "copy_not_waited_for")  # from 8.0 on


def run(machine, function, blocks: int = 1) -> np.ndarray:
    """Return what a kernel makes of X, in memory of its own."""
    x, y = upload(machine, X), empty(machine, X.shape)
    machine.launch(Launch(kernel(function), blocks, (x, y, 1)))
    return download(y)


def there(name: str, processor: tuple[int, int]) -> bool:
    """Return whether a processor has what a kernel shows."""
    return processor >= (8, 0) or name not in COPIES


@pytest.mark.parametrize(
    ("name", "processor"),
    [(name, cc) for name in RIGHT for cc in PROCESSORS if there(name, cc)],
    ids=str,
)
def test_right_kernels_compute(name: str, processor):
    function, wanted = RIGHT[name]
    assert np.array_equal(run(PtxMachine(processor), function), wanted(X))


def test_a_barrier_of_the_warp_is_enough_within_it():
    y = run(PtxMachine(), reversed_in_warps)
    assert np.array_equal(y[::-1], X.reshape(2, 32)[:, ::-1].reshape(-1))


@pytest.mark.parametrize(
    ("function", "processor"),
    [(one, cc) for one in WRONG for cc in PROCESSORS if there(one.__name__, cc)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_planted_mistakes_are_named(function, processor):
    name = function.__name__
    with pytest.raises(KernelFault) as caught:
        run(PtxMachine(processor), function, blocks=2 if name.startswith("two_blocks") else 1)
    said = str(caught.value)
    assert caught.value.kind == WRONG[function][0], said
    assert said.startswith(f"kernel {name}: ")
    line = function.__code__.co_firstlineno
    places = [f"planted.py:{line + i}" for i in range(20)]
    assert any(place in said for place in places), f"the report has no line of the source: {said}"


def test_barriers_of_warps_never_become_one_of_the_block():
    """However many there are: another warp's write is not in order by them."""

    def many(x, y, n):
        s = shared(32)
        t = int32(cuda.threadIdx.x)
        if t < 32:
            s[t] = x[t]
        for _ in range(5000):
            cuda.syncwarp()
        y[t] = s[t % 32]

    with pytest.raises(KernelFault) as caught:
        run(PtxMachine(), many)
    assert caught.value.kind == "race"


def test_memory_that_was_freed_is_out_of_bounds():
    machine = PtxMachine()
    x, y = upload(machine, X), empty(machine, X.shape)
    launch = Launch(kernel(RIGHT["rotated"][0]), 1, (x, y, 1))
    x.memory = None
    with pytest.raises(KernelFault, match="freed"):
        machine.launch(launch)


def test_atomics_need_no_order_and_other_accesses_do():
    def adds(x, total):
        cuda.atomic.add(total, 0, x[cuda.threadIdx.x])

    def adds_and_reads(x, total):
        cuda.atomic.add(total, 0, x[cuda.threadIdx.x])
        x[cuda.threadIdx.x] = total[0]

    x, total = np.ones(64, np.float32), np.zeros(1, np.float32)
    check(adds, 1, 64, x, total)
    assert total[0] == 64
    with pytest.raises(KernelFault, match="no barrier"):
        check(adds_and_reads, 1, 64, x, total)


@cuda.jit(device=True)
def reversed_squares(x, t):
    s = cuda.shared.array(32, float32)
    s[t] = x[t] * x[t]
    cuda.syncthreads()
    return s[31 - t]


def test_a_kernel_may_call_functions():
    def helped(x, y):
        t = cuda.threadIdx.x
        y[t] = reversed_squares(x, t)

    x, y = X[:32].copy(), np.zeros(32, np.float32)
    check(helped, 1, 32, x, y)
    assert np.array_equal(y, x[::-1] ** 2)


def test_what_numba_cannot_compile_is_an_error_of_ours():
    def misspelt(x):
        x[0] = cuda.thredIdx.x

    with pytest.raises(DeviceError, match=r"Numba cannot compile the kernel misspelt: .*thredIdx"):
        check(misspelt, 1, 32, np.zeros(32, np.float32))


def test_what_cannot_be_emulated_is_named():
    def discards(x, y, n):
        unknown()

    def rounds_up(x, y, n):
        y[0] = libdevice.fadd_ru(x[0], float32(1e-10))

    with pytest.raises(DeviceError, match=r"discard\.global\.L2"):
        run(PtxMachine(), discards)
    with pytest.raises(DeviceError, match=r"add\.rp\.f32"):
        run(PtxMachine(), rounds_up)


def test_a_word_before_the_first_is_out_of_bounds():
    def before(x, y, n):
        s = shared(64)
        t = int32(cuda.threadIdx.x)
        s[t] = x[t]
        cuda.syncthreads()
        y[t] = s[t - 1]

    with pytest.raises(
        KernelFault, match="4 bytes at -4 of shared memory, which has 256"
    ) as caught:
        run(PtxMachine(), before)
    assert caught.value.kind == "bounds"


def test_barriers_that_ask_all_threads():
    def asks(x, counts, every, some):
        i = np.uint64(cuda.grid(1))
        counts[i] = cuda.syncthreads_count(x[i])
        every[i] = cuda.syncthreads_and(x[i])
        some[i] = cuda.syncthreads_or(x[i])

    x = np.repeat(np.array([0, 1, 0], np.int32), 64)
    x[5], x[70] = 1, 0
    made = [np.full(192, -7, np.int32) for _ in range(3)]
    check(asks, 3, 64, x, *made)
    counts, every, some = (one.reshape(3, 64) for one in made)
    assert (counts == np.array([[1], [63], [0]])).all()
    assert (every == 0).all()
    assert ((some != 0) == np.array([[True], [True], [False]])).all()


def test_registers_of_a_scope_are_its_own():
    text = """.visible .entry k(.param .u64 p)
{
    .reg .pred %p<3>;
    .reg .b32 %r<3>;
    setp.eq.u32 %p1, 0, 0;
    { .reg .pred %p1; .reg .b32 %r<2>; setp.eq.u32 %p1, 1, 0; mov.u32 %r2, 1; }
    @%p1 bra done;
done:
    ret;
}"""
    code = parse(text)
    outer, inner, moved, jump = (ins for piece in code.pieces[:1] for ins in piece)
    assert outer.operands[0] == jump.guard == "%p1"
    assert inner.operands[0] != "%p1"
    assert code.type_of(inner.operands[0]) == "pred"
    assert moved.operands[0] != "%r2"
    assert code.type_of(moved.operands[0]) == "b32"


def test_the_examples_of_the_page(capsys):
    """The first has a race, and the second prints the numbers that stand beside it."""
    page = Path(__file__).parents[1] / "docs" / "emulator.md"
    race, counts = re.findall(r"```python compiler\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    with pytest.raises(KernelFault, match="another thread wrote it"):
        exec(compile(race, "reverse.py", "exec"), {})
    exec(compile(counts, "columns.py", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", counts)


# --- what is counted ------------------------------------------------------------------------------


def counted(function, threads: int = 32, size: int = 4096):
    """Return the counters of one block that reads and writes arrays of so many floats."""
    machine = PtxMachine(count=True)
    x, y = upload(machine, np.zeros(size, np.float32)), empty(machine, (size,))
    made = Kernel(function.__name__, function, (floats, floats, int32), threads)
    machine.launch(Launch(made, 1, (x, y, 1)))
    return machine.counters[function.__name__]


@pytest.mark.parametrize(
    ("step", "sectors"), [(1, 4 + 4), (2, 8 + 4), (8, 32 + 4), (32, 32 + 4), (0, 1 + 4)]
)
def test_sectors_of_a_stride(step: int, sectors: int):
    """Neighbours side by side fill four sectors of 32 bytes; from eight floats apart, one each."""
    step_ = int32(step)

    def strided(x, y, n):
        t = int32(cuda.threadIdx.x)
        y[t] = x[t * step_]

    found = counted(strided)
    assert found.sectors == sectors
    assert found.ideal_sectors == (1 if step == 0 else 4) + 4


@pytest.mark.parametrize(
    ("step", "wavefronts"), [(1, 1), (2, 2), (4, 4), (32, 32), (33, 1), (0, 1)]
)
def test_wavefronts_of_a_stride(step: int, wavefronts: int):
    """A column of a matrix of 32 columns lies in one bank; with a column more, in all of them."""
    step_ = int32(step)

    def column(x, y, n):
        s = shared(1056)
        t = int32(cuda.threadIdx.x)
        for i in range(33):
            s[t + 32 * i] = x[t]
        cuda.syncthreads()
        y[t] = s[t * step_]

    found = counted(column)
    assert found.wavefronts == 33 + wavefronts
    assert found.ideal_wavefronts == 34


def test_wavefronts_of_sixteen_bytes():
    """A warp's 512 bytes take four wavefronts; rows 32 floats apart all begin in one bank."""

    def rows(x, y, n):
        s = shared(1024)
        t = int32(cuda.threadIdx.x)
        for i in range(8):
            store4(s, 4 * t + 128 * i, load4(x, 4 * t, 0, 16), 16)
        cuda.syncthreads()
        store4(y, 4 * t, load4(s, 4 * t, 0, 16), 16)
        store4(y, 128 + 4 * t, load4(s, 32 * t, 0, 16), 16)

    found = counted(rows)
    assert found.wavefronts == 8 * 4 + 4 + 4 * 8
    assert found.ideal_wavefronts == 10 * 4


def test_instructions_are_counted_by_warps():
    def adds(x, y, n):
        t = int32(cuda.threadIdx.x)
        v = x[t]
        if t < 40:
            v = v * x[0] + x[1]
        y[t] = v

    found = counted(adds, threads=96)
    assert found.instructions["fma.f32"] == 2  # the third warp skips it
    assert found.threads["fma.f32"] == 40
    assert found.instructions["st.f32"] == 3


# --- both engines ---------------------------------------------------------------------------------


@by_fibers
def test_both_engines_compute_the_same():
    def mixed(x, y, n):
        t = int32(cuda.threadIdx.x)
        v = x[t]
        i = int32(v * float32(1000)) // int32(7) - (t % int32(5) << int32(2))
        y[t] = float32(i) / float32(3) - abs(v) if v > float32(0) else float32(i % int32(-9))

    made = run(PtxMachine(), mixed)
    assert np.array_equal(made, run(FiberMachine(), mixed))
