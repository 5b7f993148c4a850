"""An emulated GPU for several compute capabilities, which executes equal PTX once.

What a launch does follows from the PTX of its kernel and from its arguments. So where a kernel is
the same text for another capability, but for the name of the target and those of functions,
executing it again would show nothing new. `conftest` calls a test again, for the other capability,
if a kernel that it launched is another text. From 8.0 on the arguments do not depend on the
capability, since nothing but the compiler reads it (`test_capabilities` holds the package to that).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.emulator.ptx.machine import text_of
from tinyresnext.ops.cuda.runtime.kernel import Capability, Kernel
from tinyresnext.ops.cuda.runtime.machine import Launch

NAME = re.compile(r"\b_Z[\w$]+")
DEBUGGING = re.compile(r"^\s*\.section\s+\.debug.*", re.M | re.S)
TARGET = re.compile(r"^\.target sm_(\d+)(?=$|,)", re.M)


class Several(PtxMachine):
    """The machine of the first capability, which notes what it launches.

    Parameters
    ----------
    capabilities : list of tuple of int

    Attributes
    ----------
    launched : set of Kernel
        Since it was cleared.
    executed : set of str
        The names of all kernels that came to their end (see `executed.py`).
    equal : dict
        For each kernel and other capability whether its PTX is that of the first.
    """

    def __init__(self, capabilities: list[Capability]) -> None:
        assert len(capabilities) == 1 or min(capabilities) >= (8, 0), capabilities
        super().__init__(capabilities[0])
        self.capabilities = capabilities
        self.equal: dict[tuple[Kernel, Capability], bool] = {}
        self.launched: set[Kernel] = set()
        self.executed: set[str] = set()

    def launch(self, launch: Launch) -> None:
        """Run a kernel to its end, and note it."""
        self.launched.add(launch.kernel)
        super().launch(launch)
        self.executed.add(launch.kernel.name)

    def others(self) -> list[Capability]:
        """Return for which capabilities a kernel of those launched is other PTX."""
        first, *more = self.capabilities
        for case in ((kernel, other) for kernel in self.launched for other in more):
            if case not in self.equal:
                self.equal[case] = comparable(case[0], first) == comparable(*case)
        return [one for one in more if not all(self.equal[case, one] for case in self.launched)]

    def again(self, test: Callable[[], object]) -> None:
        """Call a test again for each capability that has other PTX than the first; begin anew."""
        first = self.capability
        try:
            for other in self.others():
                self.capability = other
                test()
        finally:
            self.capability = first
            self.launched.clear()

    def said(self) -> list[str]:
        """Return a line for each capability but the first: how many kernels are the same PTX."""
        lines = []
        for other in self.capabilities[1:]:
            found = {kernel: same for (kernel, cc), same in self.equal.items() if cc == other}
            different = sorted(kernel.name for kernel, same in found.items() if not same)
            text = f"{sum(found.values())} of {len(found)} kernels are the same PTX"
            lines.append(f"sm_{other[0]}{other[1]}: {text}; executed again: {different or 'none'}")
        return lines


def comparable(kernel: Kernel, capability: Capability) -> str:
    """Return the PTX of a kernel without the name of its target, and with names by order.

    Numba puts its options into the names of functions, and how often it has compiled them. Here the
    first such name of a text is ``name0``, wherever it stands, and the next one ``name1``. What
    follows for debuggers spells such names in bytes, and is left out.
    """
    text, count = TARGET.subn(".target", DEBUGGING.sub("", text_of(kernel, capability)))
    assert count == 1, f"the PTX of {kernel.name} names {count} targets, expected 1"
    names: dict[str, str] = {}
    return NAME.sub(lambda found: names.setdefault(found[0], f"name{len(names)}"), text)
