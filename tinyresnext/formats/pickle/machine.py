"""An interpreter for the pickle opcodes that PyTorch checkpoints use. It imports nothing and calls nothing.

A pickle is a program for a small stack machine. Python's own ``pickle`` lets that program import
any module and call what it finds there, so reading a stranger's file means running a stranger's
code. Here the machine is written out again with the dangerous half missing: a ``GLOBAL`` puts a
*name* on the stack, and ``REDUCE``, the call, is a look-up in a table of a few names whose meaning
`pickle_names` builds. A name of Python, NumPy or PyTorch that stands in no table ends the reading;
a class of which only its trainer knows becomes an object with nothing in it. A tensor comes out as
a description, a `Tensor`; its numbers are read later, once every description is known to lie inside
the file.

The opcodes are those of protocol 2 (what ``torch.save`` writes) and the few that protocols 4 and 5
use in their place. The format itself is documented in CPython's ``pickletools``.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from .arrays import ARRAY_CALLS, NDARRAY, UInt8Array, UInt8Type
from .names import (
    CALLS,
    ENCODE,
    ORDERED_DICT,
    PLACEHOLDERS,
    STORAGES,
    Global,
    Placeholder,
    Storage,
    is_stranger,
    set_item,
)

__all__ = ["MAX_OPCODES", "load"]

# The limits keep what one pickle can allocate under 64 MiB, whatever it says. The largest published
# ResNeXt, saved with an Adam optimiser and an averaged copy, needs about 100,000 opcodes, 100 kB of
# text and 15,000 memo slots.
# an opcode costs at most about 90 bytes (an empty dict and its place on the stack): 36 MB
MAX_OPCODES = 400_000
MAX_TEXT = (
    4 << 20
)  # bytes of all strings together; one emoji makes Python store four bytes per character: 16 MB
MAX_ARRAYS = (
    256 << 20
)  # the same where arrays are read; the pictures of CIFAR-100 are one text of 154 MB
MAX_MEMO = 100_000  # slots, about 100 bytes each: 10 MB
MAX_DEPTH = 1_000  # open MARKs; real files have four
MAX_NAME = 256  # bytes in one line of a GLOBAL


def load(
    stream: BinaryIO,
    *,
    persistent_load: Callable[[object], Storage] | None = None,
    max_opcodes: int = MAX_OPCODES,
    arrays: bool = False,
) -> object:
    """Interpret one pickle and leave ``stream`` just behind its STOP.

    Parameters
    ----------
    stream : binary file
        Only ``read`` and ``readline`` are used. Further pickles may follow, as in PyTorch's legacy
        format.
    persistent_load : callable, optional
        Turns a persistent id, PyTorch's ``("storage", class, key, location, numel)``, into a
        `Storage`. Without it a pickle that has persistent ids is refused.
    max_opcodes : int
        The budget; an opcode costs one, and so does each pair copied into an ``OrderedDict``.
    arrays : bool
        Read NumPy arrays of uint8 in the place of tensors: a data set, not a checkpoint. What
        Python 2 wrote as a short string is then text in Latin-1, and bytes if it is longer than
        255.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, list, tuple, dict, ``OrderedDict``, `Global`, `Storage`,
        `Tensor`, `Placeholder` or `UInt8Array`, nested. A `Global` or `Placeholder` may be of a
        class that is not known. Lists and dicts may be shared or contain themselves; keys are str
        or int.

    Raises
    ------
    UnsafeError
        The pickle names something that is not in the tables above, uses an opcode that calls or
        imports, stretches a tensor beyond its storage, or exceeds a limit.
    FormatError
        The pickle is cut short, contradicts itself, or uses an opcode that checkpoints never have.
    """
    return _Machine(stream, persistent_load, max_opcodes, arrays).run()


class _Machine:
    """The stack machine: one method for each opcode or family of opcodes."""

    def __init__(
        self,
        stream: BinaryIO,
        persistent_load: Callable[[object], Storage] | None,
        budget: int,
        arrays: bool,
    ) -> None:
        self.stream = stream
        self.arrays = arrays
        self.calls = ARRAY_CALLS if arrays else CALLS
        self.placeholders = frozenset() if arrays else PLACEHOLDERS
        self.other_names = {NDARRAY} if arrays else STORAGES
        self.persistent_load = persistent_load
        self.budget = budget
        self.text = self.most_text = MAX_ARRAYS if arrays else MAX_TEXT
        self.stack: list = []
        self.outer: list[list] = []  # the stacks below each open MARK
        self.memo: dict[int, object] = {}
        self.position = 0
        self.frame_end = 0

    def run(self) -> object:
        """Execute until STOP."""
        protocol = self.read(2)
        if protocol[0] != 0x80 or not 2 <= protocol[1] <= 5:
            raise FormatError(
                f"a pickle of protocol 2 to 5 was expected, found the bytes {protocol.hex()}"
            )
        while True:
            start = self.position
            opcode = self.read(1)[0]
            self.spend(1)
            if opcode == _STOP:
                break
            method = _OPCODES.get(opcode)
            if method is None:
                _refuse_opcode(opcode, start)
            method(self)
            if start < self.frame_end < self.position:
                raise FormatError(
                    f"the opcode at byte {start} of the pickle crosses the end of its frame"
                )
        if self.outer or len(self.stack) != 1:
            raise FormatError(
                f"the pickle ends with {len(self.stack)} objects and {len(self.outer)} open marks, not one object"
            )
        if self.position < self.frame_end:
            raise FormatError("the pickle stops before the end of its frame")
        return self.stack[0]

    # -- reading and counting

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        data = self.stream.read(count)
        if len(data) != count:
            raise FormatError(
                f"the pickle is cut short: {count} bytes were expected at {self.position}, {len(data)} are there"
            )
        self.position += count
        return data

    def number(self, layout: str) -> int:
        """One number of fixed size."""
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def payload(self, layout: str) -> bytes:
        """A length and that many bytes."""
        count = self.number(layout)
        self.text -= count
        if count < 0 or self.text < 0:
            raise UnsafeError(
                f"the pickle declares a text of {count} bytes; all texts together may have {self.most_text}"
            )
        return self.read(count)

    def spend(self, steps: int) -> None:
        """Count work against the budget."""
        self.budget -= steps
        if self.budget < 0:
            raise UnsafeError(
                "the pickle has more opcodes than any checkpoint needs; save only model.state_dict()"
            )

    def push(self, value: object) -> None:
        """Put an object on top."""
        self.stack.append(value)

    def pop(self) -> object:
        """The object on top, not reaching below the last MARK."""
        if not self.stack:
            raise FormatError(
                f"the pickle takes an object from an empty stack at byte {self.position}"
            )
        return self.stack.pop()

    def pop_mark(self) -> list:
        """Everything since the last MARK."""
        if not self.outer:
            raise FormatError(
                f"the pickle closes a mark that was never opened at byte {self.position}"
            )
        items, self.stack = self.stack, self.outer.pop()
        return items

    def top(self, kinds: tuple[type, ...], action: str) -> object:
        """The object on top, which must be exactly of one of these types."""
        if not self.stack or type(self.stack[-1]) not in kinds:
            found = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise UnsafeError(
                f"the pickle wants to {action} {found}; only {kinds[0].__name__} is allowed"
            )
        return self.stack[-1]

    # -- opcodes

    def frame(self) -> None:
        """Note where a frame of protocol 4 ends; frames neither nest nor overlap."""
        if self.position <= self.frame_end:
            raise FormatError("a frame of the pickle begins inside another")
        self.frame_end = self.position + 8 + self.number("<Q")

    def mark(self) -> None:
        """Open a level of the stack."""
        if len(self.outer) >= MAX_DEPTH:
            raise UnsafeError(f"the pickle nests deeper than {MAX_DEPTH}")
        self.outer.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        """Replace the last ``count`` objects by their tuple."""
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def old_string(self, layout: str) -> None:
        """Push what Python 2 called a string: text in a checkpoint, text or bytes beside arrays."""
        if not self.arrays:
            self.string(layout)
        else:
            data = self.payload(layout)
            self.stack.append(data.decode("latin-1") if len(data) < 256 else data)

    def string(self, layout: str) -> None:
        """Push a text."""
        try:
            self.stack.append(self.payload(layout).decode("utf-8"))
        except UnicodeDecodeError:
            raise FormatError(
                f"a text before byte {self.position} of the pickle is not UTF-8"
            ) from None

    def long_string(self) -> None:
        """Push a text, but pass over one that is an array's bytes: the history of a loss may be longer than all names."""
        if self.arrays or not self.stack or self.stack[-1] != ENCODE:
            return self.string("<I")
        left = self.number("<I")
        while left:
            left -= len(self.read(min(left, 1 << 16)))
        self.stack.append(Placeholder(ENCODE))

    def put(self, index: int) -> None:
        """Remember the object on top. A slot is written once: rewriting one only serves to mislead other readers."""
        if not 0 <= index < MAX_MEMO:
            raise UnsafeError(f"the pickle asks for memo slot {index}; the limit is {MAX_MEMO}")
        if index in self.memo or not self.stack:
            raise FormatError(
                f"memo slot {index} is written twice, or with nothing to write, at byte {self.position}"
            )
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """Push a remembered object."""
        if index not in self.memo:
            raise FormatError(
                f"memo slot {index} is read before it is written, at byte {self.position}"
            )
        self.stack.append(self.memo[index])

    def global_name(self) -> None:
        """Push a name given as two lines."""
        lines = [self.stream.readline(MAX_NAME) for _ in range(2)]
        self.position += len(lines[0]) + len(lines[1])
        if not all(line.endswith(b"\n") for line in lines):
            raise FormatError(
                f"a name before byte {self.position} of the pickle is cut short or longer than {MAX_NAME} bytes"
            )
        try:
            self.push_global(*(line[:-1].decode("utf-8") for line in lines))
        except UnicodeDecodeError:
            raise FormatError(
                f"a name before byte {self.position} of the pickle is not UTF-8"
            ) from None

    def stack_global(self) -> None:
        """Push a name given as two strings on the stack."""
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise UnsafeError("the pickle builds a name from something that is not text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        """Push a name if it is one that we know, or end the reading."""
        found = Global(module, name)
        if found not in self.calls and found not in self.other_names and not self.is_empty(found):
            if self.arrays:
                raise UnsafeError(
                    f"the file names {found}, which no data set needs and which was neither imported nor run"
                )
            raise UnsafeError(
                f"the file names {found}, which is not part of a state dict and was neither imported nor run; if the file "
                "holds a whole model, load it where you trust it and save only model.state_dict()"
            )
        self.stack.append(found)

    def is_empty(self, cls: Global) -> bool:
        """Whether objects of this class are kept without what is in them."""
        return cls in self.placeholders or (not self.arrays and is_stranger(cls))

    def is_strange(self) -> bool:
        """Whether the object on top is one of a class that is not known, which takes and forgets all."""
        return (
            bool(self.stack)
            and type(self.stack[-1]) is Placeholder
            and is_stranger(self.stack[-1].cls)
        )

    def reduce(self) -> None:
        """What would be a call: look the name up and build its meaning ourselves."""
        arguments, callee = self.pop(), self.pop()
        if type(callee) is not Global or type(arguments) is not tuple:
            raise UnsafeError(
                f"the pickle calls a {type(callee).__name__} with a {type(arguments).__name__}"
            )
        if self.is_empty(callee):
            self.stack.append(Placeholder(callee))
        elif callee in self.calls:
            if callee == ORDERED_DICT and arguments and type(arguments[0]) is list:
                self.spend(len(arguments[0]))
            self.stack.append(self.calls[callee](arguments))
        else:
            raise UnsafeError(f"the pickle calls {callee}, which only names a type")

    def new_object(self) -> None:
        """A new instance without a call: only what is kept empty has one."""
        arguments, cls = self.pop(), self.pop()
        if type(cls) is not Global or not self.is_empty(cls) or type(arguments) is not tuple:
            raise UnsafeError(
                f"the pickle makes an instance of {cls if type(cls) is Global else type(cls).__name__}"
            )
        self.stack.append(Placeholder(cls))

    def build(self) -> None:
        """Set attributes. A state dict carries one, ``_metadata``, which is dropped; so is all that a placeholder gets."""
        state = self.pop()
        target = self.top((OrderedDict, Placeholder, UInt8Array, UInt8Type), "set attributes of")
        if type(target) in (UInt8Array, UInt8Type):
            target.set_state(state)
        elif type(target) is OrderedDict and (
            type(state) is not dict or set(state) != {"_metadata"}
        ):
            raise UnsafeError("the pickle sets attributes of an OrderedDict other than _metadata")

    def append(self, items: list) -> None:
        """Extend the list on top."""
        if not self.is_strange():
            self.top((list,), "append to").extend(items)

    def set_items(self, items: list) -> None:
        """Fill the dict on top with key, value, key, value."""
        if self.is_strange():
            return
        target = self.top((dict, OrderedDict), "set items of")
        if len(items) % 2:
            raise FormatError("a dict in the pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

    def persistent_id(self) -> None:
        """Replace a persistent id by the storage it names."""
        if self.persistent_load is None:
            raise UnsafeError("the pickle refers to data outside itself where there is none")
        self.stack.append(self.persistent_load(self.pop()))


def _refuse_opcode(opcode: int, position: int) -> None:
    """Say what kind of opcode this is."""
    where = f"the opcode 0x{opcode:02x} at byte {position} of the pickle"
    if bytes([opcode]) in (b"i", b"o", b"\x92", b"\x82", b"\x83", b"\x84", b"P", b"0", b"1", b"2"):
        raise UnsafeError(f"{where} imports, calls or hides objects, which no state dict needs")
    raise FormatError(
        f"{where} is not one that checkpoints have; the file is damaged or of another kind"
    )


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Machine], None]] = {
    ord(")"): lambda m: m.push(()),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.push(int.from_bytes(m.payload("<B"), "little", signed=True)),
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): _Machine.long_string,
    0x8C: lambda m: m.string("<B"),
    ord("T"): lambda m: m.old_string("<i"),
    ord("U"): lambda m: m.old_string("<B"),
    ord("B"): lambda m: m.push(m.payload("<I")),
    ord("C"): lambda m: m.push(m.payload("<B")),
    ord("("): _Machine.mark,
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
    ord("c"): _Machine.global_name,
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.new_object,
    ord("b"): _Machine.build,
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("Q"): _Machine.persistent_id,
    0x95: _Machine.frame,
}
