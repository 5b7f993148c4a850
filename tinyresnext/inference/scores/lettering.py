"""Text in pictures: a font that has all characters of a text, or else a form that can be read.

Pillow's own font has hardly more than ASCII, and a font draws an empty box for every character that
it lacks. So a text is drawn with the first font that has all of it: Pillow's, or one of those that
operating systems come with.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont

__all__ = ["Font", "Lettered", "Letters"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Files of fonts with many scripts, as Linux, macOS and Windows name them: Latin, Greek and Cyrillic
# first, then those that have Chinese, Japanese and Korean as well.
FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "unifont.ttf",
    "unifont.otf",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
)
NOWHERE = "\U0010ffff"  # no font has this: what is drawn for it is drawn for all that are missing


class Lettered(NamedTuple):
    """A text as it can be drawn, its font, and the characters that had to be escaped for it."""

    text: str
    font: Font
    escaped: str


class Letters:
    """Text of one height, in pixels."""

    def __init__(self, height: float) -> None:
        self._height = height
        self._fonts: list[Font] = [ImageFont.load_default(height)]
        self._files: Iterator[Path] | None = None
        self._has: dict[tuple[int, str], bool] = {}

    def of(self, text: str) -> Lettered:
        r"""Return a text with a font that has all of it.

        Where no font has all, characters that Pillow's own font lacks are escaped, as in
        ``\u65e5``.
        """
        text = unicodedata.normalize("NFC", text)  # fonts have letters with their accents
        number = 0
        while number < len(self._fonts) or self._one_more():
            if all(self._drawn(number, character) for character in text):
                return Lettered(text, self._fonts[number], "")
            number += 1
        missing = [one for one in dict.fromkeys(text) if not self._drawn(0, one)]
        for one in missing:
            text = text.replace(one, one.encode("ascii", "backslashreplace").decode())
        return Lettered(text, self._fonts[0], "".join(missing))

    def _drawn(self, number: int, character: str) -> bool:
        """Return whether a font has a character."""
        if character.isascii():
            return True
        key = number, character
        if key not in self._has:
            font = self._fonts[number]
            try:
                self._has[key] = _shape(font, character) != _shape(font, NOWHERE)
            except UnicodeError:  # Pillow without FreeType has a font of Latin letters only
                self._has[key] = False
        return self._has[key]

    def _one_more(self) -> bool:
        """Open one more font of this computer; return whether there is one."""
        if self._files is None:
            self._files = iter(installed())
        for file in self._files:
            try:
                self._fonts.append(ImageFont.truetype(BytesIO(file.read_bytes()), self._height))
            except (OSError, ImportError):  # damaged, or Pillow has no FreeType
                continue
            return True
        return False


def _shape(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    """Return size and pixels of what a font draws for a character."""
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def installed() -> list[Path]:
    """Return the files of `FILES` that are in the system's folders of fonts, in that order."""
    found: dict[str, Path] = {}
    if sys.platform == "win32":
        folders = [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    elif sys.platform == "darwin":
        library = Path("/System/Library/Fonts")
        folders = [Path("/Library/Fonts"), library, library / "Supplemental"]
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        folders = [Path(one) / "fonts" for one in shared.split(":") if one]
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in set(names).intersection(FILES):
                found.setdefault(name, Path(place) / name)
    return [found[name] for name in FILES if name in found]
