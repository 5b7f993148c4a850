"""Compiled kernels on disk: a folder of files, each used only if it is whole.

A file holds machine code and pickled objects, so whoever can write it can run code. Therefore only
folders and files are used that belong to the user and that nobody else can write to. Files may be
half-written, damaged or misplaced, so each carries a digest of its content and of the kernel it
belongs to, which is checked before anything else is done with it. Whatever is wrong, the kernel is
compiled again: nothing here raises.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ....system.home import home
from ....system.version import __version__
from ...contract import Kept
from .compiling.identity import IMPORTED, SOURCES, identity, sources

MAGIC = b"tinyresnext kernel 1\n"
SUFFIX = ".kernel"
FAILURES = (OSError, ValueError)  # of files; a name that no file can have is a ValueError


# --- where ----------------------------------------------------------------------------------------


def _base() -> Path | None:
    """Return the folder that has all kernels; a link in its place, or above, is followed.

    Below it no link is: what counts is whose folder it is, and who can write to it.
    """
    base = home()
    return base and Path(os.path.realpath(base))


def folder() -> Path | None:
    """Return where this process keeps its kernels, or None where none can be kept."""
    if IMPORTED is None:
        return None
    try:
        base = _base()
        digest = hashlib.sha256(identity().encode()).hexdigest()[:20]
        return base and base / "kernels" / f"{__version__}-{digest}"
    except Exception:  # an unknown Numba
        return None


def _ours(status: os.stat_result) -> bool:
    """Return whether this belongs to the user, and nobody else can write to it.

    Windows keeps other users out of the folder itself.
    """
    return not hasattr(os, "geteuid") or (
        status.st_uid == os.geteuid() and not status.st_mode & 0o022
    )


def made() -> Path | None:
    """Return the folder, or None where none can be kept; new ones are for the user alone."""
    place = folder()
    if place is None:
        return None
    try:
        place.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        for level in _levels(place):
            with suppress(FileExistsError):
                level.mkdir(mode=0o700)
        return place if _trusted(place) else None
    except FAILURES:
        return None


def _trusted(place: Path) -> bool:
    """Return whether the folder and the two above it are real folders and the user's."""
    return not any(map(_distrusted, _levels(place)))


def _distrusted(level: Path) -> str:
    """Return why this is not used, or nothing if it is a real folder and the user's."""
    status = os.lstat(level)
    if not stat.S_ISDIR(status.st_mode):
        return f"{level} is {'a link' if stat.S_ISLNK(status.st_mode) else 'not a folder'}"
    if _ours(status):
        return ""
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return f"{level} belongs to somebody else"
    return f"others can write to {level}; `chmod go-w` takes that from them"


def _levels(place: Path) -> tuple[Path, Path, Path]:
    """Return the folder and the two above it, the outermost first."""
    return place.parent.parent, place.parent, place


# --- one kernel -----------------------------------------------------------------------------------


def _path(place: Path, name: str, signature: str) -> Path:
    """Return the path of a kernel: a readable name, made unique by a digest."""
    readable = re.sub(r"\W+", "_", name.rpartition("cpu.")[2])[:60]
    return (
        place
        / f"{readable}-{hashlib.sha256(f'{name} {signature}'.encode()).hexdigest()[:20]}{SUFFIX}"
    )


def _digest(name: str, signature: str, payload: bytes) -> bytes:
    """Return a digest of the content, the kernel and the machine it is for.

    So a file under another kernel's name, or from another machine, is not used.
    """
    head = "\n".join([identity(), name, signature, ""])
    return hashlib.sha256(head.encode() + payload).digest()


def _opener(name: str, flags: int) -> int:
    """Open a file, but no link, and without waiting for a pipe."""
    more = ("NOFOLLOW", "NONBLOCK")  # not every system has them
    return os.open(name, flags | sum(getattr(os, f"O_{flag}", 0) for flag in more))


def has(name: str, signature: str) -> bool:
    """Return whether there is a file of that kernel, whole or not."""
    place = folder()
    try:
        return place is not None and _path(place, name, signature).exists()
    except FAILURES:
        return False


def read(name: str, signature: str) -> bytes | None:
    """Return what `write` stored for that kernel and those types of arguments, or None.

    A file that is not whole is removed.
    """
    place = folder()
    if place is None:
        return None
    path = _path(place, name, signature)
    try:
        if not _trusted(place):
            return None
        with open(path, "rb", opener=_opener) as file:
            status = os.fstat(file.fileno())
            content = file.read() if stat.S_ISREG(status.st_mode) and _ours(status) else b""
    except FAILURES:
        return None
    start = len(MAGIC) + 32
    if content[: len(MAGIC)] == MAGIC and content[len(MAGIC) : start] == _digest(
        name, signature, content[start:]
    ):
        return content[start:]
    drop(name, signature)
    return None


def write(name: str, signature: str, payload: bytes) -> None:
    """Store a compiled kernel in one step: whoever reads meanwhile finds all of it or nothing.

    Nothing is stored if a source file was changed after this process had begun: what was compiled
    may be of the one or of the other.
    """
    if sources(*SOURCES) != IMPORTED or (place := made()) is None:
        return
    path = _path(place, name, signature)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(
                temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(MAGIC + _digest(name, signature, payload) + payload)
            os.replace(temporary, path)
        except BaseException:
            with suppress(*FAILURES):
                temporary.unlink()
            raise
    except FAILURES:  # no room or no permission: the kernel is not kept
        return


def drop(name: str, signature: str) -> None:
    """Remove a kernel if that is possible."""
    place = folder()
    if place is not None:
        with suppress(*FAILURES):
            _path(place, name, signature).unlink()


# --- all of them ----------------------------------------------------------------------------------


def kept() -> list[Kept]:
    """Return the folders of kernels, those of other versions and processors too."""
    found = []
    for place, files in _stored():
        sizes = []
        for path in files:
            with suppress(*FAILURES):  # another process clears meanwhile
                sizes.append(path.stat().st_size)
        found.append(Kept(place, len(sizes), sum(sizes), place == folder()))
    return found


def problem() -> str | None:
    """Return why kernels cannot be kept, or None when they can."""
    place = folder()
    if place is None:
        return "there is no folder for them, or this version of Numba is not known"
    there = place
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(place)  # such as a name that no file can have
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        for level in filter(os.path.lexists, _levels(place)):
            if why := _distrusted(level):
                return why
        if not there.is_dir():
            return f"{place} cannot be made: {there} is not a folder"
        return None if os.access(there, os.W_OK) else f"{place} cannot be written to"
    except FAILURES as error:
        return f"{place} cannot be made: {error}"


def clear(others: bool = False) -> int:
    """Remove the kernels of all versions, or of all others, and return how many bytes they had.

    What a process that was killed had not finished writing goes, too.
    """
    total = 0
    for place, files in _stored():
        for path in files:
            if others and place == folder() and path.suffix == SUFFIX:
                continue
            with suppress(*FAILURES):
                size = path.stat().st_size
                path.unlink()
                total += size
        with suppress(*FAILURES):
            place.rmdir()
    return total


def _stored() -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with its files, and only files that `write` names so."""
    with suppress(*FAILURES):
        base = _base()
        for place in sorted(
            (base / "kernels").iterdir() if base and not (base / "kernels").is_symlink() else []
        ):
            if (
                place.is_dir()
                and not place.is_symlink()
                and re.fullmatch(r"[\w.+]+-[0-9a-f]{20}", place.name)
            ):
                yield (
                    place,
                    sorted(
                        path
                        for path in place.iterdir()
                        if re.fullmatch(r".+\.(kernel|tmp)", path.name)
                    ),
                )
