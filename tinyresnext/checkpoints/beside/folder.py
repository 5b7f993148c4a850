"""Which file has the weights, where a folder or its ``config.json`` is named."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import FormatError
from ..readers.parts import of_the_folder

__all__ = ["CONFIG", "weights"]

CONFIG = "config.json"
# As timm and transformers save them; the first that is there is taken
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def weights(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the file of a folder that has the weights; any other path is returned as it is.

    Parameters
    ----------
    path : path
        A folder, or the ``config.json`` in it.

    Raises
    ------
    FormatError
        The folder has no such file.
    UnsafeError
        It is a link that leaves the folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        return path  # the reader says what is wrong with it
    if os.path.basename(path) == CONFIG and os.path.isfile(path):
        folder = Path(path).parent
    elif os.path.isdir(path):
        folder = Path(path)
    else:
        return path
    for name in _NAMES:
        if os.path.lexists(folder / name):
            return of_the_folder(folder, name)
    raise FormatError(
        f"{os.fspath(folder)!r} is a folder without {', '.join(_NAMES)}; name the file with the "
        "weights"
    )
