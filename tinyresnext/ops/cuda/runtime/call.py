"""A bound call: the launches that one op needs, on arrays that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....errors import DeviceError
from .arrays import DeviceArray
from .machine import Launch, Machine

# Kernels count values in 32 bits with a sign; the last block may reach beyond an array's end.
MOST_VALUES = 2**31 - 2**16


class Call:
    """The launches of an op, ready to run any number of times on what its arrays then hold.

    Attributes
    ----------
    machine : Machine
    launches : tuple of Launch
        Those that have blocks: an op on arrays without values needs none.
    result : DeviceArray or None
        What the op returns.

    Raises
    ------
    DeviceError
        An array has more values than the kernels can count.
    """

    __slots__ = ("launches", "machine", "result")

    def __init__(
        self, machine: Machine, launches: Sequence[Launch], result: DeviceArray | None = None
    ) -> None:
        self.machine, self.result = machine, result
        self.launches = tuple(launch for launch in launches if launch.blocks)
        for launch in self.launches:
            for array in launch.arguments:
                if isinstance(array, DeviceArray) and array.size > MOST_VALUES:
                    raise DeviceError(
                        f"an array of {list(array.shape)} has {array.size:,} values, and kernels "
                        f"count up to {MOST_VALUES:,}; give a smaller mini-batch"
                    )

    def __call__(self) -> DeviceArray | None:
        """Run the launches in order and return the result."""
        for launch in self.launches:
            self.machine.launch(launch)
        return self.result


def chain(calls: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """Return one call that makes all of these bound calls; the machine sees all their launches."""
    bound = [call for call in calls if isinstance(call, Call)]
    if len(bound) != len(calls):
        raise TypeError("a chain on a GPU takes calls that were bound there")
    launches = [launch for call in bound for launch in call.launches]
    return bound[0].machine.prepare(launches) if launches else lambda: None
