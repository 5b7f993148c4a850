"""The strides and paddings that a file states beside its tensors, as Torch7's networks do.

They leave no trace in tensors, so a network with others has the names and shapes of a usual one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import ShapeError
from ...network.resnext import parameters
from ...network.spec import Spec
from ...network.tape import Call, stand_in
from ...network.trace import trace
from ..names.schemes import Names
from ..readers.checkpoint import Layers, Window

__all__ = ["compare"]


def compare(layers: Layers, named: Names, spec: Spec) -> None:
    """Raise `ShapeError` unless the windows that a file states are those of the network.

    Parameters
    ----------
    layers : Layers
        What the file states.
    named : Names
        Which parameter each of its tensors is.
    spec : Spec
        The network, as it will be computed.
    """
    convolutions, pools = _windows(spec)
    for name, window in convolutions.items():
        for key in named.parts[name][0]:
            if layers.convolutions.get(key) not in (None, window):
                raise _differs(f"the convolution {key}", layers.convolutions[key], window)
    own = [one for one in layers.pools.items() if one[0].startswith(named.prefix)]
    if len(own) != len(pools):
        raise ShapeError(
            f"the file has {len(own)} max poolings, and the network {len(pools)}; if the "
            "stem is another one, say --stem NAME"
        )
    for (where, found), window in zip(own, pools, strict=True):
        if found not in (None, window):
            raise _differs(f"the max pooling {where}", found, window)


def _differs(what: str, found: Window | None, expected: Window) -> ShapeError:
    """Return the error for a layer that slides in another way."""
    return ShapeError(
        f"{what} has {found}; expected {expected}; the network strides, pads or dilates in another "
        "way than a ResNeXt, so use other weights, or say --output-stride if its last stages dilate"
    )


def _windows(spec: Spec) -> tuple[dict[str, Window], list[Window]]:
    """Return the window of each convolution, by the name of its weight, and those of max poolings.

    They are those of the calls that the network makes for an image that is large enough.
    """
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    names = {id(array): name for name, array in params.items()}
    side = 2 ** (len(spec.blocks) + 5)
    calls = trace(params, spec, (1, side, side, spec.channels)).calls
    convolutions = {
        names[id(call.args[1])]: _window(call, call.args[1].shape[2])
        for call in _called(calls, "conv2d")
        if id(call.args[1]) in names
    }
    return convolutions, [_window(c, c.attrs["size"]) for c in _called(calls, "max_pool2d")]


def _called(calls: list[Call], op: str) -> Iterator[Call]:
    """Yield the calls of an op."""
    return (call for call in calls if call.op == op)


def _window(call: Call, size: int) -> Window:
    """Return how the window of a call slides."""
    stride, padding, dilation, ceil = (
        call.attrs.get(name, usual)
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("ceil_mode", False))
    )
    return Window((size, size), (stride, stride), (padding, padding), (dilation, dilation), ceil)
