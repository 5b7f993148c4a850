"""What a reader of other people's files returns: a `Checkpoint`, and the tensors stored in it.

A reader first finds out which tensors there are and where their numbers lie (`Listed`), without
reading these. Then `examine.finish` judges names, shapes and numbers. After that a tensor is read
whenever it is asked for, so a network is converted without being in memory as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from numpy.typing import NDArray

from ...errors import FormatError
from ...formats.dtypes import Number
from ...network.spec import Spec
from ...system.files import pieces

__all__ = [
    "CARRIED_KEY",
    "CARRIED_MEMBER",
    "CARRIED_NAME",
    "MAX_CARRIED",
    "MAX_NAME",
    "MAX_TENSORS",
    "Check",
    "Checkpoint",
    "Layers",
    "Listed",
    "Look",
    "OnDemand",
    "Stored",
    "Window",
    "checked_name",
    "is_dense",
    "viewed",
]

MAX_TENSORS = 20_000  # a ResNeXt-101 has 626
MAX_NAME = 256  # characters of a tensor's name

# Where `carried.written` lies: a key of safetensors' metadata, an array of bytes in an .npz under a
# name that no tensor can have, a member in the root folder of a .pth.
CARRIED_KEY, CARRIED_NAME, CARRIED_MEMBER = "tinyresnext", "__tinyresnext__", "tinyresnext.json"
# bytes; 20,000 labels need 500 KB, and escaped they must fit into the header of a safetensors file
MAX_CARRIED = 3 << 18

# Receives a tensor's name, the index of the first of some of its numbers in C order (None if the
# numbers do not come in C order), and these numbers; raises if they are not wanted.
Look = Callable[[str, int | None, NDArray], None]
# Receives names and shapes, what tinyresnext wrote beside them (b"" if nothing) and the
# architecture of a graph (None for other files), raises if they are not wanted, and may return a
# `Look`.
Check = Callable[[dict[str, tuple[int, ...]], bytes, Spec | None], Look | None]

# Keras has paths in its names, and a colon at the end
_NAME = re.compile(r"(?!__)[\w:-]+([./](?!__)[\w:-]+)*", re.ASCII)


class Window(NamedTuple):
    """How a window slides over a map: along the height, and along the width."""

    size: tuple[float, float]
    stride: tuple[float, float]
    padding: tuple[float, float]
    dilation: tuple[float, float]
    ceil: bool = False

    def __str__(self) -> str:
        """Return the window as messages call it."""
        pairs = zip(("size", "stride", "padding", "dilation"), self[:4], strict=True)
        said = ", ".join(f"{name} {h:g} x {w:g}" for name, (h, w) in pairs)
        return said + (" and ceil_mode" if self.ceil else "")


class Layers(NamedTuple):
    """The layers of a network that have windows, each None if the file does not say it.

    Attributes
    ----------
    convolutions : dict of str to Window
        By the names of their weights.
    pools : dict of str to Window
        The max poolings in order, by their places.
    """

    convolutions: dict[str, Window | None]
    pools: dict[str, Window | None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds, and where in it the weights were found.

    Attributes
    ----------
    tensors : mapping of str to ndarray
        In the file's order and in the container's own names and orientation; ``prefix`` is removed.
        Independent C-contiguous arrays: half, bfloat16 and double as float32 (exactly, double to
        the nearest), bool and integers as they are. As long as the file is open, each is read from
        it when it is asked for.
    shapes : dict of str to tuple of int
        Of the tensors.
    container : str
        ``"zip"``, ``"legacy"`` or ``"tar"`` (of PyTorch), ``"paddle"``, ``"safetensors"``,
        ``"npz"``, ``"torch7"``, ``"keras"``, ``"onnx"``.
    wrapper : str
        The key under which the weights were found (``"state_dict"``, ``"model_ema"``...), ``""`` at
        the top.
    others : tuple of str
        Keys under which the file holds further weights that were not taken.
    prefix : str
        What was removed from the front of every name, such as ``"module."``.
    skipped : tuple of str
        Entries left out because they are no tensors (text, None, a plain number), or single
        numbers that are whole or called a result, and the counter of an averaged model.
    sha256 : str
        Of the whole file, in hexadecimal.
    carried : bytes
        What tinyresnext wrote beside the tensors, not yet understood; empty if nothing.
    spec : Spec, optional
        The architecture, where the file is a graph, which says all of it.
    remarks : tuple of str
        What the reader found out of the network, for people.
    eps : float, optional
        The epsilon of all batch norms, where the file says it.
    layers : Layers, optional
        Where the file has all modules of the network, and not only tensors.
    called : str
        What a training script wrote into a ``.pth`` as the name of the architecture (``arch``).
    """

    tensors: Mapping[str, NDArray]
    shapes: dict[str, tuple[int, ...]]
    container: str
    wrapper: str
    others: tuple[str, ...]
    prefix: str
    skipped: tuple[str, ...]
    sha256: str
    carried: bytes = b""
    spec: Spec | None = None
    remarks: tuple[str, ...] = ()
    eps: float | None = None
    called: str = ""
    layers: Layers | None = None


class OnDemand(Mapping[str, NDArray]):
    """Arrays by name, each made anew whenever it is asked for, so that not all are in memory."""

    def __init__(self, names: Iterable[str], make: Callable[[str], NDArray]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> NDArray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Stored(NamedTuple):
    """A tensor in the file.

    Attributes
    ----------
    kind : Number
        The type of its numbers.
    shape : tuple of int
    numel : int
        How many numbers are read.
    pieces : callable
        Begins to read at the first number of the tensor, and yields whole numbers; raises at the
        end if a checksum differs.
    stride : tuple of int, optional
        Counts numbers; None for C order.
    """

    kind: Number
    shape: tuple[int, ...]
    numel: int
    pieces: Callable[[], Iterator[memoryview]]
    stride: tuple[int, ...] | None = None


class Listed(NamedTuple):
    """What a reader finds in a file before any number of a tensor is judged.

    Attributes
    ----------
    stored : dict of str to Stored
        The tensors.
    container, wrapper, others, prefix, skipped, carried
        As in `Checkpoint`.
    besides : mapping of str to Stored
        Storages of which the tensors have parts: they must be read through without an error.
    spec, remarks, eps, called, layers
        As in `Checkpoint`.
    files : sequence of binary file
        Other open files in which tensors lie.
    """

    stored: dict[str, Stored]
    container: str
    wrapper: str = ""
    others: Sequence[str] = ()
    prefix: str = ""
    skipped: Sequence[str] = ()
    carried: bytes = b""
    besides: Mapping[str, Stored] = MappingProxyType({})
    spec: Spec | None = None
    remarks: Sequence[str] = ()
    eps: float | None = None
    called: str = ""
    layers: Layers | None = None
    files: Sequence[BinaryIO] = ()


def viewed(
    file: BinaryIO,
    kind: Number,
    start: int,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    what: str,
) -> Stored:
    """Return a tensor that is a view of numbers in a file: exactly the range that it spans is read.

    Parameters
    ----------
    file : binary file
    kind : Number
        The type of the numbers.
    start : int
        The byte at which the numbers begin.
    offset, shape, stride
        Of the view; ``offset`` and ``stride`` count numbers.
    what : str
        What the numbers are, for messages.
    """
    width = kind.itemsize
    numel = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    plain = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    same = numel == 0 or all(n == 1 or s == p for n, s, p in zip(shape, stride, plain, strict=True))
    read = partial(pieces, file, start + offset * width, numel * width, what)
    return Stored(kind, shape, numel, read, None if same else stride)


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return whether all numbers that are spanned are the tensor's own.

    They are if its axes are those of a C-ordered array in any order, some of them repeated.
    """
    expected = 1
    if 0 in shape:
        return True
    for step, n in sorted((s, n) for n, s in zip(shape, stride, strict=True) if n > 1 and s):
        if step != expected:
            return False
        expected *= n
    return True


def checked_name(name: object) -> str:
    """Return a name that a network's tensors can have.

    Raises
    ------
    FormatError
        It is not such a name.
    """
    if type(name) is not str or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise FormatError(
            f"{ascii(name)[:80]} is not a name that a network's tensors have; save only the weights"
        )
    return name
