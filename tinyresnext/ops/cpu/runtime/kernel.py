"""How a Python function becomes a kernel: compiled when it is first called, and kept on disk.

Numba has a cache of its own. A damaged file in it raises errors, or ends the process; it does not
see that a function which a kernel calls has changed; and where it cannot write it refuses to
compile. So only its way of turning compiled code into bytes is used here, and `cache` keeps the
bytes.

Functions that only kernels call are their parts (`part`). Numba would give each one an entrance
from Python, optimise it and emit its machine code, link it into the kernels that call it, and
optimise and emit it there again. A part is only translated to LLVM's language, and the rest is done
once, in the kernel; that halves the time until the first prediction.

Neither is part of Numba's public interface: with a version in which it has changed, nothing is
kept, compiling takes longer, and everything else works.

Functions that Numba compiles (decorated by `kernel`, `part`, ``in_tasks``, ``intrinsic`` or
``overload``) have no type annotations: Numba finds their types, and mypy does not check them.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import re
import secrets
from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba import cfunc, config, core, njit
from numba.extending import overload

from . import cache

ccallback: Any
NullCache: Any
try:
    from numba.core import ccallback
    from numba.core.caching import NullCache
except ImportError:  # an unknown Numba: nothing is an instance of this, so nothing is kept
    ccallback, NullCache = None, type("NullCache", (), {})
PartCompiler: Any
try:
    from .compiling.parts import PartCompiler
except (ImportError, AttributeError, KeyError):  # an unknown Numba: its own way is slower
    PartCompiler = core.compiler.Compiler


def compiles() -> bool:
    """Return whether Numba compiles; ``NUMBA_DISABLE_JIT=1`` switches that off."""
    return not vars(config)["DISABLE_JIT"]


def kernel(
    *,
    parallel: bool = False,
    nogil: bool = False,
    fastmath: bool | set[str] = False,
    key: tuple[Any, ...] = (),
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a kernel. With ``NUMBA_DISABLE_JIT=1`` it stays a plain function.

    Parameters
    ----------
    parallel, nogil, fastmath
        As Numba's.
    key : tuple
        For a function inside a function: the values from outside that it uses. They become part of
        its name.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not compiles():
            return function
        rename(function, key)
        made = njit(parallel=parallel, nogil=nogil, fastmath=fastmath)
        return _keep(made(function), function)

    return decorate


def part(
    *, fastmath: bool | set[str] = False, inline: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let kernels call a function; Python may call it too, and then it is not compiled.

    Parameters
    ----------
    fastmath
        As Numba's.
    inline : bool
        Whether LLVM is told to copy the function to where it is called; by default LLVM decides.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if compiles():
            options = as_part(fastmath=fastmath, inline=inline)
            overload(function, strict=False, jit_options=options)(lambda *args: function)
        return function

    return decorate


def as_part(*, fastmath: bool | set[str] = False, inline: bool = False) -> Any:
    """Return the options with which Numba's ``overload`` makes a function a `part`."""
    return {
        "pipeline_class": PartCompiler,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "fastmath": fastmath,
        "forceinline": inline,
    }


def c_kernel(signature: Any, *, key: tuple[Any, ...] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at once, for one signature, as a C function with an ``address``.

    For ``key`` see `kernel`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not compiles():
            return function
        rename(function, key)
        return _c_function(function, signature)

    return decorate


def c_kernel_kept(name: str, signature: Any) -> bool:
    """Return whether there is a file of the C function of that full name."""
    wanted = core.sigutils.normalize_signature(signature)[0]
    return cache.has(name, repr(wanted))


def _c_function(function: Callable[..., Any], signature: Any) -> Any:
    """Return what Numba's ``cfunc`` returns, but with our cache put in before it compiles."""
    try:
        made = ccallback.CFunc(function, core.sigutils.normalize_signature(signature), {}, {})
    except (AttributeError, TypeError):  # an unknown Numba: not kept
        return cfunc(signature)(function)
    _keep(made, function).compile()
    return made


def _keep(made: Any, function: Callable[..., Any]) -> Any:
    """Put our cache in the place of Numba's own."""
    if isinstance(getattr(made, "_cache", None), NullCache):
        made._cache = _Cache(function)
    return made


def rename(function: Callable[..., Any], key: tuple[Any, ...]) -> None:
    """Give functions that one factory made different names.

    Numba derives the symbols in the machine code from the names.
    """
    if key:
        function.__qualname__ += "_" + re.sub(r"\W", "_", "_".join(map(str, key)))


# --- Numba's side of the cache --------------------------------------------------------------------


class _Cache(NullCache):
    """The cache of one function, which Numba reads before it compiles and writes afterwards.

    Any error counts as a cache miss.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = _named(function)

    @property
    def cache_path(self) -> str | None:
        """Return the folder, for Numba's own statistics."""
        return str(cache.folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code for these types, or None."""
        wanted = None
        try:
            wanted = core.sigutils.normalize_signature(sig)[0]
            _number_apart(os.getpid())
            payload = cache.read(self._name, repr(wanted))
            if payload is None:
                return None
            needed, state = pickle.loads(payload)
            core.runtime.rtsys.initialize(target_context)
            # Numba fills its tables before it compiles, which takes a sixth of a second. Loading
            # needs none of them, unless code calls a function whose address is only known then.
            if any(binding.address_of_symbol(name) is None for name in needed):
                target_context.refresh()
            found = core.compiler.CompileResult._rebuild(target_context, *state)
            return found if found.signature.args == wanted else None
        # An unknown Numba, or a pickle that names what is no longer there.
        except Exception:
            cache.drop(self._name, repr(wanted))
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, unless addresses of this process are part of it."""
        try:
            _number_apart(os.getpid())  # or nothing is kept: see there
            wanted = core.sigutils.normalize_signature(sig)[0]
            if data.lifted or data.library.has_dynamic_globals or " at 0x" in repr(wanted):
                return
            payload = core.serialize.dumps((_needed(data.library), data._reduce()))
            cache.write(self._name, repr(wanted), payload)
        except Exception:
            return


def _needed(library: Any) -> list[str]:
    """Return the names of what the compiled code calls or reads outside of itself."""
    module = library._final_module
    outside = [v for v in (*module.functions, *module.global_variables) if v.is_declaration]
    return [value.name for value in outside if not value.name.startswith("llvm.")]


def _named(function: Callable[..., Any]) -> str:
    """Return the name that the cache has for a function."""
    return f"{function.__module__}.{function.__qualname__}"


@functools.cache
def _number_apart(process: int) -> None:
    """Let Numba count from a random number, a different one in each process, also after a fork.

    The count is part of the names in the machine code, and one process loads code that several
    compiled: of two symbols with the same name, the linker would take the first for both.

    Raises
    ------
    AttributeError
        An unknown Numba counts in another way.
    """
    numbered = core.bytecode.FunctionIdentity
    _ = numbered._unique_ids
    numbered._unique_ids = itertools.count(secrets.randbits(48))
