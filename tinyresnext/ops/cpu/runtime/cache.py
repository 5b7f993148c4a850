"""Compiled kernels on disk: a folder of files, each used only if it is whole.

A file holds machine code and pickled objects, so whoever can write it can run code. Therefore only
folders and files are used that belong to the user and that nobody else can write to. Files may be
half-written, damaged or misplaced, so each carries a digest of its content and of the kernel it
belongs to, which is checked before anything else is done with it. Whatever is wrong, the kernel is
compiled again: nothing here raises.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import llvmlite
import numba
from numba import config

from ....system.home import home
from ....system.version import __version__
from ...contract import Kept

MAGIC = b"tinyresnext kernel 1\n"
SUFFIX = ".kernel"
FAILURES = (OSError, ValueError)  # of files; a name that no file can have is a ValueError
# Settings of Numba that change the code. The number of threads and their pool do not.
SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "ENABLE_AVX",
    "USING_SVML",  # Intel's library of elementary functions, where Numba has found it
)


# --- where ----------------------------------------------------------------------------------------


def sources(top: Path, *patterns: str) -> str | None:
    """Return a digest of source files; None where there are none, as in a zipped application."""
    found, paths = hashlib.sha256(), sorted(path for one in patterns for path in top.glob(one))
    try:
        for path in paths:
            content, name = path.read_bytes(), path.relative_to(top).as_posix()
            found.update(f"{name} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return found.hexdigest() if paths else None


# Kernels also take constants from the reference and from the files beside it.
SOURCES = Path(__file__).parents[2], "*.py", "reference/*.py", "cpu/**/*.py"
IMPORTED = sources(*SOURCES)  # now: later the files may be others than those that were imported


@functools.cache
def identity() -> str:
    """Return all that compiled code depends on, besides the kernel itself.

    Processes for which this is equal share compiled code.
    """
    settings = [f"{name}={getattr(config, name, None)}" for name in SETTINGS]
    versions = [
        __version__,
        str(IMPORTED),
        numba.__version__,
        llvmlite.__version__,
        platform.python_implementation(),
    ]
    processor = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    return "\n".join([*versions, sys.version, *processor, *settings])


def folder() -> Path | None:
    """Return where this process keeps its kernels, or None where none can be kept."""
    if IMPORTED is None:
        return None
    try:
        base = home()
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


def _make(place: Path) -> None:
    """Make the folder and those above it; new ones are for the user alone."""
    place.parent.parent.parent.mkdir(parents=True, exist_ok=True)
    for level in _levels(place):
        with suppress(FileExistsError):
            level.mkdir(mode=0o700)


def _trusted(place: Path) -> bool:
    """Return whether the folder and the two above it are real folders and the user's."""
    return all(map(_trusted_one, _levels(place)))


def _trusted_one(level: Path) -> bool:
    """Return whether this is a real folder and the user's."""
    status = os.lstat(level)
    return stat.S_ISDIR(status.st_mode) and _ours(status)


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
    place = folder()
    if place is None or sources(*SOURCES) != IMPORTED:
        return
    path = _path(place, name, signature)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        _make(place)
        if not _trusted(place):
            return
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
        if any(not _trusted_one(level) for level in _levels(place) if os.path.lexists(level)):
            return (
                f"{place.parent.parent} or a folder in it belongs to somebody else, "
                "or others can write to it"
            )
        if not there.is_dir():
            return f"{place} cannot be made: {there} is not a folder"
        return None if os.access(there, os.W_OK) else f"{place} cannot be written to"
    except FAILURES as error:
        return f"{place} cannot be made: {error}"


def clear() -> int:
    """Remove the kernels of all versions, and return how many bytes they had."""
    total = sum(entry.bytes for entry in kept())
    for place, files in _stored():
        for path in files:
            with suppress(*FAILURES):
                path.unlink()
        with suppress(*FAILURES):
            place.rmdir()
    return total


def _stored() -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder with its files, and only files that `write` names so."""
    base = home()
    with suppress(*FAILURES):
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
