"""Compiled kernels on disk: the PTX of each, in the folder that has the kernels of the processor.

The rules are those of `tinyresnext.ops.cpu.runtime.cache`: only files of the user's that nobody
else can write to, each with a digest of its content and of what it is for. A kernel is what its
name, its parameters and the compute capability say, compiled from these sources by that compiler.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from numba.core import event
from numba.cuda import cuda_paths

from ...contract import Compiling
from ...cpu.runtime import cache
from ...cpu.runtime.cache import clear as clear
from ...cpu.runtime.cache import kept as kept
from ...cpu.runtime.cache import problem as problem
from ...cpu.runtime.compiling.identity import sources
from ...cpu.runtime.compiling.watch import Watch
from .kernel import Capability, Kernel

# The packages that compile: Numba's maintained target, and NVIDIA's compilers of both majors.
PACKAGES = (
    "numba",
    "numba-cuda",
    "nvidia-nvvm",
    "nvidia-cuda-nvcc",
    "nvidia-cuda-nvcc-cu12",
    "nvidia-cuda-nvcc-cu13",
)
KERNEL = "tinyresnext:gpu kernel"  # an event, as Numba has them: one of a GPU is compiled
VARIABLES = ("CUDA_HOME", "CUDA_PATH", "NUMBA_CUDA_USE_NVIDIA_BINDING")
SOURCES = Path(__file__).parents[1], "**/*.py"
IMPORTED = sources(*SOURCES)  # what is compiled, whatever the files become later


@functools.cache
def compiler() -> str:
    """Return what compiled kernels depend on, besides themselves and the GPU."""
    found = [f"{name}={_version(name)}" for name in PACKAGES]
    found += [f"{name}={os.environ.get(name)}" for name in VARIABLES]
    return "\n".join([str(IMPORTED), *found, *_toolkit()])


def _toolkit() -> list[str]:
    """Return which files of NVIDIA's compile, as far as Numba knows them.

    Of a CUDA toolkit Python knows no version, and the link to it may lead to another one.
    """
    found = []
    for name in ("nvvm", "libdevice"):
        try:
            path = Path(cuda_paths.get_cuda_paths()[name].info).resolve()
            status = path.stat()
        except Exception:  # none, or the loader finds it; Numba raises errors of many types here
            continue
        found.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return found


def _version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ptx(kernel: Kernel, capability: Capability) -> str:
    """Return the PTX of a kernel: from the disk, or compiled and then kept.

    Raises
    ------
    DeviceError
        It has to be compiled, and NVIDIA's compiler is not there.
    """
    name = f"cuda.{kernel.name}"
    signature = "\n".join([compiler(), str(capability), str(kernel.parameters)])
    payload = cache.read(name, signature)
    if payload is not None:
        return payload.decode()
    made = kernel.ptx(capability)
    if sources(*SOURCES) == IMPORTED:
        cache.write(name, signature, made.encode())
    return made


def shown(version: int) -> str:
    """Return a version of CUDA as people write it: 13000 is 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"


def compiler_of(version: str) -> str:
    """Return what installs NVIDIA's compiler for a version of CUDA.

    The target that is built into Numba finds it in a toolkit only. Until CUDA 12 its package has
    another name, and is found only where the newer one is not.
    """
    if _version("numba-cuda") is None:
        return f"the CUDA toolkit {version}, and let CUDA_HOME name it"
    if int(version.partition(".")[0]) >= 13:
        return f"pip install 'nvidia-nvvm=={version}.*'"
    return (
        "pip uninstall -y nvidia-nvvm && "
        f"pip install 'numba-cuda[cu12]' 'nvidia-cuda-nvcc-cu12=={version}.*'"
    )


# --- telling the user that it takes a while -------------------------------------------------------


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Tell who listens that a kernel compiles in the ``with`` block: Numba does, or the driver."""
    with event.trigger_event(KERNEL, {"name": name}):
        yield


@contextmanager
def when_compiling(tell: Callable[[Compiling | None], None], after: float = 1.0) -> Iterator[None]:
    """Call ``tell`` again and again while kernels compile inside the ``with`` block."""
    with event.install_listener(KERNEL, Watch(after, tell)):
        yield
