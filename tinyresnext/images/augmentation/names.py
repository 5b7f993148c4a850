"""The names of policies: torchvision's ``--auto-augment`` and timm's ``--aa``.

They are checked without NumPy and Pillow, which the help of the command line does not need.
"""

from __future__ import annotations

import re

from ...errors import UsageError

__all__ = ["NAMES", "check_name", "options"]

NAMES = ("imagenet", "cifar10", "ra", "ta_wide", "augmix", "3a")
# The letters of timm's notation: what each is, and its least and largest value.
LETTERS = {
    "m": ("magnitude", 0, 100),
    "n": ("number of operations", 1, 16),
    "p": ("probability of each", 0, 1),
    "mstd": ("standard deviation of the magnitude", 0, 1000),
    "mmax": ("largest magnitude", 1, 100),
    "inc": ("whether more is stronger", 0, 1),
}
_WHOLE = ("m", "n", "mmax", "inc")
_PART = re.compile(r"([a-z]+)(\d+(?:\.\d+)?)")


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
        A part is unknown, out of range, or there twice.
    """
    found: dict[str, float] = {}
    for part in text.split("-")[1:]:
        match = _PART.fullmatch(part)
        letters, number = match.groups() if match else ("", "0")
        if letters not in LETTERS or (letters in _WHOLE and "." in number):
            raise UsageError(
                f"{part!r} in {text!r} is no part of a policy; expected m, n, p, mstd, mmax or "
                "inc, each with a number, such as rand-m7-mstd0.5-inc1"
            )
        what, least, most = LETTERS[letters]
        if letters in found or not least <= float(number) <= most:
            raise UsageError(
                f"{part!r} in {text!r}: expected {letters}, the {what}, once and from {least} to "
                f"{most}"
            )
        found[letters] = float(number)
    return found
