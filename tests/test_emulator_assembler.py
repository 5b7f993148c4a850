"""What NVIDIA's assembler makes of every kernel: nothing in memory, no float64, and as in a table.

The table (`tests/assembled.json`) is of one version of the assembler, and of PTX by numba-cuda. A
change of a kernel changes its row on purpose: ``PYTHONPATH=. python tests/assembled.py`` writes it
anew. Sizes that no ResNeXt uses have no row.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from importlib import import_module

import pytest
from numba import cuda
from numba.core import types

from tinyresnext.emulator import assembler
from tinyresnext.emulator.assembler import Assembled, assemble_ptx, hottest, loops, tool
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda import elementwise
from tinyresnext.ops.cuda.runtime.kernel import Capability, Kernel, floats, int32

VERSION = "13.0"  # of the assembler that wrote the table
REGISTERS = 1 << 16  # of a multiprocessor; a warp has eights of them for each thread


def missing() -> str | None:
    """Return why nothing can be assembled here, if so; ``TINYRESNEXT_EMULATOR`` may ask for it."""
    try:
        tool("ptxas"), tool("nvdisasm")
    except DeviceError as error:
        if os.environ.get("TINYRESNEXT_EMULATOR", "").startswith("ptx"):
            raise
        return str(error)
    return None


def table() -> dict[str, dict[str, int]]:
    from assembled import TABLE

    return json.loads(TABLE.read_text("utf-8"))


def cases(name: str = "cases"):
    """Return kernels and their processors, or nothing where they cannot be assembled."""
    return [] if missing() else getattr(import_module("assembled"), name)()


def name(value: object) -> str:
    return value.name if isinstance(value, Kernel) else "sm_{}{}".format(*value)


def in_registers(kernel: Kernel, processor: Capability, listing: bool) -> Assembled:
    """Assemble a kernel that must have all its values in registers, and none in float64."""
    ptx = kernel.ptx(processor)
    assert ".f64" not in ptx, "a constant without a type makes it compute in float64"
    made = assemble_ptx(ptx, processor, listing)
    said = f".maxntid {kernel.threads}, 1, 1" in ptx
    assert said == (kernel.threads > 256), "the driver's compiler must know it, too"
    assert -(-made.registers // 8) * 8 * kernel.threads <= REGISTERS
    assert (made.stack, made.spills) == (0, 0), "not everything is in registers"
    return made


@pytest.mark.device
@pytest.mark.parametrize(("kernel", "processor"), cases(), ids=name)
def test_kernel(kernel: Kernel, processor: Capability):
    from assembled import entry, key

    theirs = "numba_cuda" in str(cuda.__file__)  # the table is not of the target inside Numba
    made = in_registers(kernel, processor, theirs)
    version = subprocess.run([tool("ptxas"), "--version"], capture_output=True, text=True)
    if theirs and f"release {VERSION}" in version.stdout:
        assert entry(made) == table().get(key(kernel, processor))


@pytest.mark.device
@pytest.mark.parametrize(("kernel", "processor"), cases("others"), ids=name)
def test_other_sizes_and_types(kernel: Kernel, processor: Capability):
    in_registers(kernel, processor, listing=False)


@pytest.mark.device
def test_the_table_has_no_row_too_many():
    from assembled import key

    wanted = {key(*case) for case in cases()}
    assert not wanted or set(table()) == wanted


@pytest.mark.parametrize(
    ("kernel", "share"),
    [
        ("gemm_128x128x8x16", 92),
        ("gemm_128x128x8x16_point", 92),
        ("grouped_3x3_1_7_16", 75),
        ("peak_multiply", 97),
    ],
)
def test_inner_loops_multiply_most_of_the_time(kernel: str, share: int):
    """In percent of their instructions, for compute capability 9.0."""
    assert table()[f"{kernel} sm_90"]["ffma"] >= share


@pytest.mark.device
@pytest.mark.parametrize("name", ["relu", "relu_gradient", "add", "copy"])
def test_what_is_bound_by_memory_asks_for_all_values_before_it_stores_one(nvvm, name: str):
    """Behind a store nothing is loaded that may be what was stored, so a thread would wait."""
    text = getattr(elementwise, f"{name}_kernel")().ptx((9, 0))
    loads = [found.start() for found in re.finditer(r"\bld\.global", text)]
    stores = [found.start() for found in re.finditer(r"\bst\.global", text)]
    assert len(stores) == elementwise.EACH
    assert len(loads) >= elementwise.EACH
    assert max(loads) < min(stores)


@pytest.mark.device
@pytest.mark.skipif(missing() is not None, reason="NVIDIA's assembler is not installed")
@pytest.mark.parametrize("fault", ["stack", "f64"])
def test_planted_mistakes_show(fault: str):
    def indexes_its_registers(x, y, n):
        a = cuda.local.array(64, types.float32)
        for i in range(n):
            a[i * i & 63] = x[i]
        for i in range(n):
            y[i] = a[i * 7 & 63]

    def doubles(x, y, n):
        y[0] = x[0] * 0.1

    function = indexes_its_registers if fault == "stack" else doubles
    ptx = Kernel(fault, function, (floats, floats, int32), 32).ptx((8, 0))
    assert (".f64" in ptx) == (fault == "f64")
    assert (assemble_ptx(ptx, (8, 0)).stack > 0) == (fault == "stack")


@pytest.mark.device
@pytest.mark.skipif(missing() is not None, reason="NVIDIA's assembler is not installed")
def test_what_the_assembler_refuses_is_an_error():
    with pytest.raises(DeviceError, match="ptxas refuses"):
        assemble_ptx(".version 9.0\n.target sm_80\n.address_size 64\n nonsense", (8, 0))


LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R2] ;
.L_x_0:
        /*0020*/                   FFMA R0, R4, R5, R0 ;
        /*0030*/                   FFMA R6, R4, R5, R6 ;
        /*0040*/              @!P0 BRA `(.L_x_0) ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2);
"""


def test_loops_of_a_listing():
    inner, outer = Counter(FFMA=2, BRA=1), Counter(FFMA=2, LDS=1, BRA=2)
    assert loops(LISTING) == [inner, outer]
    assert hottest(loops(LISTING)) == inner
    assert hottest([]) == Counter()


def test_a_missing_program_is_named(monkeypatch):
    monkeypatch.setattr(assembler.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setattr(assembler.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=re.escape("pip install nvidia-cuda-nvcc")):
        tool("ptxas")
