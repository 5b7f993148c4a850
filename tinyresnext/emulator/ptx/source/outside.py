"""What stands in the PTX around the body of a kernel: constant arrays, and functions it calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ....errors import DeviceError

if TYPE_CHECKING:
    from .parse import Code

# What Numba makes calls of, by what the compiler calls it.
MEANT = {
    "vprintf": "print",
    "__internal_accurate_pow": "** and math.pow of float64, which x ** 2.5 is for a float32, too",
    "__internal_trig_reduction_slowpathd": "sin, cos and tan of float64",
    "cudaCGGetIntrinsicHandle": "cooperative groups",
    "cudaCGSynchronize": "cooperative groups",
}


def check_calls(text: str, kernel: str, files: dict[str, str]) -> None:
    """Raise `DeviceError` if a kernel calls a function; ``files`` has their names by number."""
    if ".func" not in text:
        return
    found = re.search(r"\bcall(?:\.uni)?\s+(?:\([^)]*\)\s*,)?\s*([\w$]+)", text)
    name = found[1] if found else "a function"
    for part, said in MEANT.items():
        name = said if part in name else name
    places = re.findall(r"\.loc\s+(\d+)\s+(\d+)", text[: found.start()] if found else "")
    line = f" ({files.get(places[-1][0], '').rpartition('/')[2]}:{places[-1][1]})" if places else ""
    raise DeviceError(
        f"kernel {kernel} calls {name}{line}, and the emulator of PTX takes no kernel that calls "
        "functions; leave it out or compute it in another way (fibers have most of mathematics)"
    )


def read_constants(code: Code, text: str) -> None:
    """Note the arrays of whole numbers that have their values in the PTX."""
    arrays = (
        r"\.(?:global|const)\s+(?:\.align\s+(\d+)\s+)?\.[bus](\d+)\s+([\w$]+)"
        r"\[(\d+)\]\s*=\s*\{([\s\d,-]+)\}"
    )
    start = 0
    for align, bits, name, count, values in re.findall(arrays, text):
        size = int(bits) // 8
        numbers = [int(one) % (1 << int(bits)) for one in values.split(",")]
        start += -start % max(int(align or 1), size)
        code.symbols[name] = start
        numbers += [0] * (int(count) - len(numbers))  # zeros at the end are left out
        code.fixed[name] = np.array(numbers, f"u{size}").tobytes()
        start += len(code.fixed[name])
