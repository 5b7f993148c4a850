"""What the opcodes of a pickle build, without importing or calling anything."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from .source import Source
from .stack import Stack
from .vocabulary import MAX_ITEMS, Global, Placeholder, Vocabulary, set_item

__all__ = ["Builder"]

_SET, _FROZENSET = Global("builtins", "set"), Global("builtins", "frozenset")
_NUMBER = Global("builtins", "int")
_PARTIAL = Global("functools", "partial")  # the one kind of object that a pickle calls


class Builder:
    """What the opcodes build: one method for each opcode or family of opcodes.

    Parameters
    ----------
    stream, vocabulary, persistent_load, budget
        As for `machine.load`.
    wanted : set of int
        The slots of the memo that are read somewhere.
    """

    def __init__(
        self,
        stream: BinaryIO,
        vocabulary: Vocabulary,
        persistent_load: Callable[[object], object] | None,
        budget: int,
        wanted: set[int],
    ) -> None:
        self.source = Source(stream, vocabulary.longest, vocabulary.passes_over)
        self.vocabulary = vocabulary
        self.persistent_load = persistent_load
        self.budget = budget
        self.stack = Stack(self.source, vocabulary.most_memory, wanted)

    def spend(self, steps: int) -> None:
        """Count work against the budget."""
        self.budget -= steps
        if self.budget < 0:
            raise UnsafeError(
                "the pickle has more opcodes than any checkpoint needs; save only "
                "model.state_dict()"
            )

    # -- texts and names

    def text(self, raw: bytes | None, read: Callable[[bytes], object] = bytes.decode) -> None:
        """Push what ``read`` makes of a text's bytes, a placeholder if they were passed over."""
        if raw is None:
            is_text = read is bytes.decode
            return self.stack.push(self.vocabulary.passed(*self.source.passed, is_text), 100)
        try:
            value = read(raw)
        except UnicodeDecodeError:
            raise FormatError(
                f"a text before byte {self.source.position} of the pickle is not UTF-8"
            ) from None
        self.stack.push(value, getsizeof(value))

    def old_string(self, raw: bytes | None) -> None:
        """Push what Python 2 called a string."""
        self.text(raw, self.vocabulary.old_string)

    def integer(self, raw: bytes | None, read: Callable[[bytes], int], most: int) -> None:
        """Push a whole number, a placeholder if it has more than ``most`` bytes here."""
        if raw is None or len(raw) > most:
            return self.stack.push(Placeholder(_NUMBER), 64)
        self.stack.push(read(raw), 32 + len(raw))

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
        self.stack.push(found, 200)

    # -- objects

    def reduce(self) -> None:
        """Build what a call means; the call itself never happens."""
        arguments, callee = self.stack.pop(), self.stack.pop()
        if type(callee) is Placeholder and callee.cls == _PARTIAL:
            callee = callee.cls
        elif type(callee) is Global and type(arguments) is tuple:
            meaning = self.vocabulary.calls.get(callee)
            if meaning is not None:
                items = sum(len(one) for one in arguments if type(one) is list)
                self.spend(items)
                return self.stack.push(meaning(arguments), 300 + 200 * items)
        self.make(callee, arguments, "calls")

    def make(self, cls: object, arguments: object, does: str) -> None:
        """Push an object of a class whose objects are kept empty."""
        if type(cls) is not Global or type(arguments) is not tuple:
            raise UnsafeError(
                f"the pickle {does} a {type(cls).__name__} with a {type(arguments).__name__}"
            )
        if cls != _PARTIAL and (cls in self.vocabulary.calls or not self.vocabulary.is_inert(cls)):
            raise UnsafeError(f"the pickle {does} {cls}, which only names a type")
        self.stack.push(Placeholder(cls), 64)

    def new_object(self, keywords: bool = False) -> None:
        """Push a new instance of a class, without its arguments."""
        if keywords:
            self.stack.pop()
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.make(cls, arguments, "makes an instance of")

    def old_instance(self, named: bool) -> None:
        """Push an instance of a class of Python 2; its name stands here or below the arguments."""
        if named:
            self.global_name()
            cls = self.stack.pop()
            arguments = self.stack.pop_mark()
        else:
            cls, *arguments = self.stack.pop_mark() or [None]
        self.make(cls, tuple(arguments), "makes an instance of")

    def build(self) -> None:
        """Set the state of the object on top, as the vocabulary says."""
        state = self.stack.pop()
        target = self.stack.top(tuple(self.vocabulary.states), "set attributes of")
        self.vocabulary.states[type(target)](target, state)

    def append(self, items: list) -> None:
        """Extend the list on top, or the object, which forgets it."""
        target = self.stack.top((list, Placeholder), "append to")
        if type(target) is list and len(target) < MAX_ITEMS:
            self.stack.charge(16 * len(items))
            target.extend(items[: MAX_ITEMS - len(target)])

    def set_items(self, items: list) -> None:
        """Fill the dict on top with key, value, key, value; any other object forgets them."""
        target = self.stack.top((dict, OrderedDict, Placeholder), "set items of")
        if len(items) % 2:
            raise FormatError("a dict in the pickle has a key without a value")
        if type(target) is not Placeholder and len(target) < MAX_ITEMS:
            self.stack.charge(80 * len(items))
            for key, value in zip(items[::2], items[1::2], strict=True):
                set_item(target, key, value)

    def marked(self) -> list:
        """Take everything since the MARK, for the list, dict or object below it."""
        target = self.stack.below_mark()
        full = isinstance(target, (list, dict)) and len(target) >= MAX_ITEMS
        forgets = full or type(target) is Placeholder
        return self.stack.pop_forgotten() if forgets else self.stack.pop_mark()

    def new_dict(self) -> None:
        """Push a dict of everything since the MARK."""
        items = self.stack.pop_mark()
        self.stack.push({}, 120)
        self.set_items(items)

    def new_list(self) -> None:
        """Push a list of everything since the MARK."""
        items = self.stack.pop_mark()
        self.stack.push([], 72)
        self.append(items)

    def new_tuple(self) -> None:
        """Push a tuple of everything since the MARK."""
        items = tuple(self.stack.pop_mark())
        self.stack.push(items, 56 + 8 * len(items))

    def new_set(self, frozen: bool) -> None:
        """Push a set, which is kept empty."""
        if frozen:
            self.stack.pop_forgotten()
        self.stack.push(Placeholder(_FROZENSET if frozen else _SET), 64)

    def add_items(self) -> None:
        """Add everything since the MARK to the set on top, which forgets it."""
        self.stack.pop_forgotten()
        self.stack.top((Placeholder,), "add items to")

    def persistent_id(self) -> None:
        """Replace a persistent id by the object that it names."""
        if self.persistent_load is None:
            raise UnsafeError("the pickle refers to data outside itself where there is none")
        self.stack.push(self.persistent_load(self.stack.pop()), 300)
        self.stack.keep()
