"""One answer over https, piece by piece, with a limit on how long any of it may take.

The transfer happens in a thread that may hang wherever it likes, in a name server, a handshake or a
header that never ends. Who waits for it waits only so long for its next piece.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["USUAL", "Again", "Answer", "Limits", "Refused", "pieces"]

PIECE = 1 << 18
REDIRECTS = (301, 302, 303, 307, 308)
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, and how often to try.

    Parameters
    ----------
    silence : float
        For the answer, and for each piece of it.
    window, least : float, int
        In each window of seconds, so many bytes have to come.
    tries : int
        For each address.
    pause : float
        Before the second try; twice as long before the next.
    """

    silence: float = 30
    window: float = 60
    least: int = 64 << 10
    tries: int = 4
    pause: float = 1


USUAL = Limits()


class Answer(NamedTuple):
    """What a server says before the content; ``length`` is that of the content, if it says it."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    length: int | None


class Again(Exception):
    """It went wrong, and may go well the next time."""


class Refused(Exception):
    """The address has not what is wanted, or is not safe."""


def pieces(
    url: str, headers: dict[str, str], limits: Limits, local: bool
) -> Iterator[Answer | bytes]:
    """The answer to one request, and then its content in pieces, each of them in time.

    Parameters
    ----------
    url : str
        Proxies are those of the environment, as urllib takes them.
    headers : dict of str to str
    limits : Limits
    local : bool
        Take plain http too, from this computer only.

    Raises
    ------
    Refused
        The address is not safe, or leads to one that is not.
    Again
        Whatever else a network can do.
    """
    _check_address(url, local)
    request = urllib.request.Request(url, headers=headers)
    found: queue.Queue = queue.Queue(maxsize=4)
    abandoned = threading.Event()
    threading.Thread(
        target=_receive,
        args=(lambda: _opener(local).open(request, timeout=limits.silence), found, abandoned),
        daemon=True,
    ).start()
    came, since = 0, time.monotonic()
    try:
        while True:
            try:
                piece = found.get(timeout=limits.silence)
            except queue.Empty:
                raise Again(f"nothing came for {limits.silence:g} seconds") from None
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise _meaning(piece, limits) from piece
            yield piece
            came += len(piece) if isinstance(piece, bytes) else 0
            if (now := time.monotonic()) - since > limits.window:
                if came < limits.least:
                    raise Again(f"only {came:,} bytes came in {limits.window:g} seconds")
                came, since = 0, now
    finally:
        abandoned.set()


def _receive(
    ask: Callable[[], http.client.HTTPResponse], found: queue.Queue, abandoned: threading.Event
) -> None:
    """In a thread of its own: put the answer, its pieces, and the end or what went wrong."""

    def put(piece: object) -> None:
        while not abandoned.is_set():
            with suppress(queue.Full):
                return found.put(piece, timeout=0.1)

    try:
        with ask() as answer:
            put(Answer(answer.status, answer.reason, answer.headers, answer.length))
            while not abandoned.is_set() and (piece := answer.read1(PIECE)):
                put(piece)
        put(None)
    except Exception as error:  # whatever a server, a proxy or a name server can cause
        put(error)


def _meaning(error: Exception, limits: Limits) -> Exception:
    """What a failure of the network means for the next try."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return Again(f"nothing came for {limits.silence:g} seconds")
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return Again(str(reason) or type(reason).__name__)
    return error


class _Answers(urllib.request.HTTPErrorProcessor):
    """Every answer is one, of whatever status; only redirects are followed."""

    def http_response(self, request, response):
        return (
            super().http_response(request, response) if response.status in REDIRECTS else response
        )

    https_response = http_response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a server elsewhere only where it is as safe."""

    def __init__(self, local: bool) -> None:
        self.local = local

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()  # the page that comes with it may be endless
        _check_address(newurl, self.local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(local: bool) -> urllib.request.OpenerDirector:
    """Https with the proxies of the environment, and nothing else that urllib could open."""
    opener = urllib.request.OpenerDirector()
    handlers = [
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Answers(),
        _Redirects(local),
    ]
    for handler in [*handlers, *([urllib.request.HTTPHandler()] if local else [])]:
        opener.add_handler(handler)
    return opener


def _check_address(url: str, local: bool) -> None:
    """Refuse what is neither https nor, where that is allowed, this computer."""
    try:
        parts = urlsplit(url)
        allowed = bool(parts.hostname) and (
            parts.scheme == "https"
            or (local and parts.scheme == "http" and parts.hostname in LOCAL)
        )
    except ValueError:
        allowed = False
    if not allowed:
        raise Refused(f"it leads to {url!r}, and only https is taken")
