"""A bound call: the launches that one op needs, on arrays that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .arrays import DeviceArray
from .machine import Launch, Machine


class Call:
    """The launches of an op, ready to run any number of times on what its arrays then hold.

    Attributes
    ----------
    machine : Machine
    launches : tuple of Launch
    result : DeviceArray or None
        What the op returns.
    """

    __slots__ = ("launches", "machine", "result")

    def __init__(
        self, machine: Machine, launches: Sequence[Launch], result: DeviceArray | None = None
    ) -> None:
        self.machine, self.launches, self.result = machine, tuple(launches), result

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
