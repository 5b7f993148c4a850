"""Functions that Numba compiles for this processor, kept on disk beside the project's kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..ops.cpu.runtime.kernel import c_kernel, kernel


def source_of(file: str) -> tuple[str]:
    """Return what tells the functions of a module from those of its other versions."""
    return (hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16],)


def kept(file: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of a module, given as its ``__file__``, when it is first called."""
    return kernel(nogil=True, key=source_of(file))


def kept_c(signature: Any, file: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for one signature, with an address, as C calls it."""
    return c_kernel(signature, key=source_of(file))
