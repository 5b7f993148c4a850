"""The architecture that a ``config.json`` beside a checkpoint names, as timm's folders have it.

Blur pooling, another activation and dilation leave no trace in the tensors, so a network that has
them has the names and shapes of a plain one. Only the name of the architecture tells.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import FormatError, ShapeError
from ..network.spec import VARIANTS, Spec, describe
from ..system.files import shown

__all__ = ["check"]

MOST = 1 << 20  # bytes of a config.json; one with 20,000 labels has less
# Names of plain networks: depth, a d for a deep stem and averaged shortcuts, cardinality and width
_PLAIN = re.compile(
    r"(?:tv_|gluon_|ig_|ssl_|swsl_|wide_)?res(?:net|next)(\d{1,4})(d?)"
    r"(?:_(\d{1,4})x(\d{1,4})d|_2)?"
)
_PART = re.compile(r"-\d+-of-0*([1-9]\d*)\.\w+")
# Arguments of timm's networks that change what is computed
_CHANGES = ("aa_layer", "act_layer", "attn_layer", "block_args", "norm_layer", "output_stride")


def check(path: str | os.PathLike[str], spec: Spec, given: bool) -> None:
    """Raise unless the architecture that is named beside a checkpoint is this one, or none is.

    Parameters
    ----------
    path : path
        Of the checkpoint. A ``config.json`` in its folder that is not timm's is not looked at.
    spec : Spec
        What the tensors are.
    given : bool
        Whether the user has named the architecture, which then counts.

    Raises
    ------
    FormatError
        This version cannot compute what is named, or the file is a part of a checkpoint by its
        name: the first part alone may look like a smaller network.
    ShapeError
        It is another network than the tensors are.
    """
    part = _PART.search(Path(path).name)
    if part and part[1] != "1":
        raise FormatError(
            f"{shown(path)}: by its name this is one of {part[1]} parts of a checkpoint; load all "
            "of them and save their tensors in one .safetensors file"
        )
    config = _config(Path(path).parent / "config.json")
    name, arguments = config.get("architecture"), config.get("model_args")
    if not isinstance(name, str) or not name:
        return
    named, file = _PLAIN.fullmatch(name), shown(path)
    changes = isinstance(arguments, dict) and [key for key in _CHANGES if arguments.get(key)]
    if named is None or changes:
        what = f"{ascii(name)[:80]}{' with ' + ', '.join(changes) if changes else ''}"
        raise FormatError(
            f"{file}: config.json beside it names the architecture {what}, which this version "
            "cannot compute, though its tensors may look like those of a plain network; use a "
            "plain ResNeXt"
        )
    if not given and not _is(spec, named, VARIANTS.get(name)):
        raise ShapeError(
            f"{file}: config.json beside it names the architecture {name!r}, and the tensors are "
            f"{describe(spec)}; if the tensors are right, say --arch NAME, or move the file away "
            "from config.json"
        )


def _config(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one if there is none."""
    try:
        if not path.is_file() or path.stat().st_size > MOST:
            return {}
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is(spec: Spec, named: re.Match[str], variant: Spec | None) -> bool:
    """Return whether a network is the one of that name."""
    depth, deep, cardinality, width = named.groups()
    paths = int(cardinality or 1), int(width or spec.width)
    if variant is not None and spec.blocks != variant.blocks:
        return False
    same = (spec.depth, spec.cardinality, spec.width) == (int(depth), *paths)
    return same and (spec.stem == "deep") == bool(deep)
