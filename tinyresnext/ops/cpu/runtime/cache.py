"""Compiled kernels on disk, so that a computer compiles them once: a folder of files, each believed only if it is whole.

A file holds machine code and pickled objects, so whoever can write it can run code. Therefore only
folders and files count that belong to the user and that nobody else can write to; and since
half-written, damaged and misplaced files happen, each carries a digest of its content and of what
it is for, which is checked before anything else is done with it. Whatever is wrong, the kernel is
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
# Settings of Numba that change the code it makes. The number of threads and whose they are do not.
SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "ENABLE_AVX",
    "DISABLE_INTEL_SVML",
)


# --- where ----------------------------------------------------------------------------------------


@functools.cache
def identity() -> str:
    """Everything that compiled code depends on, besides the kernel itself: two processes share code if this is equal."""
    cpu = Path(__file__).parent.parent
    sources = hashlib.sha256()
    for path in sorted([*cpu.rglob("*.py"), cpu.parent / "checks.py", cpu.parent / "shapes.py"]):
        content = path.read_bytes()
        sources.update(
            f"{path.relative_to(cpu.parent).as_posix()} {len(content)}\n".encode() + content
        )
    settings = [f"{name}={getattr(config, name, None)}" for name in SETTINGS]
    versions = [
        __version__,
        sources.hexdigest(),
        numba.__version__,
        llvmlite.__version__,
        platform.python_implementation(),
    ]
    processor = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    return "\n".join([*versions, sys.version, *processor, *settings])


def folder() -> Path | None:
    """Where this process keeps its kernels; nothing where none can be kept."""
    try:
        base = home()
        return (
            base
            and base
            / "kernels"
            / f"{__version__}-{hashlib.sha256(identity().encode()).hexdigest()[:20]}"
        )
    except Exception:  # no sources to read (a zipped application), or another Numba than we know
        return None


def _ours(status: os.stat_result) -> bool:
    """Whether this is the user's, and nobody else can write to it. Windows keeps other users out of the folder itself."""
    return not hasattr(os, "geteuid") or (
        status.st_uid == os.geteuid() and not status.st_mode & 0o022
    )


def _make(place: Path) -> None:
    """The folder and those above it, for the user alone where they are new."""
    place.parent.parent.parent.mkdir(parents=True, exist_ok=True)
    for level in (place.parent.parent, place.parent, place):
        with suppress(FileExistsError):
            level.mkdir(mode=0o700)


def _trusted(place: Path) -> bool:
    """Whether the folder and the two above it are real folders and ours."""
    found = [os.lstat(level) for level in (place, place.parent, place.parent.parent)]
    return all(stat.S_ISDIR(status.st_mode) and _ours(status) for status in found)


# --- one kernel -----------------------------------------------------------------------------------


def _path(place: Path, name: str, signature: str) -> Path:
    """A readable name, made unique by a digest."""
    readable = re.sub(r"\W+", "_", name.rpartition("cpu.")[2])[:60]
    return (
        place
        / f"{readable}-{hashlib.sha256(f'{name} {signature}'.encode()).hexdigest()[:20]}{SUFFIX}"
    )


def _digest(name: str, signature: str, payload: bytes) -> bytes:
    """Of the content and of what it is for: a whole file under another's name, or from another machine, is not believed."""
    head = "\n".join([identity(), name, signature, ""])
    return hashlib.sha256(head.encode() + payload).digest()


def read(name: str, signature: str) -> bytes | None:
    """What `write` stored for that kernel and those types of arguments, or nothing. A file that is not whole is removed."""
    place = folder()
    if place is None:
        return None
    path = _path(place, name, signature)
    try:
        if not _trusted(place):
            return None
        with open(path, "rb") as file:
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
    """Store a compiled kernel, in one step, so that others who read at this moment find all of it or nothing."""
    place = folder()
    if place is None:
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
    except FAILURES:  # no room, no permission, no such thing: then it is not kept
        return


def drop(name: str, signature: str) -> None:
    """Remove a kernel, if that is possible."""
    place = folder()
    if place is not None:
        with suppress(*FAILURES):
            _path(place, name, signature).unlink()


# --- all of them ----------------------------------------------------------------------------------


def kept() -> list[Kept]:
    """What is stored, for this version and others, this processor and others."""
    found = []
    for place, files in _stored():
        sizes = []
        for path in files:
            with suppress(*FAILURES):  # somebody clears meanwhile
                sizes.append(path.stat().st_size)
        found.append(Kept(place, len(sizes), sum(sizes), place == folder()))
    return found


def problem() -> str | None:
    """Why kernels cannot be kept, or nothing if they can."""
    place = folder()
    if place is None:
        return "there is no folder for them, or this version of Numba is not known"
    try:
        _make(place)
        if not _trusted(place):
            return f"{place.parent.parent} or a folder in it belongs to somebody else, or others can write to it"
        return None if os.access(place, os.W_OK) else f"{place} cannot be written to"
    except FAILURES as error:
        return f"{place} cannot be made: {error}"


def clear() -> int:
    """Remove everything that is stored, for any version. Returns how many bytes that were."""
    total = sum(entry.bytes for entry in kept())
    for place, files in _stored():
        for path in files:
            with suppress(*FAILURES):
                path.unlink()
        with suppress(*FAILURES):
            place.rmdir()
    return total


def _stored() -> Iterator[tuple[Path, list[Path]]]:
    """Each folder with its files, and no file that is not ours."""
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
