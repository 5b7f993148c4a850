"""What an emulated GPU for two compute capabilities executes once, and what twice."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from assembled import kernels
from capabilities import Several
from executed import missing
from llvmlite import ir
from numba import cuda
from numba.core import types
from planted import THREADS, kernel

import tinyresnext
from tinyresnext.emulator.fault import KernelFault
from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload
from tinyresnext.ops.cuda.runtime.kernel import Kernel, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words.llvm import FLOAT, intrinsic
from tinyresnext.ops.cuda.words.target import capability

PACKAGE = Path(tinyresnext.__file__).parent
BOTH = [(8, 0), (9, 0)]
X = np.arange(THREADS, dtype=np.float32)


@intrinsic
def one_too_much(typingctx):
    """Return 1 for compute capability 9.0, where nothing is right."""

    def codegen(context, builder, signature, args):
        return ir.Constant(FLOAT, float(capability() >= (9, 0)))

    return types.float32(), codegen


def copies(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t]


def copies_wrongly(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t] + one_too_much()


def copied(machine, one: Kernel) -> np.ndarray:
    x, y = upload(machine, X), empty(machine, X.shape)
    machine.launch(Launch(one, 1, (x, y, 1)))
    return download(y)


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_equal_ptx_is_executed_once():
    machine, called = Several(BOTH), []
    assert np.array_equal(copied(machine, kernel(copies)), X)
    machine.again(lambda: called.append(machine.capability))
    assert called == []
    assert machine.said() == ["sm_90: 1 of 1 kernels are the same PTX; executed again: none"]


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_kernels_that_ran_are_known_by_name():
    machine, one = Several([(8, 0)]), kernel(copies)
    with pytest.raises(KernelFault):
        machine.launch(Launch(one, 1, (upload(machine, X[:3]), empty(machine, X.shape), 1)))
    assert machine.executed == set()
    copied(machine, one)
    assert machine.executed == {one.name}
    names = {kernel.name for kernel in kernels()}
    assert missing(names, (8, 0)) == []
    assert missing(names - {"relu", "relu_b"}, (7, 5)) == ["relu"]


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_other_ptx_is_executed_again_and_its_mistake_is_found():
    machine, wrong = Several(BOTH), kernel(copies_wrongly)

    def test():
        assert np.array_equal(copied(machine, wrong), X), machine.capability

    test()
    with pytest.raises(AssertionError, match=r"\(9, 0\)"):
        machine.again(test)
    assert (machine.capability, machine.launched) == ((8, 0), set())
    test()
    said = "0 of 1 kernels are the same PTX; executed again: ['copies_wrongly']"
    assert machine.said() == [f"sm_90: {said}"]


CALLED = []


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_pytest_calls_such_a_test_again(emulated):
    machine = emulated.backend.machine
    CALLED.append(machine.capability)
    wrong = machine.name == "ptx" and machine.capability == (9, 0)
    assert np.array_equal(copied(machine, kernel(copies_wrongly)), X + wrong)


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_pytest_has_called_it_again(emulated):
    machine = emulated.backend.machine
    assert CALLED in ([], getattr(machine, "capabilities", [machine.capability]))


def test_hardly_anything_but_the_compiler_reads_the_capability():
    """So from 8.0 on, the launches of a backend are the same for every compute capability."""
    readers = {
        "emulator/fibers/machine.py": 2,  # sets it; compiles
        "emulator/ptx/machine.py": 2,
        "ops/cuda/__init__.py": 2,  # refuses bfloat16 before 8.0
        "ops/cuda/runtime/gpu.py": 3,  # sets it; refuses what is too old; compiles
    }
    found = Counter()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "capability" in text else ():
            if "capability" in (getattr(node, "attr", ""), getattr(node, "value", "")):
                found[path.relative_to(PACKAGE).as_posix()] += 1
    assert found == readers
