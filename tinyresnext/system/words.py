"""Words that a person types: the error for an unknown one names the nearest known one."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest", "one_of"]


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


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that resembles this one most, or None if none does."""
    # Only an error needs difflib, and every start of the command line would wait for it.
    from difflib import get_close_matches

    if not isinstance(word, str):
        return None
    names = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), names, 1)
    return names[found[0]] if found else None
