"""A server on this computer that serves one file, well or in every way that goes wrong."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """``ways`` are used up, one a request, then ``always``; ``asked`` has the requests."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ways, self.always, self.asked = content, [], whole, []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]

    def handle_error(self, request, client_address):
        """Clients go away; that is what is tested."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        self.close_connection = True
        way = self.server.ways.pop(0) if self.server.ways else self.server.always
        with suppress(OSError):
            way(self, self.server.content)

    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers))
        self.send_error(403)

    def log_message(self, format, *args):
        """Quiet."""

    def head(self, status: int, *headers: tuple[str, object]) -> None:
        self.send_response(status)
        for name, value in (("Connection", "close"), *headers):
            self.send_header(name, str(value))
        self.end_headers()


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


Way = Callable[[Handler, bytes], None]


def tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def whole(h: Handler, content: bytes) -> None:
    """As it should be, ranges and If-Range too."""
    asked = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range") or "")
    if asked is None or h.headers.get("If-Range", tag(content)) != tag(content):
        h.head(200, ("Content-Length", len(content)), ("ETag", tag(content)))
        h.wfile.write(content)
    elif (start := int(asked[1])) >= len(content):
        h.head(416, ("Content-Range", f"bytes */{len(content)}"), ("Content-Length", 0))
    else:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        h.head(
            206,
            ("Content-Range", span),
            ("Content-Length", len(content) - start),
            ("ETag", tag(content)),
        )
        h.wfile.write(content[start:])


def plain(h: Handler, content: bytes) -> None:
    """Ranges are ignored."""
    h.head(200, ("Content-Length", len(content)))
    h.wfile.write(content)


def cut(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", len(content)), ("ETag", tag(content)))
    h.wfile.write(content[: len(content) // 2])


def length_too_small(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", len(content) // 2))
    h.wfile.write(content)


def length_too_large(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", len(content) + 1000))
    h.wfile.write(content)


def length_huge(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", 10**15))
    h.wfile.write(content)


def length_nonsense(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", "-5"))
    h.wfile.write(content[:-5])


def no_length_cut(h: Handler, content: bytes) -> None:
    h.head(200)
    h.wfile.write(content[: len(content) // 2])


def chunks_cut(h: Handler, content: bytes) -> None:
    h.head(200, ("Transfer-Encoding", "chunked"))
    h.wfile.write(b"1000\r\n" + content[:0x1000] + b"\r\n1000\r\n" + content[0x1000:0x1100])


def chunks_nonsense(h: Handler, content: bytes) -> None:
    h.head(200, ("Transfer-Encoding", "chunked"))
    h.wfile.write(b"zzzz\r\n" + content)


def page(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Type", "text/html; charset=utf-8"), ("Content-Length", 20))
    h.wfile.write(b"<html>sign in</html>")


def page_as_file(h: Handler, content: bytes) -> None:
    text = b"\n<!DOCTYPE html>".ljust(len(content))
    h.head(200, ("Content-Type", "application/octet-stream"), ("Content-Length", len(text)))
    h.wfile.write(text)


def packed(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Encoding", "gzip"), ("Content-Length", len(content)))
    h.wfile.write(content)


def flipped(h: Handler, content: bytes) -> None:
    """One bit is another."""
    plain(h, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


def endless(h: Handler, content: bytes) -> None:
    h.head(200)
    while not h.server.closing.is_set():
        h.wfile.write(bytes(1 << 16))


def silent(h: Handler, content: bytes) -> None:
    h.server.closing.wait(20)


def silent_in_the_middle(h: Handler, content: bytes) -> None:
    cut(h, content)
    h.wfile.flush()
    h.server.closing.wait(20)


def slow_header(h: Handler, content: bytes) -> None:
    """Something comes all the time, and it never gets anywhere."""
    h.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not h.server.closing.wait(0.02):
        h.wfile.write(b"x")


def slow_body(h: Handler, content: bytes) -> None:
    h.head(200, ("Content-Length", len(content)))
    for value in content:
        if h.server.closing.wait(0.02):
            return
        h.wfile.write(bytes([value]))


def nothing(h: Handler, content: bytes) -> None:
    """Hang up."""


def babble(h: Handler, content: bytes) -> None:
    h.wfile.write(b"220 smtp.example ready\r\n" * 9)


def many_headers(h: Handler, content: bytes) -> None:
    h.head(200, *((f"X-{i}", i) for i in range(500)))


def status(code: int) -> Way:
    return lambda h, content: h.send_error(code)


def to(location: str) -> Way:
    """A redirect, with a page that never ends."""

    def way(h: Handler, content: bytes) -> None:
        h.head(302, ("Location", location))
        while not h.server.closing.wait(0.001):
            h.wfile.write(bytes(1 << 12))

    return way


def to_itself(h: Handler, content: bytes) -> None:
    h.head(302, ("Location", h.server.url), ("Content-Length", 0))


def range_unasked(h: Handler, content: bytes) -> None:
    """A part, whatever was asked for."""
    h.head(
        206,
        ("Content-Range", f"bytes 5-{len(content) - 1}/{len(content)}"),
        ("Content-Length", len(content) - 5),
    )
    h.wfile.write(content[5:])


def range_unnamed(h: Handler, content: bytes) -> None:
    h.head(206, ("Content-Length", len(content)))
    h.wfile.write(content)


def range_of_another(h: Handler, content: bytes) -> None:
    """The right numbers and other bytes."""
    whole(h, bytes(len(content)))


def range_refused(h: Handler, content: bytes) -> None:
    h.head(416, ("Content-Range", "bytes */17"), ("Content-Length", 0))


def drips(seconds: float) -> Way:
    """The whole file, but not at once."""

    def way(h: Handler, content: bytes) -> None:
        h.head(200, ("Content-Length", len(content)), ("ETag", tag(content)))
        for i in range(10):
            h.wfile.write(content[i * len(content) // 10 : (i + 1) * len(content) // 10])
            time.sleep(seconds / 10)

    return way
