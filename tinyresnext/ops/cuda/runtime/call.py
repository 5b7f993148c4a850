"""A bound call: the launches that one op needs, on arrays that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ....errors import DeviceError
from .arrays import DeviceArray, Scratch
from .machine import ALIGNED, Launch, Machine, Memory

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
        """Run the launches in order and return the result.

        Scratch has its place only meanwhile: the next call of this thread may be in the same room.
        """
        placed = give_room([self], self.machine.room)
        try:
            for launch in self.launches:
                self.machine.launch(launch)
        finally:
            for one in placed:
                one.within = None
        return self.result


def give_room(calls: Sequence[Call], allocate: Callable[[int], Memory]) -> list[Scratch]:
    """Place and return the scratch of calls that run one after the other: all begin together."""
    waiting = [list(unplaced(call)) for call in calls]
    sizes = [sum(-(-one.size // ALIGNED) * ALIGNED for one in some) for some in waiting]
    if not max(sizes, default=0):
        return []
    room = allocate(max(sizes))
    for some in waiting:
        start = 0
        for one in some:
            one.place(room, start)
            start += -(-one.size // ALIGNED) * ALIGNED
    return [one for some in waiting for one in some]


def unplaced(call: Call) -> Iterator[Scratch]:
    """Return the scratch of a call that has no place yet, each once."""
    seen: set[int] = set()
    for launch in call.launches:
        for array in launch.arguments:
            memory = array.memory if isinstance(array, DeviceArray) else None
            if isinstance(memory, Scratch) and memory.within is None and id(memory) not in seen:
                seen.add(id(memory))
                yield memory


def chain(calls: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """Return one call that makes all of these bound calls; the machine sees all their launches."""
    bound = [call for call in calls if isinstance(call, Call)]
    if len(bound) != len(calls):
        raise TypeError("a chain on a GPU takes calls that were bound there")
    launches = [launch for call in bound for launch in call.launches]
    if not launches:
        return lambda: None
    machine = bound[0].machine
    give_room(bound, machine.allocate)
    return machine.prepare(launches)
