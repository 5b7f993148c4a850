"""Words that a person types: commands, parts of names, and the nearest known ones to an unknown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from ..errors import UsageError

__all__ = ["as_typed", "matching", "nearest", "one_of", "similar"]


def as_typed(words: Sequence[str]) -> str:
    """Return the words of a command as they are typed into this system's shell."""
    if sys.platform == "win32":  # cmd.exe knows no single quotation marks
        from subprocess import list2cmdline

        return list2cmdline(words)
    from shlex import join

    return join(words)


def one_of(word: object, known: Iterable[str]) -> str:
    """Return ``"expected one of cpu, auto"``, followed by which of them was probably meant.

    Parameters
    ----------
    word : object
        What was found. Only a string resembles one of the known words.
    known : iterable of str
        The words that are allowed, in the order in which they are listed.
    """
    words = list(known)
    near = nearest(word, words)
    return f"expected one of {', '.join(words)}" + (f"; did you mean {near}?" if near else "")


def similar(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean resnet50? "`` with up to three known names, or an empty text.

    Names that begin with what was typed are nearer than others that look like it.
    """
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    longer = [one for one in names if name and one.startswith(name)]
    near = longer[:3] or get_close_matches(name, names, 3)
    return f"did you mean {', '.join(near)}? " if near else ""


def matching(pattern: str, known: Iterable[str]) -> list[str]:
    """Return the names that match a pattern as in a shell, or that have a text in them.

    Parameters
    ----------
    pattern : str
        Such as ``*_in1k``; a text without ``*``, ``?`` and ``[``, such as ``resnext50``, stands for
        all names that have it in them.
    known : iterable of str
        The names.

    Raises
    ------
    UsageError
        ``pattern`` is no text.
    """
    if not isinstance(pattern, str):
        raise UsageError(
            f"the pattern is {pattern!r:.80}; give part of a name, such as 'resnext50'"
        )
    from fnmatch import fnmatchcase

    whole = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in known if fnmatchcase(name.lower(), whole.lower())]


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that resembles this one most, or None if none does."""
    # Only an error needs difflib, and every start of the command line would wait for it.
    from difflib import get_close_matches

    if not isinstance(word, str):
        return None
    names = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), names, 1)
    return names[found[0]] if found else None
