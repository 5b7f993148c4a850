"""What a plan looks like when it is printed, and how long its steps take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING

from ..count import macs
from ..tape import Call

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True)
class Profile:
    """The time that each step of a plan took, in seconds; ``print`` shows it."""

    plan: Plan
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        plan = self.plan
        # A step is made again and again until all samples of the mini-batch have gone through it.
        times = [plan.at_once // shape[0] for shape in plan.shapes]
        total = sum(map(mul, self.seconds, times))
        lines = [f"{_HEADER}        ms  share  GFLOP/s"]
        steps = zip(plan.calls, plan.shapes, plan.places, self.seconds, times, strict=True)
        for call, shape, place, s, count in steps:
            speed = 2 * macs(call, shape) / s / 1e9
            row = _row(call, shape, place)
            lines.append(f"{row}  {s * 1e3:8.3f}  {s * count / total:5.1%}  {speed:7.1f}")
        last = f"{total * 1e3:.2f} ms in all"
        if plan.at_once > 1:
            last += f" for {plan.at_once} samples"
        return "\n".join([*lines, last])


def table(plan: Plan) -> str:
    """Return a plan as a table, a row for each step."""
    steps = list(zip(plan.calls, plan.shapes, plan.places, strict=True))
    total = sum(2 * macs(call, shape) * plan.at_once // shape[0] for call, shape, _ in steps)
    memory = f"{len(plan.buffers)} buffers of {plan.bytes / 2**20:.1f} MiB in all"
    head = f"input {' x '.join(map(str, plan.x_shape))}"
    if {part.together for part in plan.sections} != {plan.x_shape[0]}:
        parts = [f"{p.together} from {plan.calls[p.first].name} on" for p in plan.sections]
        head += f"; samples together: {', '.join(parts)}"
    last = f"{len(steps)} steps, {total / 1e9:.2f} GFLOP, {memory}"
    if plan.at_once != plan.x_shape[0]:
        last += f", for {plan.at_once} samples"
    return "\n".join([head, _HEADER, *(_row(*step) for step in steps), last])


_HEADER = (
    f"{'step':24} {'op':11} {'result':>19}  {'kernel':>6} {'stride':>6} {'groups':>6}  "
    f"{'fused':24} {'MFLOP':>8} {'buffer':>6}"
)


def _row(call: Call, shape: Sequence[int], place: int) -> str:
    """Return one line of the table."""
    kernel = call.attrs.get("size", "")
    if call.op in ("conv2d", "conv2d_int8"):
        kernel = "x".join(map(str, call.args[1].shape[2:]))
    result = " x ".join(map(str, shape))
    stride, groups = call.attrs.get("stride", ""), call.attrs.get("groups", "")
    return (
        f"{call.name:24} {call.op:11} {result:>19}  {kernel!s:>6} {stride!s:>6} {groups!s:>6}  "
        f"{' '.join(call.fused):24} {2 * macs(call, shape) / 1e6:8.1f} {place:6}"
    )
