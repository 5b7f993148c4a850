"""The images that were typed, for `classify` and `features`: any number, and runs that go on."""

from __future__ import annotations

import argparse
import codecs
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ...errors import UsageError
from ...system.files import shown
from ..options import positive
from ..output.progress import say

if TYPE_CHECKING:
    from ...data.trees.sources import Images
    from ...inference.many.rows.journal import Journal
    from ...inference.model import Model

MOST_NAMES = 64 << 20  # bytes of the names on standard input


def add_paths(c: argparse.ArgumentParser) -> None:
    """Add the positional ``PATH...``, for commands that read images."""
    c.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image; a directory, a zip or a tar of images; a .txt with a path a line; a "
        "pattern such as 'shard-{000..010}.tar'; or - for paths on standard input",
    )


def add_batch(c: argparse.ArgumentParser) -> None:
    """Add ``--batch``."""
    c.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="images that go through the network together (8 at first; of many images, the size "
        "that is fastest and for which there is memory)",
    )


def add_fast_decode(c: argparse.ArgumentParser) -> None:
    """Add ``--fast-decode``."""
    c.add_argument(
        "--fast-decode",
        action="store_true",
        help="decode large JPEGs at a reduced size, with at least twice the pixels that are "
        "needed: faster, and the results differ slightly (of a model that resizes as Torch7 or "
        "Keras do, which take single pixels, more than slightly)",
    )


def add_resume(c: argparse.ArgumentParser) -> None:
    """Add ``--resume``, for commands that write rows to a file."""
    c.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run to the same file that was stopped or killed, if there is one",
    )


def images_of(paths: list[str]) -> tuple[Images, int]:
    """Return the images that were typed, and their number; raise `UsageError` if there is none."""
    from ...data.trees.sources import Images

    found = Images(paths, _names_on_stdin() if "-" in paths else ())
    count = found.count()
    left = _left(found.left_out)
    if not count:
        raise UsageError(
            f"there is no image in {', '.join(paths):.300}; {''.join(f'{one}; ' for one in left)}"
            "expected files such as photo.jpg, or directories or archives of them (raw pixels, "
            "such as CIFAR's and MNIST's, are for `evaluate`, and in Python for data.open_dataset)"
        )
    if found.empty:
        say(f"there is no image in {', '.join(map(shown, found.empty)):.300}")
    for one in left:
        say(one)
    return found, count


def _left(left_out: Mapping[str, int]) -> list[str]:
    """Return what was left out, in sentences."""
    every = {k: f"{n} {k}{'' if n == 1 else 's'}" for k, n in left_out.items()}
    inner = every.pop("inner archive", None)
    found = []
    if every:
        kinds = " and ".join(every.values())
        found.append(f"the folders have {kinds}, which are not read; name them to read them")
    if inner is not None:
        found.append(f"archives have {inner}, which are not read; unpack them to read them")
    return found


@contextmanager
def stopping(file: str, kept: Journal) -> Iterator[None]:
    """Say how to go on, if the run is stopped in the ``with`` block."""
    try:
        yield
    except KeyboardInterrupt:
        rows = f"{kept.done} row{'' if kept.done == 1 else 's'}"
        raise KeyboardInterrupt(
            f"interrupted: {shown(file)}.part has {rows}; the same command with --resume goes on"
        ) from None


def batch_of(a: argparse.Namespace) -> tuple[int | None, int]:
    """Return the size of the mini-batches of a run that can go on, and how many rows it keeps."""
    from ...inference.many.batches import batch_and_step

    return batch_and_step(_device(a), a.batch)


def _device(a: argparse.Namespace) -> str:
    """Return the device without its number: two GPUs of one machine are alike."""
    return str(a.device.partition(":")[0])  # "auto" has been replaced (`options.choose_device`)


def computed_by(a: argparse.Namespace, models: Sequence[Model]) -> dict[str, Any]:
    """Return what the last digits of rows depend on: a quantised model has its own precision."""
    precisions = dict.fromkeys(model.precision for model in models)
    found = {"precision": " + ".join(precisions), "device": _device(a)}
    return found if found["device"] == "cpu" else found | {"batch": batch_of(a)[0]}


def _names_on_stdin() -> Iterator[str]:
    """Yield the lines of standard input; raise `UsageError` if it is not text, or too long."""
    try:
        missing = sys.stdin is None or getattr(sys.stdin, "closed", False)
        text = "" if missing else _text_of(sys.stdin)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            "standard input is not text; - expects the names of images there, one a line"
        )
    # Not splitlines: a name may have other characters in it that end a line for Unicode.
    # Empty lines are no names, and there may be more of them than a list should have.
    return (line[0].removeprefix("\ufeff") for line in re.finditer(r"[^\r\n]+", text))


def _text_of(stream: TextIO) -> str:
    """Return all text of a stream; a byte order mark says its encoding, whatever the terminal's is.

    PowerShell writes one, in UTF-8 or UTF-16. In the encoding of files' names, a name may have
    bytes that are no text, as in a list (`lines_of`).
    """
    from ...data.typed import encoding_of

    raw = getattr(stream, "buffer", None)
    data: Any = (stream if raw is None else raw).read(MOST_NAMES + 1)
    if len(data) > MOST_NAMES:
        raise UsageError(f"standard input has more than {MOST_NAMES:,} bytes of names; give fewer")
    if raw is None:
        return str(data)
    if (encoding := encoding_of(data[:4])) is not None:
        return str(data.decode(encoding))
    encoding, errors = stream.encoding or "utf-8", stream.errors or "strict"
    if codecs.lookup(encoding) == codecs.lookup(sys.getfilesystemencoding()):
        errors = sys.getfilesystemencodeerrors()
    return str(data.decode(encoding, errors))
