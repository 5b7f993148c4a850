"""Getting a published model: find or fetch its file, check it, convert it, keep the result.

::

    HOME/models/NAME.h5       what `load` and ``--model`` find under the name
    HOME/downloads/NAME/      the file or a part of it, and the model while it is written
    HOME/downloads/NAME.lock  held by the process that pulls; others wait, and then find the model

Nothing is parsed before its digest is right, and a model gets its name when all of it is on the
disk. So whenever a process ends, the name means a whole model or nothing. The next process
continues with what had come, if a digest of the file is published: else it begins again.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..checkpoints.convert import opened_checkpoint
from ..checkpoints.infer import usual_labels
from ..checkpoints.names.table import CLASSIFICATION_MODELS
from ..errors import DownloadError, IntegrityError, UsageError, WeightsError
from ..network.resnext import parameters
from ..store import store
from ..system.files import shown
from ..system.home import folder, rename
from ..system.writing import locked
from .bundled import BUNDLED, shipped_model
from .caches import HUB, found_in_caches, mirrored
from .catalogue import find, place
from .download import Progress, fetch
from .entry import Entry
from .part import remove
from .transfer import USUAL, Limits
from .wanted import Wanted

__all__ = ["pull", "wanted"]

# bytes of a file beyond two and a half times its tensors; Torch7 keeps gradients beside the weights
SLACK = 64 << 20


def pull(
    name: str | Entry,
    *,
    accept_licence: bool = False,
    offline: bool = False,
    source: str | os.PathLike[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
    limits: Limits = USUAL,
    local: bool = False,
) -> Path:
    """Get a published model.

    Its file is taken from ``source`` if that is given; else from the caches of PyTorch and of the
    Hugging Face Hub, which may have it; else from the network.

    Parameters
    ----------
    name : str or Entry
        As in `tinyresnext.hub.catalogue.find`. The bundled model is here already.
    accept_licence : bool
        The user accepts a licence that does not allow every use.
    offline : bool
        Never ask the network.
    source : path, optional
        The published file, fetched by other means.
    note : callable
        Called with what happens, a sentence at a time.
    progress : callable
        Called with the bytes that are there and the bytes in all, if known.
    limits : Limits
        Of the download.
    local : bool
        Accept plain http from this computer: for tests.

    Returns
    -------
    pathlib.Path
        The model file.

    Raises
    ------
    UsageError
        The name is unknown, its licence is not accepted, or nothing can be written; or the model is
        here, made of another file than ``source``.
    DownloadError
        The file cannot be fetched, or is not on this computer and must not be fetched.
    WeightsError
        The file is another one, or cannot be converted.
    """
    if name == BUNDLED:
        if source is not None:
            raise UsageError(f"{BUNDLED} is the bundled model, which is made of no other file")
        note(f"{BUNDLED} is the bundled model, which every copy of tinyresnext has")
        return shipped_model()
    entry = name if isinstance(name, Entry) else find(name)
    if entry.unreadable:
        raise UsageError(f"{entry.name} cannot be used: {entry.unreadable}")
    if made := _made_of(entry):
        return _same(entry, source, made)
    note(f"{entry.name}: licence {entry.licence}, {entry.page}")
    if entry.note:
        note(f"{entry.name}: {entry.note}")
    if not entry.free and not accept_licence:
        raise UsageError(
            f"{entry.name} is under {entry.licence}, which does not allow every use, commercial "
            f"use for example; read it, see {entry.page}, and add --accept-licence if you accept it"
        )
    downloads = folder(place(entry).parent.parent / "downloads")
    waiting = f"{entry.name}: another process is pulling it; waiting for that"

    def download(file: Path) -> str:
        return _fetch(entry, file, note, progress, limits, local)

    with locked(downloads / f"{entry.name}.lock", lambda: note(waiting)):
        if made := _made_of(entry):  # look again under the lock
            return _same(entry, source, made)
        work = folder(downloads / entry.name)
        for left in work.glob(".*.tmp"):  # by a process that was killed
            remove(left)
        _convert_first(entry, work, source, offline, note, download)
        shutil.rmtree(work, ignore_errors=True)
    return place(entry)


def wanted(entry: Entry) -> Wanted:
    """Return what the file of an entry has to be."""
    tensors = sum(4 * math.prod(shape) for shape in parameters(entry.spec).values())
    return Wanted(entry.bytes or tensors * 5 // 2 + SLACK, entry.bytes, entry.sha256, entry.md5)


def _made_of(entry: Entry) -> str | None:
    """Return the sha256 of the file that the model was made of, if it is here and undamaged.

    That must be the file in the catalogue, where its digest is known, and the model must have the
    preprocessing and the labels that the catalogue says now.
    """
    if not os.path.isfile(place(entry)):
        return None
    try:
        made = store.read(place(entry))
    except WeightsError:
        return None
    says, labels = made.provenance, _labels(entry)
    if (says.get("published_sha256", ""), says.get("model")) != (entry.sha256, entry.name):
        return None
    prepared = made.preprocess
    if entry.system == CLASSIFICATION_MODELS:  # a norm in the file has mean and deviation
        prepared = replace(prepared, mean=entry.preprocess.mean, std=entry.preprocess.std)
    # one label of a single output becomes the second of two
    named = made.labels[-len(labels) :] == labels
    right = made.spec == entry.spec and prepared == entry.preprocess and named
    return says.get("sha256") if right else None


def _labels(entry: Entry) -> tuple[str, ...]:
    """Return the labels that the catalogue gives a model."""
    return entry.labels or usual_labels(entry.spec)


def _same(entry: Entry, source: str | os.PathLike[str] | None, made: str) -> Path:
    """Return the model that is here; refuse a source that it is not made of."""
    if source is not None and wanted(entry).check(Path(source)) != made:
        raise UsageError(
            f"{entry.name} is here already, and made of another file than {shown(source)}; remove "
            f"{shown(place(entry))} first to have it made of that one"
        )
    return place(entry)


def _convert_first(
    entry: Entry,
    work: Path,
    source: str | os.PathLike[str] | None,
    offline: bool,
    note: Callable[[str], None],
    download: Callable[[Path], str],
) -> None:
    """Convert the first file that is the right one: the source, one in a cache, or a download."""
    if source is not None:
        _convert(entry, Path(source), wanted(entry).check(Path(source)), work)
        return
    if _convert_cached(entry, work, note):
        return
    file = work / entry.file
    if offline or not entry.urls:
        why = "and nothing may be fetched" if offline else "and no program can fetch it"
        raise DownloadError(
            f"{entry.file} of {entry.name} is neither in PyTorch's cache nor in the Hub's, {why}; "
            f"fetch it from {(*entry.urls, entry.page)[0]} and name it with --from"
        )
    sha256 = download(file)
    try:
        _convert(entry, file, sha256, work)
    except WeightsError as error:
        if not wanted(entry).known:
            remove(file)
            raise
        raise _unusable(file, error) from error


def _convert_cached(entry: Entry, work: Path, note: Callable[[str], None]) -> bool:
    """Convert the first right file on this computer, and return whether there was one.

    A file that is in a cache under the right name may still be a wrong one.
    """
    for path, demand in found_in_caches(entry, wanted(entry), work):
        try:
            sha256 = demand.check(path)
        except WeightsError as error:
            note(f"{entry.name}: {shown(path)} is not used: {error}")
            continue
        ours = demand == wanted(entry) or (entry.sha256 and sha256.startswith(entry.sha256))
        try:
            _convert(entry, path, sha256, work, None if ours else f"{HUB}/{entry.hub}")
        except WeightsError as error:
            if demand == wanted(entry):
                raise _unusable(path, error) from error
            note(f"{entry.name}: {shown(path)} is not used: {error}")
            continue
        note(f"{entry.name}: made from {shown(path)}, which was on this computer")
        return True
    return False


def _unusable(path: Path, error: WeightsError) -> WeightsError:
    """Return the error for a file that is the right one: fetching it again would not help."""
    return type(error)(f"{error} (the file is the published one, and stays in {shown(path)})")


def _fetch(
    entry: Entry,
    file: Path,
    note: Callable[[str], None],
    progress: Progress,
    limits: Limits,
    local: bool,
) -> str:
    """Download the file under another name, then rename it; return its sha256."""
    part = file.with_name(f"{file.name}.part")
    urls = [mirrored(url) for url in entry.urls]
    note(f"{entry.name}: from {urls[0]}")
    try:
        sha256 = fetch(urls, part, wanted(entry), progress=progress, limits=limits, local=local)
    except KeyboardInterrupt:
        if wanted(entry).known:
            raise KeyboardInterrupt("interrupted; the same command continues from there") from None
        raise
    if not wanted(entry).known:
        note(f"{entry.name}: no digest of it is published; this file has the sha256 {sha256}")
    rename(part, file)
    return sha256


def _convert(entry: Entry, file: Path, sha256: str, work: Path, origin: str | None = None) -> None:
    """Convert the file, which must have this digest, and put the model into its place.

    ``origin`` says where the file is from, if it is not the one that the entry's addresses have.
    """
    made = work / "model.h5"
    with opened_checkpoint(
        file,
        arch=entry.spec,
        preprocess=entry.preprocess,
        labels=_labels(entry),  # not those of a config.json beside it
        licence=entry.licence,
    ) as found:
        stored = found.stored
        if stored.provenance["sha256"] != sha256:
            raise IntegrityError(f"{shown(file)} was changed while it was read; try again")
        more = {
            "model": entry.name,
            "url": origin or next(iter(entry.urls), ""),
            "page": entry.page,
            "published_sha256": entry.sha256,
        }
        store.write(made, stored._replace(provenance=stored.provenance | more))
    folder(place(entry).parent)
    rename(made, place(entry))
