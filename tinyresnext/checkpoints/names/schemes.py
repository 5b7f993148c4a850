"""Other systems' key names -> torchvision's.

Where torchvision has no such network (the deep stem, average-pooled shortcuts), the names are
timm's. Each system names the same tree of modules in its own way. A scheme is recognised from the
keys alone: it is the first in `SCHEMES` that leaves no key over. Then every parameter has a name of
torchvision's, the keys that it is made of, and a `Layout` that makes it of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

from numpy.typing import NDArray

from ...errors import FormatError, WeightsError
from ..readers.checkpoint import OnDemand
from . import module_tree, pytorch
from .keras import keras
from .layouts import Part, Reading, Shape

__all__ = [
    "CADENE",
    "KERAS",
    "MMPRETRAIN",
    "PRLZ77",
    "SCHEMES",
    "TIMM_D",
    "TORCH7",
    "TORCHVISION",
    "Names",
    "recognise",
]

T = TypeVar("T")


class Scheme(NamedTuple):
    """How one system names parameters: the function that reads its keys, and a few examples."""

    read: Callable[[Collection[str]], Reading]
    examples: str


class Names(NamedTuple):
    """A checkpoint whose names are understood.

    Attributes
    ----------
    scheme : str
        A key of `SCHEMES`.
    parts : dict of str to (tuple of str, Layout)
        Torchvision's name of each parameter, in the file's order: the keys that it is made of, and
        how.
    left_out : tuple of str
        Keys that were recognised and are not needed, except for those that count training steps.
    """

    scheme: str
    parts: dict[str, Part]
    left_out: tuple[str, ...]

    def shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Return the parameters' shapes, from those of the checkpoint's tensors.

        Raises
        ------
        FormatError
            A tensor has no shape that its layout can have.
        """
        return {
            name: _applied(name, layout.shape, [shapes[key] for key in keys])
            for name, (keys, layout) in self.parts.items()
        }

    def tensors(self, arrays: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
        """Return the parameters, each made of the checkpoint's tensors when it is asked for.

        Where nothing changes, it is the same array.

        Raises
        ------
        IntegrityError
            A tensor that must have certain values has others.
        """

        def made(name: str) -> NDArray:
            keys, layout = self.parts[name]
            return _applied(name, layout.array, [arrays[key] for key in keys])

        return OnDemand(self.parts, made)


def recognise(keys: Collection[str]) -> Names:
    """Find out whose names these are.

    Parameters
    ----------
    keys : collection of str
        As a checkpoint has them, with the prefixes of wrappers already removed.

    Returns
    -------
    Names

    Raises
    ------
    FormatError
        No scheme fits all keys, or two keys are the same parameter. The message names the scheme
        that fits best and the first keys that do not belong to it.
    """
    present = set(keys)
    # mmcv's averaging hook keeps averaged copies among the other tensors
    copies = {"ema_" + key.replace(".", "_") for key in present} & present
    counters = {key for key in present if key.endswith(".num_batches_tracked")}
    counters = {key for key in counters if key.replace("num_batches_tracked", "weight") in present}
    wanted = [key for key in keys if key not in copies and key not in counters]
    readings = {name: scheme.read(wanted) for name, scheme in SCHEMES.items()}
    scheme, (parts, foreign) = min(readings.items(), key=lambda item: len(item[1][1]))
    order = {key: index for index, key in enumerate(keys)}
    if not foreign:
        in_order = sorted(parts.items(), key=lambda item: order[item[1][0][0]])
        return Names(scheme, dict(in_order), tuple(sorted(copies, key=order.__getitem__)))
    foreign.sort(key=order.__getitem__)
    shown = ", ".join(ascii(key[:80]) for key in foreign[:3]) + (" ..." if len(foreign) > 3 else "")
    if parts:
        blame = f"not those of a ResNeXt in the nearest scheme, {scheme}, or stand twice"
    else:
        blame = f"not those of a ResNeXt in any scheme of {', '.join(SCHEMES)}"
    raise FormatError(
        f"{len(foreign)} of {len(keys)} keys are {blame}: {shown}; expected keys such as "
        f"{SCHEMES[scheme].examples}"
    )


def _applied(name: str, change: Callable[[Sequence[T]], T], pieces: Sequence[T]) -> T:
    """Apply a layout's function, and put the name of the parameter into its errors."""
    try:
        return change(pieces)
    except WeightsError as error:
        raise type(error)(f"{name}: {error}") from None


TORCHVISION, TIMM_D, MMPRETRAIN = "torchvision", "timm's variants d", "mmpretrain"
CADENE, PRLZ77, TORCH7, KERAS = "Cadene", "prlz77", "Torch7", "Keras"
SCHEMES: Mapping[str, Scheme] = {
    TORCHVISION: Scheme(
        pytorch.torchvision, "'conv1.weight', 'layer1.0.conv2.weight' and 'fc.bias'"
    ),
    TIMM_D: Scheme(
        pytorch.timm_d, "'conv1.0.weight', 'layer1.0.downsample.1.weight' and 'fc.bias'"
    ),
    MMPRETRAIN: Scheme(
        pytorch.mmpretrain,
        "'backbone.conv1.weight', 'backbone.layer1.0.conv2.weight' and 'head.fc.bias'",
    ),
    CADENE: Scheme(
        pytorch.cadene, "'features.0.weight', 'features.4.0.0.0.0.3.weight' and 'last_linear.bias'"
    ),
    PRLZ77: Scheme(
        pytorch.prlz77,
        "'conv_1_3x3.weight', 'stage_1.stage_1_bottleneck_0.conv_conv.weight' and "
        "'classifier.bias'",
    ),
    TORCH7: Scheme(module_tree.to_torchvision, "'0.weight', '4.0.0.0.0.3.weight' and '10.bias'"),
    KERAS: Scheme(
        keras, "'conv1_conv/kernel:0', 'conv2_block1_2_conv/depthwise_kernel:0' and 'probs/bias:0'"
    ),
}
