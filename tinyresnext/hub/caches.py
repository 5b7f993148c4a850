"""Files on this computer that may be a published model: in the caches of PyTorch and of the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .entry import Entry
from .wanted import Wanted

__all__ = ["found_in_caches"]


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
    torch = Path(os.environ.get("TORCH_HOME") or caches / "torch")
    for path in (work / entry.file, torch / "hub" / "checkpoints" / entry.file):
        if wanted.known and path.is_file():
            yield path, wanted
    if not entry.hub:
        return
    hugging_face = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or hugging_face / "hub")
    snapshots = hub / f"models--{entry.hub.replace('/', '--')}" / "snapshots"
    for file in ("model.safetensors", "pytorch_model.bin"):
        for path in sorted(snapshots.glob(f"*/{file}")):
            # The Hub names a large file by its sha256; the name in a snapshot is a link to that.
            digest = os.path.basename(os.path.realpath(path))
            if path.is_file() and re.fullmatch("[0-9a-f]{64}", digest):
                yield path, Wanted(wanted.most, sha256=digest)


def _user() -> Path:
    """Return the user's own folder; a user without one has no caches either."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)
