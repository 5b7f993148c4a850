"""One answer over https, piece by piece, with a limit on how long each piece may take.

The transfer happens in a thread, which may hang anywhere: in a name server, a handshake or a header
that never ends. The caller waits only a limited time for the next piece.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["USUAL", "Again", "Answer", "Limits", "Refused", "answered"]

PIECE = 1 << 18
REDIRECTS = (301, 302, 303, 307, 308)
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, and how often to try.

    Parameters
    ----------
    silence : float
        The longest wait for the answer, and for each piece of it.
    window, least : float, int
        In each window of seconds, at least so many bytes have to come.
    tries : int
        For each address.
    pause : float
        Before the second try; it doubles before each further try.
    """

    silence: float = 30
    window: float = 60
    least: int = 64 << 10
    tries: int = 4
    pause: float = 1


USUAL = Limits()


class Answer(NamedTuple):
    """What a server says before the content; ``length`` is the content's, if it is stated."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    length: int | None


_Piece = Answer | bytes | Exception | None  # None is the end


class Again(Exception):
    """The transfer failed, and another try may succeed."""


class Refused(Exception):
    """The address does not have what is wanted, or is not safe."""


@contextmanager
def answered(
    url: str, headers: dict[str, str], limits: Limits, local: bool
) -> Iterator[tuple[Answer, Iterator[bytes]]]:
    """Yield the answer to one request, and an iterator of its content in pieces, each in time.

    The end of the ``with`` block abandons the transfer.

    Parameters
    ----------
    url : str
        Proxies are those of the environment, as urllib takes them.
    headers : dict of str to str
    limits : Limits
    local : bool
        Accept plain http too, from this computer only.

    Raises
    ------
    Refused
        The address is not safe, or leads to one that is not.
    Again
        Any other failure of a network; the iterator raises it too.
    """
    _check_address(url, local)
    request = urllib.request.Request(url, headers=headers)
    found: queue.Queue[_Piece] = queue.Queue(maxsize=4)
    abandoned = threading.Event()
    threading.Thread(
        target=_receive,
        args=(lambda: _opener(local).open(request, timeout=limits.silence), found, abandoned),
        daemon=True,
    ).start()
    try:
        coming = _in_time(found, limits)
        answer = next(coming)
        if not isinstance(answer, Answer):  # `_receive` puts it first
            raise Again("the server sent no answer")
        yield answer, (piece for piece in coming if isinstance(piece, bytes))
    finally:
        abandoned.set()


def _in_time(found: queue.Queue[_Piece], limits: Limits) -> Iterator[Answer | bytes]:
    """Yield what the thread puts, until the end; raise what went wrong, and if it is too slow."""
    came, since = 0, time.monotonic()
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


def _receive(
    ask: Callable[[], http.client.HTTPResponse],
    found: queue.Queue[_Piece],
    abandoned: threading.Event,
) -> None:
    """Put the answer, its pieces, and None or what went wrong. Runs in its own thread."""

    def put(piece: _Piece) -> None:
        while not abandoned.is_set():
            with suppress(queue.Full):
                return found.put(piece, timeout=0.1)

    try:
        with ask() as answer:
            put(Answer(answer.status, answer.reason, answer.headers, answer.length))
            while not abandoned.is_set() and (piece := answer.read1(PIECE)):
                put(piece)
        put(None)
    except urllib.error.HTTPError as error:  # an answer that holds a file open
        error.close()
        put(error)
    except Exception as error:  # whatever a server, a proxy or a name server can cause
        put(error)


def _meaning(error: Exception, limits: Limits) -> Exception:
    """Return what a failure of the network means for the next try."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return Again(f"nothing came for {limits.silence:g} seconds")
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return Again(str(reason) or type(reason).__name__)
    return error


class _Answers(urllib.request.HTTPErrorProcessor):
    """Returns every answer, of any status; only redirects are followed."""

    def http_response(self, request, response):
        if response.status in REDIRECTS:
            return super().http_response(request, response)
        return response

    https_response = http_response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address only if that is as safe."""

    def __init__(self, local: bool) -> None:
        self.local = local

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()  # the page that comes with a redirect may be endless
        _check_address(newurl, self.local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(local: bool) -> urllib.request.OpenerDirector:
    """Return an opener for https with the proxies of the environment, and for nothing else."""
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
    """Raise `Refused` for what is neither https nor, if that is allowed, this computer."""
    try:
        parts = urlsplit(url)
        here = local and parts.scheme == "http" and parts.hostname in LOCAL
        allowed = bool(parts.hostname) and (parts.scheme == "https" or here)
    except ValueError:
        allowed = False
    if not allowed:
        raise Refused(f"it leads to {url!r}, and only https is accepted")
