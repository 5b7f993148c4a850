"""The names of policies: torchvision's ``--auto-augment`` and timm's ``--aa``.

They are checked without NumPy and Pillow, which the help of the command line does not need.
"""

from __future__ import annotations

import re

from ...errors import UsageError

__all__ = ["NAMES", "check_name", "options"]

NAMES = ("imagenet", "cifar10", "ra", "ta_wide", "augmix", "3a")
_PART = re.compile(r"(mstd|mmax|inc|m|n|p)(\d+(?:\.\d+)?)")


def check_name(name: str) -> None:
    """Check that there is such a policy.

    Raises
    ------
    UsageError
        There is none.
    """
    if name.partition("-")[0] == "rand":
        options(name)
    elif name not in NAMES:
        raise UsageError(
            f"there is no policy {name!r}: expected one of {', '.join(NAMES)}, or one in timm's "
            "notation, such as rand-m7-mstd0.5-inc1"
        )


def options(text: str) -> dict[str, float]:
    """Return the numbers in timm's notation of RandAugment, by their letters.

    Raises
    ------
    UsageError
        A part is unknown.
    """
    found = {}
    for part in text.split("-")[1:]:
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{part!r} in {text!r} is no part of a policy; expected m, n, p, mstd, mmax or "
                "inc, each with a number, such as rand-m7-mstd0.5-inc1"
            )
        found[match[1]] = float(match[2])
    return found
