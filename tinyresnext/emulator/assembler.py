"""What NVIDIA's assembler makes of a kernel: registers, spills, and the instructions of its loop.

PTX is not yet what a GPU runs. ``ptxas`` chooses the registers and the order of the instructions,
and ``nvdisasm`` shows them. Both come with NVIDIA's packages and need no GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError
from ..ops.cuda.runtime.kernel import Capability, Kernel, to_get

SECONDS = 300  # that an assembler may take


@dataclass(frozen=True)
class Assembled:
    """A kernel as a GPU runs it.

    Attributes
    ----------
    registers : int
        Of a thread.
    stack, spills : int
        Bytes of a thread that lie in memory: arrays that are not in registers, and values that
        registers had no room for.
    shared : int
        Bytes of shared memory of a block.
    loop : Counter
        The instructions of the hottest loop by name: the loop without a jump inside that has the
        most multiply-adds, or else the longest one. Empty where there is no loop.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    loop: Counter[str]

    @property
    def share(self) -> float:
        """The share of multiply-adds in the loop, from 0 to 1: of float32, or of tensor cores."""
        return multiplying(self.loop) / self.loop.total() if self.loop else 0.0


def tool(name: str) -> str:
    """Return the path of one of NVIDIA's programs.

    Raises
    ------
    DeviceError
        It is neither in an installed package of NVIDIA's nor in PATH.
    """
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = sorted(packages.glob(f"*/bin/{name}"), reverse=True)
    path = str(found[0]) if found else shutil.which(name)
    if path is None:
        install = "install it with: pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
        raise DeviceError(
            f"{name} is neither in an installed package nor in PATH; {to_get(install)}"
        )
    return path


def assemble(kernel: Kernel, capability: Capability) -> Assembled:
    """Assemble a kernel for a GPU.

    Raises
    ------
    DeviceError
        A program of NVIDIA's is missing, or refuses the kernel.
    """
    return assemble_ptx(kernel.ptx(capability), capability)


def assemble_ptx(text: str, capability: Capability, listing: bool = True) -> Assembled:
    """Assemble PTX; as `assemble`. Without ``listing`` no loop is looked for: that is quicker."""
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(text, "utf-8")
        chip = "sm_{}{}".format(*capability)
        said = _run(tool("ptxas"), "-v", f"-arch={chip}", str(source), "-o", str(code))
        shown = _run(tool("nvdisasm"), "-c", str(code)) if listing else ""
    return Assembled(
        registers=_number(r"Used (\d+) registers", said),
        stack=_number(r"(\d+) bytes stack frame", said),
        spills=_number(r"(\d+) bytes spill stores", said),
        shared=_number(r"(\d+) bytes smem", said),
        loop=hottest(loops(shown)),
    )


def _run(*command: str) -> str:
    made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if made.returncode:
        name = Path(command[0]).name
        raise DeviceError(f"{name} refuses the kernel: {made.stderr.strip()[:500]}")
    return made.stdout + made.stderr


def _number(pattern: str, text: str) -> int:
    """Return the number of a line of the report, 0 where the line is missing."""
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def loops(listing: str) -> list[Counter[str]]:
    """Return the instructions of each loop of a listing, by name."""
    labels: dict[str, int] = {}
    code: list[tuple[str, str]] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\S+)(.*?);", line):
            code.append((found[1].split(".")[0], found[2]))
    found_loops = []
    for last, (name, operands) in enumerate(code):
        jump = re.search(r"\.(L_x_\d+)", operands) if name == "BRA" else None
        first = labels.get(jump[1], last) if jump else last
        # A jump to itself behind the end of the kernel is filling.
        if jump and first < last:
            found_loops.append(Counter(name for name, _ in code[first : last + 1]))
    return found_loops


def multiplying(loop: Counter[str]) -> int:
    """Return how many instructions of a loop multiply and add: FFMA, and HMMA of tensor cores."""
    return loop["FFMA"] + loop["HMMA"]


def hottest(found: list[Counter[str]]) -> Counter[str]:
    """Return the loop that most of the work is in, as far as a listing shows it.

    A loop around another has the instructions of both, so a larger share of multiply-adds counts
    before a larger number; short loops of a few instructions do not.
    """
    return max(
        found,
        key=lambda loop: (multiplying(loop) / (loop.total() + 40), loop.total()),
        default=Counter(),
    )
