"""Fetching one file over https, and checking it against its digest.

Nothing that a server says is believed. Its answer has to be a file of the right length, every byte
has to come in time, and in the end the digest decides. An interrupted download can be continued.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from ..errors import DownloadError, IntegrityError, UsageError
from ..system.version import __version__
from ..system.writing import opened
from .part import begin, drop, forget_version, held, no_room, version_of
from .transfer import USUAL, Again, Answer, Limits, Refused, answered
from .wanted import Wanted

__all__ = ["Progress", "Wanted", "fetch"]

LATER = (408, 425, 429, 500, 502, 503, 504)  # statuses after which a later try may succeed
Progress = Callable[[int, int | None], None]


def fetch(
    urls: Sequence[str],
    part: Path,
    wanted: Wanted,
    *,
    progress: Progress = lambda done, total: None,
    limits: Limits = USUAL,
    local: bool = False,
) -> str:
    """Download a file.

    Parameters
    ----------
    urls : sequence of str
        Where it is: the next one is tried if one fails. Proxies are those of the environment, as
        urllib takes them.
    part : path
        Where it is written. If it exists and the digest is known, the download continues at its
        end. After an error or Ctrl-C it contains the bytes received so far.
    wanted : Wanted
    progress : callable
        Called with the bytes that are there and the bytes in all, if known.
    limits : Limits
    local : bool
        Accept plain http too, from this computer only: for tests.

    Returns
    -------
    str
        The file's sha256.

    Raises
    ------
    DownloadError
        No address sent a file.
    IntegrityError
        One did, and it was another file.
    UsageError
        It cannot be written.
    """
    failures: list[str] = []
    error: type[DownloadError | IntegrityError] = DownloadError
    for url in urls:
        spoilt = False
        for attempt in range(limits.tries):
            began = held(part) if wanted.known else 0
            try:
                _transfer(url, part, began, wanted, progress, limits, local)
                sha256 = wanted.check(part)
                forget_version(part)
                return sha256
            except Again as problem:
                failures.append(f"{url}: {problem}")
                if attempt + 1 < limits.tries:
                    time.sleep(limits.pause * 2**attempt)
            except Refused as problem:
                failures.append(f"{url}: {problem}")
                break
            except IntegrityError as problem:
                drop(part)
                failures.append(f"{url}: {problem}")
                error = IntegrityError
                # The second such failure began with an empty part, so the fault is the server's.
                if spoilt:
                    break
                spoilt = True
    seen = dict.fromkeys(failures)
    raise error(
        f"{'; '.join(seen)}; try again later, or fetch the file by other means and name it with "
        "--from"
    )


def _transfer(
    url: str,
    part: Path,
    began: int,
    wanted: Wanted,
    progress: Progress,
    limits: Limits,
    local: bool,
) -> None:
    """Make one try: ask for what is missing and append it."""
    if wanted.bytes is not None and began >= wanted.bytes:
        if began == wanted.bytes:
            return
        drop(part)
        began = 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"tinyresnext/{__version__}"}
    if began:
        headers["Range"] = f"bytes={began}-"
        if version := version_of(part, url):
            headers["If-Range"] = version
    with answered(url, headers, limits, local) as (answer, coming):
        if answer.status == 416 and began:
            if answer.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{began}":
                return  # all of it is there
            drop(part)
            raise Again("the server has no such range of the file")
        start = _start(answer, began, part)
        total = None if answer.length is None else start + answer.length
        _check_length(total, wanted, part, start)
        if start == 0:
            first = _first(coming)
            begin(part, url, answer.headers)  # not before: the part stays if nothing usable comes
            coming = chain([first], coming)
        most = wanted.most if wanted.bytes is None else wanted.bytes
        _append(coming, part, start, total, most, progress)


def _start(answer: Answer, began: int, part: Path) -> int:
    """Return where in the file the answer begins, if it is a file at all."""
    status, headers = answer.status, answer.headers
    if status in LATER:
        raise Again(f"the server says {status} {answer.reason}")
    if status not in (200, 206):
        raise Refused(f"the server says {status} {answer.reason}")
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise Refused("the answer is a web page and not a file")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(
            f"the answer is in the encoding {headers['Content-Encoding']!r}, which was not asked "
            "for"
        )
    if status == 200:
        return 0
    sent = re.fullmatch(
        r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)",
        headers.get("Content-Range", "").strip(),
        re.ASCII,
    )
    if not began or sent is None or int(sent[1]) != began:
        drop(part)
        raise Again(
            f"the server sends the range {headers.get('Content-Range')!r}, but the bytes from "
            f"{began} on were asked for"
        )
    return began


def _check_length(total: int | None, wanted: Wanted, part: Path, start: int) -> None:
    """Refuse another length before any of it comes, and a disk without room for it."""
    if total is None:
        return
    if wanted.bytes not in (None, total):
        if start:  # an answer from the first byte on says nothing of the part
            drop(part)
        raise Refused(f"the file has {total:,} bytes, expected {wanted.bytes:,}")
    if total > wanted.most:
        raise Refused(
            f"the file has {total:,} bytes, and a model of this kind at most {wanted.most:,}"
        )
    try:
        free = shutil.disk_usage(part.parent).free
    except OSError:
        return
    if free < total - start:
        raise UsageError(
            f"{part.parent} has room for {free:,} bytes and {total - start:,} are still needed; "
            "make room, and try again"
        )


def _first(coming: Iterator[bytes]) -> bytes:
    """Return the first bytes of a file."""
    piece = next(coming, b"")
    if not piece:
        raise Again("the answer is empty")
    if piece.lstrip()[:1] == b"<":
        raise Refused("the answer is a web page and not a file")
    return piece


def _append(
    coming: Iterator[bytes],
    part: Path,
    start: int,
    total: int | None,
    most: int,
    progress: Progress,
) -> None:
    """Write what comes behind the first ``start`` bytes, up to ``most`` bytes in all."""
    done = start
    progress(done, total)
    try:
        with opened(part) as file:
            file.seek(start)
            for piece in coming:
                done += len(piece)
                if done > most:
                    break
                file.write(piece)
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise no_room(part, error) from error
    if done > most:
        drop(part)
        raise Refused(f"more than {most:,} bytes came, and the file has fewer")
    if total is not None and done < total:
        raise Again(f"the connection was cut after {done:,} of {total:,} bytes")
