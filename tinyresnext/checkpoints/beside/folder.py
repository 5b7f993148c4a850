"""Which file of a folder has the weights, and the JSON objects that lie beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...errors import FormatError
from ...system.files import regular
from ..readers.parts import of_the_folder

__all__ = ["CONFIG", "MOST", "json_object", "weights"]

CONFIG = "config.json"
MOST = 1 << 20  # bytes of a JSON text; one with 20,000 labels has less
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


def json_object(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the JSON object in a file of a folder, None if there is none, or anything else.

    Raises
    ------
    UnsafeError
        The file is a link that leaves the folder.
    """
    if not os.path.isfile(folder / name):
        return None
    with regular(of_the_folder(folder, name)) as file:
        text = file.read(MOST + 1)
    try:
        found = json.loads(text.decode("utf-8-sig")) if len(text) <= MOST else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
