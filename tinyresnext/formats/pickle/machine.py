"""An interpreter for the pickle opcodes that PyTorch checkpoints use. It imports and calls nothing.

A pickle is a program for a small stack machine. Python's own ``pickle`` lets that program import
any module and call what it finds there, so reading a file that is not trusted means running its
code. Here the machine is written again without the dangerous half: a ``GLOBAL`` puts a *name* on
the stack, and ``REDUCE``, the call, looks up in a table (a `Vocabulary`) what a few names mean.
Whatever another name would make is a placeholder without content, and a name that runs code ends
the reading.

The opcodes are those of protocols 0 to 5, but for the extension registry, buffers outside of the
pickle, and references that are text. The format is documented in CPython's ``pickletools``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from .builder import Builder
from .scan import asked_for
from .source import float_of, integer_of, quoted, slot_of, unescaped
from .vocabulary import Vocabulary

__all__ = ["MAX_OPCODES", "MAX_SHARED", "load"]

# The bound on time: some seconds. The largest published ResNeXt, saved with an Adam optimiser and
# an averaged copy, needs about 100,000; a history of ten million losses as many as it has losses.
MAX_OPCODES = 1 << 24
MAX_DIGITS = 4096  # of a whole number that is kept; Python turns text of up to 4,300 into one
MAX_SHARED = 100_000  # slots of the memo that are read again, about 100 bytes each: 10 MB


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
    stream : binary file, seekable
        Further pickles may follow, as in PyTorch's legacy format.
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
        are str, int or `OtherKey`. A list or dict has its first 50,000 items.

    Raises
    ------
    UnsafeError
        The pickle names something that the vocabulary does not permit, uses an opcode that hides
        objects, or exceeds a limit; or a call of the vocabulary refuses its arguments.
    FormatError
        The pickle is cut short, contradicts itself, or uses an opcode that checkpoints never have.
    """
    wanted = asked_for(stream, max_opcodes, MAX_SHARED)
    if len(wanted) > MAX_SHARED:
        raise UnsafeError(
            f"the pickle shares more than {MAX_SHARED:,} objects; save only model.state_dict()"
        )
    return _run(Builder(stream, vocabulary, persistent_load, max_opcodes, wanted))


def _run(m: Builder) -> object:
    """Execute until STOP, and return the one object that is left."""
    opcode = m.source.read(1)[0]
    if opcode == _PROTO:
        protocol = m.source.read(1)[0]
        if not 2 <= protocol <= 5:
            raise FormatError(f"a pickle of protocol 0 to 5 was expected, found {protocol}")
        opcode = m.source.read(1)[0]
    while opcode != _STOP:
        start = m.source.position - 1
        m.spend(1)
        method = _OPCODES.get(opcode)
        if method is None:
            raise _refusal(opcode, start)
        method(m)
        m.source.check_frame(start)
        opcode = m.source.read(1)[0]
    result = m.stack.last()
    if m.source.position < m.source.frame_end:
        raise FormatError("the pickle stops before the end of its frame")
    return result


def _take_back(m: Builder, opcode: int) -> None:
    """Discard objects, as Python does where a tuple contains itself, which is remembered then.

    Anything else that discards objects would hide them.
    """
    while opcode in (_POP, _POP_MARK):
        m.stack.discard() if opcode == _POP else m.stack.pop_mark()
        opcode = m.source.read(1)[0]
    if opcode not in _GETS:
        raise UnsafeError(
            f"the pickle discards an object before byte {m.source.position}, which no state "
            "dict needs"
        )
    _OPCODES[opcode](m)


def _refusal(opcode: int, position: int) -> Exception:
    """Return the error for an opcode that is not interpreted."""
    if not position:
        return FormatError(
            f"a pickle of protocol 0 to 5 was expected, found a first byte of 0x{opcode:02x}"
        )
    where = f"the opcode 0x{opcode:02x} at byte {position} of the pickle"
    if bytes([opcode]) in (b"\x82", b"\x83", b"\x84", b"P", b"2"):
        return UnsafeError(f"{where} imports or hides objects, which no state dict needs")
    return FormatError(
        f"{where} is not one that checkpoints have; the file is damaged or of another kind"
    )


def _signed(raw: bytes) -> int:
    """Return a whole number from its bytes, the lowest first."""
    return int.from_bytes(raw, "little", signed=True)


_PROTO, _STOP, _POP, _POP_MARK, _GETS = 0x80, ord("."), ord("0"), ord("1"), b"hjg"
_OPCODES: dict[int, Callable[[Builder], None]] = {
    ord(")"): lambda m: m.stack.push(()),
    ord("]"): lambda m: m.stack.push([], 72),
    ord("}"): lambda m: m.stack.push({}, 120),
    ord("N"): lambda m: m.stack.push(None),
    0x88: lambda m: m.stack.push(True),
    0x89: lambda m: m.stack.push(False),
    ord("J"): lambda m: m.stack.push(m.source.number("<i"), 32),
    ord("K"): lambda m: m.stack.push(m.source.number("<B")),
    ord("M"): lambda m: m.stack.push(m.source.number("<H"), 32),
    0x8A: lambda m: m.integer(m.source.payload("<B"), _signed, MAX_DIGITS),
    0x8B: lambda m: m.integer(m.source.payload("<i"), _signed, MAX_DIGITS),
    ord("I"): lambda m: m.integer(m.source.line(), integer_of, MAX_DIGITS),
    ord("L"): lambda m: m.integer(m.source.text_line(), integer_of, MAX_DIGITS),
    ord("G"): lambda m: m.stack.push(m.source.number(">d"), 24),
    ord("F"): lambda m: m.stack.push(float_of(m.source.line()), 24),
    ord("X"): lambda m: m.text(m.source.payload("<I")),
    0x8C: lambda m: m.text(m.source.payload("<B")),
    0x8D: lambda m: m.text(m.source.payload("<Q")),
    ord("V"): lambda m: m.text(m.source.text_line(), unescaped),
    ord("T"): lambda m: m.old_string(m.source.payload("<i")),
    ord("U"): lambda m: m.old_string(m.source.payload("<B")),
    ord("S"): lambda m: m.text(
        m.source.text_line(), lambda raw: m.vocabulary.old_string(quoted(raw))
    ),
    ord("B"): lambda m: m.text(m.source.payload("<I"), bytes),
    ord("C"): lambda m: m.text(m.source.payload("<B"), bytes),
    0x8E: lambda m: m.text(m.source.payload("<Q"), bytes),
    0x96: lambda m: m.text(m.source.payload("<Q"), bytes),
    ord("("): lambda m: m.stack.mark(),
    ord("t"): Builder.new_tuple,
    0x85: lambda m: m.stack.tuple_of(1),
    0x86: lambda m: m.stack.tuple_of(2),
    0x87: lambda m: m.stack.tuple_of(3),
    ord("l"): Builder.new_list,
    ord("d"): Builder.new_dict,
    0x8F: lambda m: m.new_set(frozen=False),
    0x90: Builder.add_items,
    0x91: lambda m: m.new_set(frozen=True),
    ord("q"): lambda m: m.stack.put(m.source.number("<B")),
    ord("r"): lambda m: m.stack.put(m.source.number("<I")),
    ord("p"): lambda m: m.stack.put(slot_of(m.source.line())),
    0x94: lambda m: m.stack.put(m.stack.remembered),
    ord("h"): lambda m: m.stack.get(m.source.number("<B")),
    ord("j"): lambda m: m.stack.get(m.source.number("<I")),
    ord("g"): lambda m: m.stack.get(slot_of(m.source.line())),
    ord("c"): Builder.global_name,
    0x93: Builder.stack_global,
    ord("R"): Builder.reduce,
    0x81: Builder.new_object,
    0x92: lambda m: m.new_object(keywords=True),
    ord("i"): lambda m: m.old_instance(named=True),
    ord("o"): lambda m: m.old_instance(named=False),
    ord("b"): Builder.build,
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.marked()),
    ord("s"): lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.marked()),
    _POP: lambda m: _take_back(m, _POP),
    _POP_MARK: lambda m: _take_back(m, _POP_MARK),
    ord("Q"): Builder.persistent_id,
    0x95: lambda m: m.source.frame(),
}
