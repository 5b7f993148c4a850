"""The part of a file that has been downloaded, and what the server called the file's version."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import suppress
from pathlib import Path

from ..errors import UsageError
from ..system.files import shown
from ..system.writing import opened

__all__ = ["begin", "drop", "forget_version", "held", "no_room", "remove", "version_of"]


def held(part: Path) -> int:
    """Return how many bytes are there already."""
    try:
        return part.stat().st_size
    except OSError:
        return 0


def drop(part: Path) -> None:
    """Remove the part and its version."""
    remove(part)
    forget_version(part)


def forget_version(part: Path) -> None:
    """Remove what the server called the version."""
    remove(_memory(part))


def version_of(part: Path, url: str) -> str:
    """Return what this address called the version that the part is of, or an empty text."""
    try:
        memory = json.loads(_memory(part).read_text("utf-8")[:10_000])
        version = memory["version"] if memory["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    plain = isinstance(version, str) and re.fullmatch(r"[\x20-\x7e]{0,500}", version)
    return version if plain else ""


def begin(part: Path, url: str, headers: http.client.HTTPMessage) -> None:
    """Make an empty part, and note the version it will be of: a strong ETag, else the file's date.

    Raises
    ------
    UsageError
        The part cannot be written.
    """
    tag = headers.get("ETag", "")
    version = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    try:
        # First: an old part must not be continued as of the new version.
        opened(part, new=True).close()
        with opened(_memory(part), new=True) as file:
            file.write(json.dumps({"url": url, "version": version}).encode())
    except OSError as error:
        raise no_room(part, error) from error


def no_room(part: Path, error: OSError) -> UsageError:
    """Return the error for a part that cannot be written."""
    return UsageError(
        f"cannot write {shown(part)}: {error.strerror or error}; make room and try again, or "
        "choose another folder with TINYRESNEXT_HOME; a download of a known digest continues"
    )


def _memory(part: Path) -> Path:
    """Return the file that holds what the server called the file's version."""
    return part.with_name(f"{part.name}.json")


def remove(path: Path) -> None:
    """Remove a file, if that is possible."""
    with suppress(OSError):
        path.unlink()
