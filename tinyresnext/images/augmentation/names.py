"""The names of policies: torchvision's ``--auto-augment`` and timm's ``--aa``.

They are checked without NumPy and Pillow, which the help of the command line does not need.
"""

from __future__ import annotations

import re

from ...errors import UsageError

__all__ = ["NAMES", "check_name", "options"]

NAMES = ("imagenet", "cifar10", "ra", "ta_wide", "augmix", "3a")
_MAGNITUDE = ("magnitude", 0, 100)
# The letters of timm's notations: what each is, and its least and largest value.
LETTERS = {
    "rand": {
        "m": _MAGNITUDE,
        "n": ("number of operations", 1, 16),
        "p": ("probability of each", 0, 1),
        "mstd": ("standard deviation of the magnitude", 0, 1000),
        "mmax": ("largest magnitude", 1, 100),
        "inc": ("whether more is stronger", 0, 1),
    },
    "augmix": {
        "m": _MAGNITUDE,
        "w": ("number of chains", 1, 16),
        "d": ("length of each", 1, 16),
        "mstd": ("standard deviation of the magnitude", 0, 100),
    },
}
_EXAMPLES = {"rand": "rand-m7-mstd0.5-inc1", "augmix": "augmix-m5-w4-d2"}
_WHOLE = ("m", "n", "mmax", "inc", "w", "d")
_PART = re.compile(r"([a-z]+)(\d+(?:\.\d+)?)")


def check_name(name: str) -> None:
    """Check that there is such a policy.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in NAMES and name.partition("-")[0] in LETTERS:
        options(name)
    elif name not in NAMES:
        raise UsageError(
            f"there is no policy {name!r}: expected one of {', '.join(NAMES)}, or one in timm's "
            f"notation, such as {_EXAMPLES['rand']}"
        )


def options(text: str) -> dict[str, float]:
    """Return the numbers in timm's notation of RandAugment or AugMix, by their letters.

    Raises
    ------
    UsageError
        A part is unknown, out of range, or there twice.
    """
    kind, *parts = text.split("-")
    letters, found = LETTERS[kind], dict[str, float]()
    for part in parts:
        match = _PART.fullmatch(part)
        name, number = match.groups() if match else ("", "0")
        if name not in letters or (name in _WHOLE and "." in number):
            *others, last = letters
            raise UsageError(
                f"{part!r} in {text!r} is no part of a policy; expected {', '.join(others)} or "
                f"{last}, each with a number, such as {_EXAMPLES[kind]}"
            )
        what, least, most = letters[name]
        if name in found or not least <= float(number) <= most:
            raise UsageError(
                f"{part!r} in {text!r}: expected {name}, the {what}, once and from {least} to "
                f"{most}"
            )
        found[name] = float(number)
    return found
