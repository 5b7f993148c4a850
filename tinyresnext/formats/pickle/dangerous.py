"""Names that no checkpoint has any use for: they run code or commands, open files or connections.

Nothing that a pickle names is ever imported, so none of them could do harm here. But a file that
names one was made to do harm elsewhere, or is no checkpoint, and is refused. Everything else is
harmless: the objects that training scripts save beside the weights come from any module.
"""

from __future__ import annotations

import re
import sys

from .vocabulary import Global

__all__ = ["is_plain", "is_public", "runs_code"]

MAX_NAME = 256  # characters of a name with its module


def _words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Modules of Python's library that only have data, and functions on data. All others are refused
# whole: the operating system, processes, files, networks, interpreters, debuggers, installers.
_DATA = _words(
    """
    _collections _collections_abc _datetime _decimal _functools _operator _pydatetime _pydecimal
    _queue _random _sre _struct _typing _weakref _weakrefset _zoneinfo abc argparse array bisect
    builtins calendar cmath collections colorsys configparser contextlib contextvars copy
    dataclasses datetime decimal difflib enum errno fractions functools getopt graphlib heapq
    ipaddress itertools json keyword math numbers operator optparse pathlib pprint queue random re
    reprlib statistics string struct textwrap time token tomllib typing unicodedata weakref
    zoneinfo __builtin__ Queue
    """
)
# Of other modules, what is data
_ONLY = {
    module: _words(names)
    for module, names in {
        "_codecs": "encode decode",
        "codecs": "encode decode",
        "_io": "BytesIO StringIO",
        "io": "BytesIO StringIO",
        "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "inspect": "Parameter Signature _ParameterKind _empty",
        "logging": "Logger RootLogger getLogger Formatter Filter",
        "os": "stat_result terminal_size times_result uname_result",
        "posix": "stat_result terminal_size times_result uname_result",
        "platform": "uname_result",
        "signal": "Signals",
        "sys": "version_info",
        "types": "SimpleNamespace MappingProxyType GenericAlias UnionType NoneType EllipsisType "
        "NotImplementedType MethodType",
        "urllib.parse": "ParseResult SplitResult",
        "uuid": "UUID SafeUUID",
    }.items()
}
# Of modules with data, what runs code, opens files or reaches into objects
_NOT = {
    "builtins": _words(
        """
        eval exec execfile compile open file input raw_input breakpoint setattr delattr globals
        locals vars apply reload exit quit help
        """
    ),
    "collections": frozenset({"namedtuple"}),
    "dataclasses": frozenset({"make_dataclass"}),
    "typing": frozenset({"get_type_hints", "_eval_type"}),
    "operator": frozenset({"attrgetter", "methodcaller", "call"}),
}
_NOT |= {"__builtin__": _NOT["builtins"], "_operator": _NOT["operator"]}
# Modules of Python 2, of older versions, and packages whose work is to run or to install programs
_OTHERS = _words(
    """
    __builtin__ Queue commands copy_reg distutils httplib ihooks imp lib2to3 new popen2 rexec
    urllib2 urlparse cPickle IPython cffi cloudpickle conda dill fabric functorch invoke joblib
    paramiko pexpect pip pkg_resources plumbum ptyprocess setuptools sh wheel yaml _pyrepl _testcapi
    """
)
# Modules of NumPy and PyTorch that compile, load and run programs, or ask the system
_PARTS = _words(
    """
    numpy.compat numpy.ctypeslib numpy.distutils numpy.f2py numpy.testing numpy.lib._npyio_impl
    numpy.lib.npyio torch._appdirs torch._dynamo torch._export torch._functorch torch._inductor
    torch._numpy torch.classes torch.distributed.elastic torch.distributed.launch
    torch.distributed.launcher torch.distributed.rpc torch.distributed.run torch.export
    torch.fx.graph_module torch.fx._symbolic_trace torch.hub torch.jit torch.multiprocessing
    torch.onnx torch.ops torch.package torch.testing torch.utils._config_module
    torch.utils.benchmark torch.utils.bottleneck torch.utils.collect_env torch.utils.cpp_extension
    torch.utils.hipify torch.utils.model_zoo torch.utils.tensorboard
    """
)
_LOADS = re.compile(
    r"_?(?:load|save|open|run|exec|eval|compile|import|fromfile|from_file|memmap|genfromtxt|tofile)"
)
# Through an attribute of another module, these are reached as well
_REACHED = _words(
    "os sys posix nt subprocess builtins importlib shutil socket ctypes pickle marshal runpy"
)


def is_plain(name: Global) -> bool:
    """Return whether this is a dotted name of identifiers that a class or function may have."""
    parts = [*name.module.split("."), *name.name.split(".")]
    special = ("__main__", "__mp_main__", "__builtin__", "__new__", "__newobj__", "__newobj_ex__")
    return len(name.module) + len(name.name) <= MAX_NAME and all(
        part.isascii()
        and part.isidentifier()
        and (part in special or not (part.startswith("__") and part.endswith("__")))
        for part in parts
    )


def is_public(name: Global) -> bool:
    """Return whether this is of Python's library, NumPy or PyTorch, or of those of `_OTHERS`."""
    top = name.module.partition(".")[0]
    return top in sys.stdlib_module_names or top in _OTHERS or top in ("numpy", "torch")


def runs_code(name: Global) -> bool:
    """Return whether this runs code or commands, opens files or connections, or may lead there."""
    module, parts = name.module, name.name.split(".")
    top = module.partition(".")[0]
    if any(part.lstrip("_") in _REACHED for part in parts[:-1]):
        return True
    if module in _ONLY:
        return parts[0] not in _ONLY[module]
    if top in ("numpy", "torch"):
        whole = f"{module}.{name.name}."
        below = any(whole.startswith(f"{part}.") for part in _PARTS)
        return below or _LOADS.match(parts[-1]) is not None
    if top == "pathlib" and len(parts) > 1:  # Path.write_text
        return True
    if top in _DATA:
        return parts[0] in _NOT.get(module, ())
    return is_public(name)
