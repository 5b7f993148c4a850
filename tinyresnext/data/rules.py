"""What the name of a file or a folder says: an image, a split, or something to leave out.

Data sets in folders and in archives, and `tinyresnext.inference.classify`, ask these functions and
nothing else, so that the same folder means the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from unicodedata import normalize

__all__ = [
    "SPLITS",
    "alike",
    "image_kind",
    "is_idx",
    "is_left_out",
    "is_readable",
    "is_table",
    "meant",
    "splits_among",
]

_READ = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    ".webp": "WebP",
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    ".gif": "GIF",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}

# A data set names such a file in an error, because a training without it would not be the one that
# was meant; `classify` has a row for it, with the error. What is inside decides: if it is a JPEG
# under a false name, it is read.
_NOT_READ = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "HEIC"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"), "JPEG 2000"),
    ".jxl": "JPEG XL",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pam"), "Netpbm"),
    ".psd": "Photoshop",
    ".tga": "Targa",
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".exr", ".hdr"), "high dynamic range"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
        "camera raw",
    ),
}

# Hidden folders, and what systems and tools leave behind; each name in lower case. On Windows, the
# folders of the system begin with $ ($RECYCLE.BIN); on storage servers, with @ or # (@eaDir). The
# bins of Windows 9x and XP, Recycled and Recycler, are not here: a class of waste is called so.
_SYSTEM = frozenset(
    {
        "__pycache__",
        "system volume information",
        "lost+found",
        "#recycle",
        "#snapshot",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
    }
)

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names of the splits, each with the names that a folder of it may have in any case."""

_CANONICAL = {name: split for split, names in SPLITS.items() for name in names}
_MOST_WORDS = 4  # that are looked at in a name
# The longest first: "training" is no "train" with "ing" behind it.
_SPLIT_WORD = re.compile("|".join(sorted(_CANONICAL, key=len, reverse=True)))


def is_left_out(name: str, folder: bool) -> bool:
    """Return whether a file or a folder is hidden, or is one that a system or a tool made.

    A file may begin with ``@`` or ``$``, as images from shops and social networks do.
    """
    begins = (".", "__MACOSX", "@", "$") if folder else (".", "__MACOSX")
    return name.startswith(begins) or name.lower() in _SYSTEM


def image_kind(name: str) -> str | None:
    """Return the format of an image by the ending of its name, or None if it is no image."""
    ending = _ending(name)
    return _READ.get(ending) or _NOT_READ.get(ending)


def is_readable(name: str) -> bool:
    """Return whether the ending of a name is that of a format that is read."""
    return _ending(name) in _READ


def is_idx(name: str) -> bool:
    """Return whether a file is called as those of MNIST."""
    return re.search(r"[-.]idx[13]-ubyte(\.gz)?$", name) is not None


def is_table(name: str) -> bool:
    """Return whether a file is called as a table is."""
    return _ending(name) in (".csv", ".tsv")


def alike(name: str) -> str:
    """Return what names have in common that differ only in capital letters or forms of accents."""
    return normalize("NFC", name).casefold()


def meant(split: str) -> str | None:
    """Return the split that a name means: "train", "val" or "test"; None if it means none."""
    return _CANONICAL.get(split.lower())


def usual(splits: Iterable[str], first: str = "test") -> str:
    """Return the split of those meant that is taken if none is named: the first, test or val."""
    there = set(splits)
    return next((split for split in (first, "test", "val") if split in there), "test")


def splits_among(folders: Iterable[str]) -> dict[str, str]:
    """Return the folders that hold splits, each with the split: "train", "val" or "test".

    A folder holds a split if its name is one of `SPLITS` in any case. Names around these words
    count if at least two folders have the same: ``seg_train`` and ``seg_test`` are splits, a class
    ``bullet_train`` is none.
    """
    names = sorted(folders)
    found = {name: _CANONICAL[name.lower()] for name in names if name.lower() in _CANONICAL}
    around: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        for word in islice(_SPLIT_WORD.finditer(name.lower()), _MOST_WORDS):
            rest = name.lower()[: word.start()], name.lower()[word.end() :]
            around.setdefault(rest, {})[name] = _CANONICAL[word[0]]
    for group in around.values():
        if len(set(group.values())) > 1:
            found = group | found
    return found


def _ending(name: str) -> str:
    """Return the ending of a name in lower case, with its dot, or nothing."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""
