"""An interpreter for the pickle opcodes that PyTorch checkpoints use. It imports and calls nothing.

A pickle is a program for a small stack machine. Python's own ``pickle`` lets that program import
any module and call what it finds there, so reading a file that is not trusted means running its
code. Here the machine is written again without the dangerous half: a ``GLOBAL`` puts a *name* on
the stack, and ``REDUCE``, the call, looks up in a table (a `Vocabulary`) what a few names mean. A
name that the vocabulary does not permit ends the reading.

The opcodes are those of protocol 2 (what ``torch.save`` writes) and the few that protocols 4 and 5
use in their place. The format itself is documented in CPython's ``pickletools``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from .source import Source
from .stack import Stack
from .vocabulary import Global, Placeholder, Vocabulary, set_item

__all__ = ["MAX_OPCODES", "load"]

# With the limits on texts, memo and depth, this keeps what one pickle of a checkpoint can allocate
# under 64 MiB, whatever it says. The largest published ResNeXt, saved with an Adam optimiser and an
# averaged copy, needs about 100,000 opcodes, 100 kB of text and 15,000 memo slots. An opcode costs
# at most about 90 bytes (an empty dict and its place on the stack): 36 MB.
MAX_OPCODES = 400_000


def load(
    stream: BinaryIO,
    vocabulary: Vocabulary,
    *,
    persistent_load: Callable[[object], object] | None = None,
    max_opcodes: int = MAX_OPCODES,
) -> object:
    """Interpret one pickle and leave ``stream`` just behind its STOP.

    Parameters
    ----------
    stream : binary file
        Only ``read`` and ``readline`` are used. Further pickles may follow, as in PyTorch's legacy
        format.
    vocabulary : Vocabulary
        What the pickle may name.
    persistent_load : callable, optional
        Turns a persistent id, such as PyTorch's ``("storage", class, key, location, numel)``, into
        an object. Without it a pickle that has persistent ids is refused.
    max_opcodes : int
        The budget; an opcode costs one, and so does each item of a list that a call receives.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, list, tuple, dict, `Global`, `Placeholder`, and what the
        vocabulary's calls build, nested. Lists and dicts may be shared or contain themselves; keys
        are str or int.

    Raises
    ------
    UnsafeError
        The pickle names something that the vocabulary does not permit, uses an opcode that calls or
        imports, or exceeds a limit; or a call of the vocabulary refuses its arguments.
    FormatError
        The pickle is cut short, contradicts itself, or uses an opcode that checkpoints never have.
    """
    return _Machine(stream, vocabulary, persistent_load, max_opcodes).run()


class _Machine:
    """The stack machine: one method for each opcode or family of opcodes."""

    def __init__(
        self,
        stream: BinaryIO,
        vocabulary: Vocabulary,
        persistent_load: Callable[[object], object] | None,
        budget: int,
    ) -> None:
        self.source = Source(stream, vocabulary.most_text)
        self.vocabulary = vocabulary
        self.persistent_load = persistent_load
        self.budget = budget
        self.stack = Stack(self.source)

    def run(self) -> object:
        """Execute until STOP, and return the one object that is left."""
        protocol = self.source.read(2)
        if protocol[0] != 0x80 or not 2 <= protocol[1] <= 5:
            raise FormatError(
                f"a pickle of protocol 2 to 5 was expected, found the bytes {protocol.hex()}"
            )
        while True:
            start = self.source.position
            opcode = self.source.read(1)[0]
            self.spend(1)
            if opcode == _STOP:
                break
            method = _OPCODES.get(opcode)
            if method is None:
                raise _refusal(opcode, start)
            method(self)
            self.source.check_frame(start)
        result = self.stack.last()
        if self.source.position < self.source.frame_end:
            raise FormatError("the pickle stops before the end of its frame")
        return result

    def spend(self, steps: int) -> None:
        """Count work against the budget."""
        self.budget -= steps
        if self.budget < 0:
            raise UnsafeError(
                "the pickle has more opcodes than any checkpoint needs; save only "
                "model.state_dict()"
            )

    # -- texts and names

    def string(self, layout: str, read: Callable[[bytes], object] = bytes.decode) -> None:
        """Push what ``read`` makes of a text's bytes."""
        try:
            self.stack.push(read(self.source.payload(layout)))
        except UnicodeDecodeError:
            raise FormatError(
                f"a text before byte {self.source.position} of the pickle is not UTF-8"
            ) from None

    def old_string(self, layout: str) -> None:
        """Push what Python 2 called a string."""
        self.string(layout, self.vocabulary.old_string)

    def long_string(self) -> None:
        """Push a text, or pass over it if the vocabulary says so.

        The history of a loss, saved as an array, may be longer than all names.
        """
        skipped = self.vocabulary.skipped
        if skipped is None or self.stack.items[-1:] != [skipped]:
            return self.string("<I")
        self.source.skip_payload("<I")
        self.stack.push(Placeholder(skipped))

    def global_name(self) -> None:
        """Push a name whose module and name are two lines."""
        lines = [self.source.line(), self.source.line()]
        try:
            module, name = (line.decode("utf-8") for line in lines)
        except UnicodeDecodeError:
            raise FormatError(
                f"a name before byte {self.source.position} of the pickle is not UTF-8"
            ) from None
        self.push_global(module, name)

    def stack_global(self) -> None:
        """Push a name whose module and name are two strings on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise UnsafeError("the pickle builds a name from something that is not text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        """Push a name if the vocabulary permits it."""
        found = Global(module, name)
        if not self.vocabulary.permits(found):
            raise UnsafeError(f"the file names {found}, which {self.vocabulary.refusal}")
        self.stack.push(found)

    # -- objects

    def reduce(self) -> None:
        """Build what a call means; the call itself never happens."""
        arguments, callee = self.stack.pop(), self.stack.pop()
        if type(callee) is not Global or type(arguments) is not tuple:
            raise UnsafeError(
                f"the pickle calls a {type(callee).__name__} with a {type(arguments).__name__}"
            )
        if self.vocabulary.is_empty(callee):
            self.stack.push(Placeholder(callee))
        elif callee in self.vocabulary.calls:
            self.spend(sum(len(one) for one in arguments if type(one) is list))
            self.stack.push(self.vocabulary.calls[callee](arguments))
        else:
            raise UnsafeError(f"the pickle calls {callee}, which only names a type")

    def new_object(self) -> None:
        """Push a new instance of a class whose objects are kept empty."""
        arguments, cls = self.stack.pop(), self.stack.pop()
        is_name = type(cls) is Global
        if not is_name or not self.vocabulary.is_empty(cls) or type(arguments) is not tuple:
            found = cls if is_name else type(cls).__name__
            raise UnsafeError(f"the pickle makes an instance of {found}")
        self.stack.push(Placeholder(cls))

    def build(self) -> None:
        """Set the state of the object on top, as the vocabulary says."""
        state = self.stack.pop()
        target = self.stack.top(tuple(self.vocabulary.states), "set attributes of")
        self.vocabulary.states[type(target)](target, state)

    def append(self, items: list) -> None:
        """Extend the list on top."""
        if not self.forgets():
            self.stack.top((list,), "append to").extend(items)

    def set_items(self, items: list) -> None:
        """Fill the dict on top with key, value, key, value."""
        if self.forgets():
            return
        target = self.stack.top((dict, OrderedDict), "set items of")
        if len(items) % 2:
            raise FormatError("a dict in the pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

    def forgets(self) -> bool:
        """Return whether the object on top accepts items and forgets them."""
        return any(
            type(top) is Placeholder and self.vocabulary.forgets(top.cls)
            for top in self.stack.items[-1:]
        )

    def persistent_id(self) -> None:
        """Replace a persistent id by the object that it names."""
        if self.persistent_load is None:
            raise UnsafeError("the pickle refers to data outside itself where there is none")
        self.stack.push(self.persistent_load(self.stack.pop()))


def _refusal(opcode: int, position: int) -> Exception:
    """Return the error for an opcode that is not interpreted."""
    where = f"the opcode 0x{opcode:02x} at byte {position} of the pickle"
    if bytes([opcode]) in (b"i", b"o", b"\x92", b"\x82", b"\x83", b"\x84", b"P", b"0", b"1", b"2"):
        return UnsafeError(f"{where} imports, calls or hides objects, which no state dict needs")
    return FormatError(
        f"{where} is not one that checkpoints have; the file is damaged or of another kind"
    )


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Machine], None]] = {
    ord(")"): lambda m: m.stack.push(()),
    ord("]"): lambda m: m.stack.push([]),
    ord("}"): lambda m: m.stack.push({}),
    ord("N"): lambda m: m.stack.push(None),
    0x88: lambda m: m.stack.push(True),
    0x89: lambda m: m.stack.push(False),
    ord("J"): lambda m: m.stack.push(m.source.number("<i")),
    ord("K"): lambda m: m.stack.push(m.source.number("<B")),
    ord("M"): lambda m: m.stack.push(m.source.number("<H")),
    0x8A: lambda m: m.stack.push(int.from_bytes(m.source.payload("<B"), "little", signed=True)),
    ord("G"): lambda m: m.stack.push(m.source.number(">d")),
    ord("X"): _Machine.long_string,
    0x8C: lambda m: m.string("<B"),
    ord("T"): lambda m: m.old_string("<i"),
    ord("U"): lambda m: m.old_string("<B"),
    ord("B"): lambda m: m.stack.push(m.source.payload("<I")),
    ord("C"): lambda m: m.stack.push(m.source.payload("<B")),
    ord("("): lambda m: m.stack.mark(),
    ord("t"): lambda m: m.stack.push(tuple(m.stack.pop_mark())),
    0x85: lambda m: m.stack.tuple_of(1),
    0x86: lambda m: m.stack.tuple_of(2),
    0x87: lambda m: m.stack.tuple_of(3),
    ord("q"): lambda m: m.stack.put(m.source.number("<B")),
    ord("r"): lambda m: m.stack.put(m.source.number("<I")),
    0x94: lambda m: m.stack.put(m.stack.remembered),
    ord("h"): lambda m: m.stack.get(m.source.number("<B")),
    ord("j"): lambda m: m.stack.get(m.source.number("<I")),
    ord("c"): _Machine.global_name,
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.new_object,
    ord("b"): _Machine.build,
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.stack.pop_mark()),
    ord("s"): lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.stack.pop_mark()),
    ord("Q"): _Machine.persistent_id,
    0x95: lambda m: m.source.frame(),
}
