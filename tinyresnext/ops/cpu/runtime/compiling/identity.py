"""All that compiled code depends on, besides the kernel itself: sources, versions, processor."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path

import llvmlite
import numba
from numba import config

from .....system.version import __version__

# Settings of Numba that change the code. The number of threads and their pool do not.
SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "ENABLE_AVX",
    "USING_SVML",  # Intel's library of elementary functions, where Numba has found it
)


def sources(top: Path, *patterns: str) -> str | None:
    """Return a digest of source files; None where there are none, as in a zipped application."""
    found, paths = hashlib.sha256(), sorted(path for one in patterns for path in top.glob(one))
    try:
        for path in paths:
            content, name = path.read_bytes(), path.relative_to(top).as_posix()
            found.update(f"{name} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return found.hexdigest() if paths else None


# Kernels also take constants from the reference and from the files beside it.
SOURCES = Path(__file__).parents[3], "*.py", "reference/*.py", "cpu/**/*.py"
IMPORTED = sources(*SOURCES)  # now: later the files may be others than those that were imported


@functools.cache
def identity() -> str:
    """Return all that compiled code depends on, besides the kernel itself.

    Processes for which this is equal share compiled code.
    """
    settings = [f"{name}={getattr(config, name, None)}" for name in SETTINGS]
    versions = [
        __version__,
        str(IMPORTED),
        numba.__version__,
        llvmlite.__version__,
        platform.python_implementation(),
    ]
    return "\n".join([*versions, sys.version, *_processor(), *settings])


def kind() -> str:
    """Return which kind of processor kernels are compiled for, and by which version of Numba.

    The kind is LLVM's name, and a digest of the rest.
    """
    _, name, features = _processor()
    digest = hashlib.sha256(features.encode()).hexdigest()
    return f"{name} {digest[:8]}, Numba {numba.__version__}"


def _processor() -> tuple[str, str, str]:
    """Return system, processor and its features, as LLVM names them."""
    found: tuple[str, str, str] = (
        numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    )
    return found
