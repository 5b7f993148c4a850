"""Torch7's ``.t7`` files, which hold a whole network as a tree of Lua objects.

The tensors ``weight``, ``bias``, ``running_mean`` and ``running_var`` of the network's modules are
named by the way from the root, with children counted from 0: ``4.0.0.0.weight``. Gradients are
never read. Batch norms say their epsilon, and all must have the same. Convolutions and poolings say
how they slide, which is handed on, and a module that no ResNeXt has is refused by its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from ...errors import FormatError, UnsafeError
from ...formats.lua.objects import MAX_DEPTH, LuaObject, LuaTensor, read_objects
from .checkpoint import MAX_TENSORS, Layers, Listed, Stored, Window, viewed

__all__ = ["listed"]

MAX_MODULES = 50_000  # met on the way through the tree, where one that is shared counts each time
MAX_TREE = 40  # of modules in modules; a ResNeXt has 7
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
SLIDING = ("kH", "kW", "dH", "dW", "padH", "padW", "padding", "dilationH", "dilationW", "ceil_mode")
SCALE = "constant_scalar"  # of MulConstant, which makes the zeros of a shortcut of type A
REPLICAS = ("nn.DataParallelTable", "nn.DataParallel")  # their first child is the network
# Classes, without the package that has them: nn, cudnn, fbnn. A softmax changes no order.
CONVOLUTIONS = ("SpatialConvolution", "SpatialConvolutionMM", "SpatialDilatedConvolution")
MAX_POOLING = "SpatialMaxPooling"
MODULES = {
    *CONVOLUTIONS, MAX_POOLING, "BatchNormalization", "CAddTable", "Concat", "ConcatTable",
    "Contiguous", "Copy", "DataParallel", "DataParallelTable", "Dropout", "Identity", "JoinTable",
    "Linear", "LogSoftMax", "MulConstant", "ParallelTable", "ReLU", "Reshape",
    "Sequential", "SoftMax", "SpatialAdaptiveAveragePooling", "SpatialAveragePooling",
    "SpatialBatchNormalization", "SpatialDropout", "Squeeze", "View",
}  # fmt: skip


def listed(file: BinaryIO) -> Listed:
    """List the tensors of an open file, at any position.

    Raises
    ------
    FormatError
        Cut short, not such a file, without a network, or with a module that no ResNeXt has.
    UnsafeError
        Built to exhaust memory or time: too deep, too many objects, tensors that reach beyond
        their storage.
    """
    kept = (*PARAMETERS, *SLIDING, "eps", SCALE)
    wrapper, root, others = _root(read_objects(file, kept))
    layers = Layers({}, {})
    tensors: dict[str, Stored] = {}
    found: dict[float, str] = {}  # from an epsilon to the first batch norm that has it
    for path, module in _modules(root):
        if len(tensors) > MAX_TENSORS:
            break  # `examine.finish` refuses them
        tensors |= _tensors(file, path, module)
        kind = _known(path, module)
        if kind in CONVOLUTIONS:
            layers.convolutions[f"{path}.weight" if path else "weight"] = _window(path, module)
        elif kind == MAX_POOLING:
            layers.pools[path] = _window(path, module)
        eps = module.fields.get("eps")
        if type(eps) is float and isinstance(module.fields.get("running_var"), LuaTensor):
            found.setdefault(eps, path or "the root")
    eps = _epsilon(found)
    return Listed(tensors, "torch7", wrapper=wrapper, others=others, eps=eps, layers=layers)


def _known(path: str, module: LuaObject) -> str:
    """Return the class of a module without its package, if a ResNeXt has such modules."""
    kind = module.kind.rpartition(".")[2]
    scaled = kind == "MulConstant" and module.fields.get(SCALE, 0.0) != 0
    if kind not in MODULES or scaled:
        raise FormatError(
            f"{path or 'the root'} is a module of the class {ascii(module.kind)[:60]}"
            f"{' with another number than 0' if scaled else ''}, which no ResNeXt has; use other "
            "weights"
        )
    return kind


def _window(path: str, module: LuaObject) -> Window | None:
    """Return how a convolution or a pooling slides, None if it does not say it.

    Its padding is 0 where it does not say that, as Torch7 has it.
    """
    fields: dict[str, Any] = {name: module.fields.get(name) for name in SLIDING}
    said = {name: value for name, value in fields.items() if value is not None}
    if not {"kH", "kW", "dH", "dW"} <= said.keys():
        return None
    for name, value in said.items():
        if type(value) is not (bool if name == "ceil_mode" else float):
            raise FormatError(
                f"{name} of {path or 'the root'} ({module.kind}) is no number, or no truth value; "
                "save the network again"
            )
    pad = said.get("padding", 0.0)
    return Window(
        (said["kH"], said["kW"]),
        (said["dH"], said["dW"]),
        (said.get("padH", pad), said.get("padW", pad)),
        (said.get("dilationH", 1.0), said.get("dilationW", 1.0)),
        said.get("ceil_mode", False),
    )


def _epsilon(found: dict[float, str]) -> float | None:
    """Return the epsilon of all batch norms, None if none says it."""
    said = ", ".join(f"{eps:g} ({where})" for eps, where in list(found.items())[:3])
    if len(found) > 1:
        raise FormatError(
            f"the batch norms have several epsilons: {said}; expected one for all: use other "
            "weights"
        )
    if not all(0 < eps < 1 for eps in found):
        raise FormatError(f"a batch norm has the epsilon {said}; expected a number between 0 and 1")
    return next(iter(found), None)


def _tensors(file: BinaryIO, path: str, module: LuaObject) -> dict[str, Stored]:
    """Return the tensors of one module."""
    found = {}
    where = path or "the root"
    for name in PARAMETERS:
        value = module.fields.get(name)
        if isinstance(value, LuaTensor) and value.storage is not None:
            place = value.kind, value.storage.start, value.offset, value.size, value.stride
            found[f"{path}.{name}" if path else name] = viewed(file, *place, "a storage")
        elif value is not None and not isinstance(value, LuaTensor):
            raise FormatError(
                f"{name} of {where} ({module.kind}) is not a tensor; save the network again"
            )
    if isinstance(module.fields.get("running_std"), LuaTensor):
        raise FormatError(
            f"{where} keeps running_std, as Torch7 did before 2016; load and save it with Torch7"
        )
    return found


def _root(top: object) -> tuple[str, LuaObject, tuple[str, ...]]:
    """Return the key of the network, the network, and the keys of other objects.

    The network is the object itself, or stands in a table, perhaps inside of a replica.
    """
    wrapper: str = ""
    others: tuple[str, ...] = ()
    if isinstance(top, dict):
        found = [
            key for key, value in top.items() if isinstance(value, LuaObject) and type(key) is str
        ]
        if not found:
            keys = ", ".join(ascii(key)[:40] for key in list(top)[:8])
            raise FormatError(
                f"a table of Torch7 without a network; its keys are {keys or 'none'}; name the "
                "model's own file"
            )
        wrapper = "model" if "model" in found else found[0]
        top, others = top[wrapper], tuple(key for key in found if key != wrapper)
    if not isinstance(top, LuaObject):
        raise FormatError("a file of Torch7, but not of a network; save the model with torch.save")
    for _ in range(MAX_DEPTH):
        if top.kind not in REPLICAS:
            break
        children = _children(top, "the root")
        if not children:
            raise FormatError(f"{top.kind} has no network in it; save its first replica")
        top = children[0]
    return wrapper, top, others


def _modules(root: LuaObject) -> Iterator[tuple[str, LuaObject]]:
    """Yield every module of the tree in order, with the way to it."""
    waiting, count = [("", root)], 0
    while waiting:
        path, module = waiting.pop()
        yield path, module
        children = _children(module, path or "the root")
        count += len(children)
        if count > MAX_MODULES or path.count(".") > MAX_TREE:
            raise UnsafeError(
                f"the network has more than {MAX_MODULES:,} modules, or some contain themselves; "
                "do not use the file"
            )
        below = [f"{path}.{i}" if path else str(i) for i in range(len(children))]
        waiting += reversed(list(zip(below, children, strict=True)))


def _children(module: LuaObject, where: str) -> list[LuaObject]:
    """Return what a container contains: a table with the keys 1, 2, 3 ..."""
    table = module.fields.get("modules")
    if table is None:
        return []
    found = [table.get(float(i + 1)) for i in range(len(table))] if isinstance(table, dict) else []
    children = [child for child in found if isinstance(child, LuaObject)]
    if not isinstance(table, dict) or len(children) < len(table):
        raise FormatError(
            f"{where} ({ascii(module.kind)[:40]}) has children that are not modules numbered from "
            "1; save it again"
        )
    return children
