"""One image's way through a network, op by op, with every value kept for the gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..inference.inputs import shapes_that_fit
from ..inference.model import Model
from ..network.resnext import Block, blocks
from ..network.rewrite import fold_batch_norm
from ..network.tape import Call, Tape, gradients
from ..network.trace import Trace, replay, trace
from ..ops.contract import Array, Backend
from ..ops.reference.elementwise import sigmoid

__all__ = ["Recorded", "record"]

COPIES = 5  # of the image; so many gradients are computed in one backward pass


@dataclass(frozen=True, eq=False)
class Recorded:
    """The forward pass of one image, with the batch norms folded and nothing else fused.

    The mini-batch is some copies of the image, so that a single backward pass computes the
    gradients of as many logits.

    Attributes
    ----------
    model : Model
    x : [copies, h, w, channels] float32
        The normalised image.
    last : dict of str to Call
        The convolutions at the end of the paths, by the name of their block, with their weights in
        NumPy's memory. As all convolutions, they have the factor and the shift of the batch norm
        after them.
    made : dict of str to Call
        All ops by torchvision's name, with weights, inputs and results in the backend's memory.
    tape : Tape
    """

    model: Model
    x: np.ndarray
    last: dict[str, Call]
    made: dict[str, Call]
    tape: Tape

    @property
    def ops(self) -> Backend:
        """Return the backend that has computed."""
        return self.model.ops

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks, in order."""
        return tuple(blocks(self.model.spec))

    @property
    def stages(self) -> dict[str, str]:
        """Return the name of each stage's output, by the stage's name: layer1, layer2 ..."""
        return {b.name.partition(".")[0]: f"{b.name}.relu_2" for b in self.blocks}

    def value(self, name: str) -> np.ndarray:
        """Return an intermediate value of the image: [h, w, c]."""
        return self.here(self.made[name].out)[0]

    def inner(self, block: Block) -> np.ndarray:
        """Return what the last layer of a block's paths reads: [h, w, channels]."""
        return self.here(self.made[f"{block.name}.conv3"].args[0])[0]

    def scale(self, block: Block) -> np.ndarray | None:
        """Return by what squeeze and excitation multiplies each channel of a block: [c_out]."""
        if not self.model.spec.se_reduction:
            return None
        return sigmoid(self.here(self.made[f"{block.name}.se"].args[1])[0, 0, 0])

    def shortcut(self, block: Block) -> np.ndarray:
        """Return what the shortcut of a block adds: [h, w, c_out]."""
        return self.here(self.made[f"{block.name}.add"].args[1])[0]

    def here(self, value: Array) -> np.ndarray:
        """Return a copy of a value in NumPy's memory."""
        return np.array(self.ops.download(value))

    def gradients(self, numbers: Sequence[int], names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the gradients [classes, h, w, c] of the logits of some classes for named values.

        One backward pass computes them for as many classes as there are copies, for all values.
        """
        names, found = list(names), list[list[np.ndarray]]()
        wanted, copies = [self.made[name].out for name in names], len(self.x)
        for first in range(0, len(numbers), copies):
            some = numbers[first : first + copies]
            rows = np.zeros((copies, self.model.spec.classes), np.float32)
            rows[range(len(some)), some] = 1
            with self.running():
                slopes = gradients(self.tape, self.ops.upload(rows), wanted)
                found.append([self.here(slope)[: len(some)] for slope in slopes])
        return {name: np.concatenate(parts) for name, *parts in zip(names, *found, strict=True)}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Compute in the ``with`` block on as many threads as the model does."""
        with self.ops.on_threads(self.ops.thread_count(self.model.threads)):
            yield


def record(model: Model, x: np.ndarray, copies: int = 1) -> Recorded:
    """Run a network for some copies of one normalised image [h, w, channels]; keep every value.

    Raises
    ------
    UsageError
        The network leaves nothing of an image of that size.
    """
    batch, tape = np.repeat(x[None], copies, axis=0), Tape(model.ops)
    with shapes_that_fit(model.spec):
        traced = trace(model.params, model.spec, batch.shape)
    calls = fold_batch_norm(traced.calls)
    names, end = [call.name for call in calls], ".conv3"
    last = {call.name.removesuffix(end): call for call in calls if call.name.endswith(end)}
    recorded = Recorded(model, batch, last, {}, tape)
    with recorded.running():
        _place(traced, calls, model.ops)
        replay(calls, traced.x, model.ops.upload(batch), tape)
    return replace(recorded, made=dict(zip(names, tape.calls, strict=True)))


def _place(traced: Trace, calls: list[Call], ops: Backend) -> None:
    """Bring weights into the backend's memory, in place: of most of them only one copy is kept."""
    values = {id(call.out) for call in calls} | {id(traced.x)}
    for t, call in enumerate(calls):
        args = (a if a is None or id(a) in values else ops.upload(a) for a in call.args)
        calls[t] = replace(call, args=tuple(args))
