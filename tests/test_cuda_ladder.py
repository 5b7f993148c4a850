"""The ladder of a GPU's kernels: every rung is right, and counts say what each costs."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
from on_device import by_fibers
from op_cases import Conv
from test_cuda_conv import conv2d

from tinyresnext.emulator.fibers.machine import FiberMachine
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.contract import Peak

FOLDER = Path(__file__).parents[1] / "benchmarks" / "ladder_cuda"


@pytest.fixture
def ladder(monkeypatch):
    """The program of the ladder; its folder is a program, not a package."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    found = spec_from_file_location("ladder_cuda_main", FOLDER / "__main__.py")
    assert found is not None
    module = module_from_spec(found)
    assert found.loader is not None
    monkeypatch.setitem(sys.modules, "ladder_cuda_main", module)
    found.loader.exec_module(module)
    return module


def test_every_file_of_the_ladder_is_a_rung(ladder):
    assert {path.stem for path in FOLDER.glob("rung_*.py")} == set(ladder.RUNGS)


@by_fibers
@pytest.mark.device
@pytest.mark.parametrize("place", range(8))
def test_every_rung_agrees_with_the_definition(ladder, place: int):
    """Sizes that fill no tile; those from the fifth on take whole vectors and slices."""
    layer = ladder.Layer(70, 33, 70) if place < 4 else ladder.Layer(70, 32, 72)
    ladder.check(import_module(ladder.RUNGS[place]), layer, FiberMachine())


@by_fibers
@pytest.mark.device
def test_a_wrong_rung_is_found(ladder):
    rung = import_module("rung_1_loops")
    one = ladder.Layer(3, 3, 3)
    with pytest.raises(AssertionError, match="wrong"):
        ladder.check(Wrong(rung), one, FiberMachine())


@by_fibers
@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_a_depth_in_parts_counts_the_kernel_that_multiplies_and_the_one_that_adds(ladder):
    rung, layer = import_module("rung_6_copies"), ladder.Layer(64, 256, 64)
    kernels = ladder.check(rung, layer, FiberMachine(multiprocessors=8))
    assert [kernel.name.split("_")[0] for kernel in kernels] == ["gemm", "fold"]
    both, kernel = ladder.costs(rung, layer)
    assert kernel.name.startswith("gemm")
    assert both.issue > 1
    assert both.shared > 0


class Wrong:
    """A rung that multiplies in the other order."""

    def __init__(self, rung) -> None:
        self.rung, self.__name__ = rung, "wrong"

    def launches(self, x, weight, bias, out):
        return self.rung.launches(weight, x, bias, out)


@pytest.mark.parametrize(
    ("costs", "peak"),
    [
        ((1.25, 0.5, 0.1), 0.8),
        ((0.5, 0.5, 0.5), 1.0),
        ((2.0, 8.0, 3.0), 0.125),
        ((0.2, 0.25, 0.1, 0.0625), 4.0),
    ],
)
def test_the_largest_cost_is_the_limit(ladder, costs, peak: float):
    assert ladder.Costs(*costs).peak == peak


@pytest.mark.device
def test_costs_fall_from_rung_to_rung(ladder):
    """As the files say, in the counts that each is about; they need NVIDIA's compiler."""
    pytest.importorskip("numba_cuda")
    layer = ladder.Layer(64, 16, 64)
    loops, neighbours, shared = (
        ladder.costs(import_module(name), layer)[0] for name in ladder.RUNGS[:3]
    )
    assert loops.memory > 5 * neighbours.memory > 5 * shared.memory
    assert loops.shared == 0 < shared.shared


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
def test_the_table_of_the_readme_is_what_the_program_prints(ladder, capsys):
    """The figures are of the compiler that the README names, with numba-cuda."""
    pytest.importorskip("numba_cuda")
    text = (FOLDER.parent / "README.md").read_text("utf-8").split("## The ladder")[1]
    found = re.search(r"with NVVM ([\d.]+\d)", text)
    try:
        here = version("nvidia-nvvm")
    except PackageNotFoundError:  # that of CUDA 12, or a toolkit's
        here = "another one"
    if here != found[1]:
        pytest.skip(f"the figures are of NVVM {found[1]}, and this is {here}")
    rows = re.findall(r"^\| \d \| .+", text, re.M)
    assert ladder.main([]) == 0
    *_, last = printed = capsys.readouterr().out.splitlines()
    counted = [line.split()[1:] for line in printed if line.startswith("rung_")]
    assert [row.replace(" %", "%").split(" | ")[2:] for row in map(cells, rows)] == counted
    launches = re.search(r"for one image is (\d+) launches", text)
    assert f": {launches[1]} launches" in last


def cells(row: str) -> str:
    """Return a row of a table without its ends."""
    return row.removeprefix("| ").removesuffix(" |")


@by_fibers
@pytest.mark.device
def test_rungs_are_timed_kernel_by_kernel_and_the_last_one_as_a_graph(ladder, monkeypatch):
    """The times are of the emulator; the share of a peak is that of what is a peak here."""
    monkeypatch.setattr(ladder, "RUNGS", (ladder.RUNGS[0], "rung_6_copies", "rung_8_graph"))
    machine, graphs = FiberMachine(), []
    prepare = machine.prepare

    def prepared(launches):
        graphs.extend([len(launches)] * (len(launches) > 1))  # a launch alone is prepared too
        return prepare(launches)

    machine.prepare = prepared
    ops = SimpleNamespace(machine=machine, peak=lambda threads: [Peak(1, 1e-3, 1, 1)])
    monkeypatch.setattr("tinyresnext.ops.backend", lambda device: ops)
    layer, seen = ladder.Layer(8, 16, 8), []
    for row in ladder.measure("cuda", layer, layer):
        seen.append((row["rung"], len(graphs)))
        assert row["of_peak"] > 0
        assert row["one_us"] > 0
    assert seen == [(name, 2 * (name == "rung_8_graph")) for name in ladder.RUNGS]
    assert graphs == [ladder.STARTS] * 2


@pytest.mark.device
def test_times_on_paper_are_no_shorter_than_the_roofline(monkeypatch):
    """Every kernel of multiply-adds has a row in the assembler's table."""
    monkeypatch.setattr(sys, "path", [str(FOLDER.parent), *sys.path])
    paper = import_module("gpu_on_paper")
    rows = paper.layers("resnext50_32x4d", 1, 64)
    assert len(rows) == 56
    assert all(own >= limit > 0 for _, own, limit in rows)
    with pytest.raises(KeyError, match="gemm_1x1"):
        paper.share(SimpleNamespace(name="gemm_1x1"))


@pytest.mark.device
def test_wavefronts_on_paper_are_those_that_are_counted(nvvm, monkeypatch):
    """They are those of the loop, here of 16 slices; it copies one slice before it multiplies."""
    monkeypatch.setattr(sys, "path", [str(FOLDER.parent), *sys.path])
    paper = import_module("gpu_on_paper")
    machine = PtxMachine(count=True, watched=False)
    conv2d(machine, Conv("1x1", (1, 8, 4, 256), 16))
    [name] = [name for name in machine.counters if name.startswith("gemm")]
    found, kernel = machine.counters[name], SimpleNamespace(name=name)
    counted = 4 * found.wavefronts / found.instructions["fma.f32"]
    assert 1 <= counted / paper.wavefronts(kernel) <= 17 / 16
