"""Where published models may be besides their own addresses: in caches, and at a mirror.

The variables of the environment are read as PyTorch's and the Hub's own libraries do
(``torch/hub.py``, and ``constants.py`` of huggingface_hub).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .entry import Entry
from .wanted import Wanted

__all__ = ["HUB", "found_in_caches", "mirrored"]

HUB = "https://huggingface.co"


def found_in_caches(entry: Entry, wanted: Wanted, work: Path) -> Iterator[tuple[Path, Wanted]]:
    """Yield files that may be an entry's, and what each has to be.

    Parameters
    ----------
    entry : Entry
    wanted : Wanted
        What its published file has to be.
    work : Path
        The folder in which an earlier process may have left the file.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or _user() / ".cache")
    torch = _named("TORCH_HOME") or _plain(caches / "torch")
    for path in (work / entry.file, torch / "hub" / "checkpoints" / entry.file):
        if wanted.known and os.path.isfile(path):  # False where the folder may not be entered
            yield path, wanted
    if not entry.hub:
        return
    hugging_face = _named("HF_HOME", expand=True) or _plain(caches / "huggingface", expand=True)
    # The second is an older name for the first.
    hub = _named("HF_HUB_CACHE", expand=True) or _named("HUGGINGFACE_HUB_CACHE", expand=True)
    hub = hub or hugging_face / "hub"
    for path in _in_snapshots(hub / f"models--{entry.hub.replace('/', '--')}"):
        # The Hub names a large file by its sha256; the name in a snapshot is a link to that,
        # which may be a link itself, to a file that several repositories share.
        digest = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
        if os.path.isfile(path) and re.fullmatch("[0-9a-f]{64}", digest):
            yield path, Wanted(wanted.most, sha256=digest)


def _in_snapshots(repository: Path) -> list[Path]:
    """Return the files of weights in a repository's cache, those of its main branch first."""
    try:
        main = (repository / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        main = ""
    found = []
    with suppress(OSError):  # a folder that may not be entered
        for name in ("model.safetensors", "pytorch_model.bin"):
            found += sorted((repository / "snapshots").glob(f"*/{name}"))
    return sorted(found, key=lambda path: path.parent.name != main)


def mirrored(url: str) -> str:
    """Return where a file of the Hub is asked for: ``HF_ENDPOINT`` names another address of it.

    Other addresses are returned as they are. Source: ``constants.py`` of huggingface_hub.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if not endpoint or not url.startswith(f"{HUB}/"):
        return url
    return endpoint + url.removeprefix(HUB)


def _named(variable: str, expand: bool = False) -> Path | None:
    """Return the folder that a variable of the environment names, None if it is not set."""
    value = os.environ.get(variable)
    return _plain(Path(value), expand) if value else None


def _plain(path: Path, expand: bool = False) -> Path:
    """Return a folder as its owner's library understands it.

    A ``~`` is the user's own folder. The Hub's library reads variables in it too (``expand``), and
    PyTorch's does not.
    """
    found = os.path.expanduser(path)
    return Path(os.path.expandvars(found) if expand else found)


def _user() -> Path:
    """Return the user's own folder; a user without one has no caches either."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)
