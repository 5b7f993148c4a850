"""The expected size and digests of a download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import IntegrityError
from ..system.files import PIECE, regular, shown

__all__ = ["Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What the file has to be.

    Parameters
    ----------
    most : int
        Bytes that it can have.
    bytes : int, optional
        Bytes that it must have.
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
        """Whether a digest was published."""
        return bool(self.sha256 or self.md5)

    def check(self, path: Path) -> str:
        """Read the file and return its sha256.

        Raises
        ------
        FormatError
            It cannot be read.
        IntegrityError
            It is another file.
        """
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        with regular(path) as file:
            while piece := file.read(PIECE):
                size += len(piece)
                sha256.update(piece)
                if self.md5:
                    md5.update(piece)
        for what, found, wanted in (
            ("bytes", size, self.bytes),
            ("a sha256 of", sha256.hexdigest()[: len(self.sha256)], self.sha256),
            ("an md5 of", md5.hexdigest(), self.md5),
        ):
            if wanted and found != wanted:
                raise IntegrityError(
                    f"{shown(path.name)} has {what} {found}, expected {wanted}: it is damaged or "
                    "another file"
                )
        return sha256.hexdigest()
