"""Fetching one file over https: the right bytes under the name, or an error, and what is half done can be gone on with.

Nothing that a server says is believed. Its answer has to be a file of the right length, every byte
has to come in time, and in the end the digest decides.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DownloadError, FormatError, IntegrityError, UsageError
from ..system.version import __version__
from .transfer import USUAL, Again, Answer, Limits, Refused, pieces

__all__ = ["Limits", "Wanted", "fetch"]

LATER = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be better the next time
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Wanted:
    """What the file has to be.

    Parameters
    ----------
    most : int
        Bytes that it can have.
    bytes : int, optional
        That it must have.
    sha256 : str
        The first digits, or all of them.
    md5 : str
    """

    most: int
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""

    @property
    def known(self) -> bool:
        """Whether anybody has published a digest."""
        return bool(self.sha256 or self.md5)

    def check(self, path: Path) -> str:
        """Read the file and give its sha256.

        Raises
        ------
        IntegrityError
            When it is another one.
        """
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        try:
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    size += len(piece)
                    sha256.update(piece)
                    if self.md5:
                        md5.update(piece)
        except OSError as error:
            raise FormatError(
                f"{path} cannot be read: {error.strerror}; give a file that you may read"
            ) from error
        for what, found, wanted in (
            ("bytes", size, self.bytes),
            ("a sha256 of", sha256.hexdigest()[: len(self.sha256)], self.sha256),
            ("an md5 of", md5.hexdigest(), self.md5),
        ):
            if wanted and found != wanted:
                raise IntegrityError(
                    f"{path.name} has {what} {found}, expected {wanted}: it is damaged or another file"
                )
        return sha256.hexdigest()


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
        Where it is: the next one is tried when one fails. Proxies are those of the environment, as
        urllib takes them.
    part : path
        Where it goes. If it exists and the digest is known, the download goes on at its end. After
        an error or Ctrl-C it has what came so far.
    wanted : Wanted
    progress : callable
        Called with the bytes that are there and the bytes in all, if known.
    limits : Limits
    local : bool
        Take plain http too, from this computer only: for tests.

    Returns
    -------
    str
        The file's sha256.

    Raises
    ------
    DownloadError
        When no address gave a file.
    IntegrityError
        When one did, and it was another.
    UsageError
        When it cannot be written.
    """
    failures: list[str] = []
    error: type[DownloadError | IntegrityError] = DownloadError
    for url in urls:
        spoilt = False
        for attempt in range(limits.tries):
            began = _held(part) if wanted.known else 0
            try:
                _transfer(url, part, began, wanted, progress, limits, local)
                sha256 = wanted.check(part)
                _forget(_memory(part))
                return sha256
            except Again as problem:
                failures.append(f"{url}: {problem}")
                if attempt + 1 < limits.tries:
                    time.sleep(limits.pause * 2**attempt)
            except Refused as problem:
                failures.append(f"{url}: {problem}")
                break
            except IntegrityError as problem:
                _drop(part)
                failures.append(f"{url}: {problem}")
                error = IntegrityError
                # twice the same from the start: it is not what was there before, nor a cut that
                # nobody saw
                if spoilt:
                    break
                spoilt = True
    seen = dict.fromkeys(failures)
    raise error(
        f"{'; '.join(seen)}; try again later, or fetch the file by other means and name it with --from"
    )


def _held(part: Path) -> int:
    """How much is there already."""
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _drop(part: Path) -> None:
    """Forget what came."""
    _forget(part)
    _forget(_memory(part))


def _forget(path: Path) -> None:
    """Remove a file, if that is possible."""
    with suppress(OSError):
        path.unlink()


def _memory(part: Path) -> Path:
    """The file that remembers what the server called the file's version."""
    return part.with_name(f"{part.name}.json")


def _version_of(part: Path, url: str) -> str:
    """What this address called the version that the part is of, or nothing."""
    try:
        memory = json.loads(_memory(part).read_text("utf-8")[:10_000])
        version = memory["version"] if memory["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return (
        version if isinstance(version, str) and re.fullmatch(r"[\x20-\x7e]{0,500}", version) else ""
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
    """One try: ask for what is missing and append it."""
    if wanted.bytes is not None and began >= wanted.bytes:
        if began == wanted.bytes:
            return
        _drop(part)
        began = 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"tinyresnext/{__version__}"}
    if began:
        headers["Range"] = f"bytes={began}-"
        if version := _version_of(part, url):
            headers["If-Range"] = version
    with closing(pieces(url, headers, limits, local)) as coming:
        answer = next(coming)
        if answer.status == 416 and began:
            if answer.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{began}":
                return  # all of it is there
            _drop(part)
            raise Again("the server has no such range of the file")
        start = _start(answer, began, part)
        total = None if answer.length is None else start + answer.length
        _check_length(total, wanted, part, start)
        if start == 0:
            _begin(part, url, answer.headers)
        _append(
            coming,
            part,
            start,
            total,
            wanted.most if wanted.bytes is None else wanted.bytes,
            progress,
        )


def _start(answer: Answer, began: int, part: Path) -> int:
    """Where in the file the answer begins, if it is a file at all."""
    status, headers = answer.status, answer.headers
    if status in LATER:
        raise Again(f"the server says {status} {answer.reason}")
    if status not in (200, 206):
        raise Refused(f"the server says {status} {answer.reason}")
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise Refused("the answer is a web page and not a file")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(
            f"the answer is in the encoding {headers['Content-Encoding']!r}, which was not asked for"
        )
    if status == 200:
        return 0
    sent = re.fullmatch(
        r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)",
        headers.get("Content-Range", "").strip(),
        re.ASCII,
    )
    if not began or sent is None or int(sent[1]) != began:
        _drop(part)
        raise Again(
            f"the server sends the range {headers.get('Content-Range')!r}, and from {began} on was asked for"
        )
    return began


def _check_length(total: int | None, wanted: Wanted, part: Path, start: int) -> None:
    """Refuse another length before any of it comes, and a disk without room for it."""
    if total is not None and wanted.bytes not in (None, total):
        _drop(part)
        raise Refused(f"the file has {total:,} bytes, expected {wanted.bytes:,}")
    if total is not None and total > wanted.most:
        raise Refused(
            f"the file has {total:,} bytes, and a model of this kind at most {wanted.most:,}"
        )
    try:
        free = shutil.disk_usage(part.parent).free
    except OSError:
        return
    if total is not None and free < total - start:
        raise UsageError(
            f"{part.parent} has room for {free:,} bytes and {total - start:,} are to come; make room, and try again"
        )


def _begin(part: Path, url: str, headers: http.client.HTTPMessage) -> None:
    """An empty part, and what the server calls the version that it will be of: a strong ETag, else its date."""
    tag = headers.get("ETag", "")
    version = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    try:
        part.write_bytes(b"")  # first: an old part with a new version would be gone on with
        _memory(part).write_text(json.dumps({"url": url, "version": version}), "utf-8")
    except OSError as error:
        raise _no_room(part, error) from error


def _append(
    coming: Iterator[bytes],
    part: Path,
    start: int,
    total: int | None,
    most: int,
    progress: Progress,
) -> None:
    """Write what comes, as far as it may go on."""
    done = start
    progress(done, total)
    try:
        with open(part, "r+b") as file:
            file.seek(start)
            for piece in coming:
                if done == 0 and piece.lstrip()[:1] == b"<":
                    raise Refused("the answer is a web page and not a file")
                done += len(piece)
                if done > most:
                    break
                file.write(piece)
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _no_room(part, error) from error
    if done > most:
        _drop(part)
        raise Refused(f"more than {most:,} bytes came, and the file has not so many")
    if total is not None and done < total:
        raise Again(f"the connection was cut after {done:,} of {total:,} bytes")


def _no_room(part: Path, error: OSError) -> UsageError:
    """What a failed writing becomes."""
    return UsageError(
        f"cannot write {part}: {error.strerror or error}; make room and try again, which goes on from there, or choose another "
        "folder with TINYRESNEXT_HOME"
    )
