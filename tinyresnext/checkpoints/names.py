"""Other systems' key names -> torchvision's (timm's where torchvision has no such network: the deep stem, avg-down).

Each system spells the same tree of modules in its own way. A scheme is recognised from the keys alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from ..errors import FormatError

T = TypeVar("T")

_TORCHVISION = re.compile(
    r"(conv1(\.[036])?|bn1|conv1\.[14]|layer\d+\.\d+\.(conv[123]|bn[123]|downsample\.[012])|fc)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


def to_torchvision(tensors: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict's entries, and leave out those that only count training steps.

    Parameters
    ----------
    tensors : mapping of str to anything
        As a checkpoint has them, prefixes of wrappers already gone.

    Returns
    -------
    dict
        Under torchvision's names, in the same order.

    Raises
    ------
    FormatError
        When keys do not belong to a scheme that is known here; the message has the first ones.
    """
    foreign = [key for key in tensors if not _TORCHVISION.fullmatch(key)]
    if foreign:
        shown = ", ".join(repr(key[:80]) for key in foreign[:3])
        raise FormatError(
            f"{len(foreign)} of {len(tensors)} keys are not a ResNeXt's as torchvision and timm name them: {shown}"
            f"{' ...' if len(foreign) > 3 else ''}; expected keys such as 'conv1.weight', 'layer1.0.conv2.weight' and 'fc.bias'"
        )
    return {key: value for key, value in tensors.items() if not key.endswith(".num_batches_tracked")}
