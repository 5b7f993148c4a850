"""Messages for what stands in a checkpoint in the place of a tensor, or holds the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....errors import FormatError, UnsafeError
from ....formats.pickle.names import is_array, is_unknown_class
from ....formats.pickle.tensors import Tensor
from ....formats.pickle.vocabulary import Global, Placeholder

__all__ = ["kind", "refuse_layers", "refuse_objects", "unknown_class"]

_OF_A_LAYER = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def kind(value: Any) -> str:
    """Return what a value is that is no tensor of a network, and what to do, for messages."""
    stored = value.storage.kind if type(value) is Tensor else ""
    if type(value) is Placeholder and value.cls.module == "torch._utils":
        stored = value.cls.name.strip("_")
    if stored:
        if stored.startswith("Q") or "qtensor" in stored:
            return (
                "a tensor of quantised numbers, which are not read; use the checkpoint of the "
                "network before it was quantised"
            )
        return f"a tensor of a kind that is not read ({stored}); save it as float32"
    if is_array(value):
        return (
            "an array of NumPy in a form that is not read here; save the arrays with "
            "numpy.savez(path, **arrays), which is read"
        )
    what = f"a {type(value).__name__}"
    if type(value) is Placeholder:
        what = f"an object of the class {value.cls}"
    return f"{what}, not a tensor; save only model.state_dict()"


def unknown_class(value: object) -> Global | None:
    """Return the class of an object, or the class that a value is, if it is not a known one."""
    cls = value.cls if type(value) is Placeholder else value
    return cls if type(cls) is Global and is_unknown_class(cls) else None


def refuse_objects(where: str, value: object) -> None:
    """Raise `UnsafeError` if this is an object of an unknown class.

    Such an object may lie beside the tensors, but not be one, nor hold them.
    """
    if (cls := unknown_class(value)) is not None:
        raise UnsafeError(
            f"{where} is an object of the class {cls}, which is not part of a state dict and was "
            "neither imported nor run; if the file holds a whole model, load it where you trust it "
            "and save only model.state_dict()"
        )


def refuse_layers(chosen: str, beside: Mapping[str, Mapping[object, object]]) -> None:
    """Raise `FormatError` if a single layer lies beside the network under the key ``chosen``.

    It has a linear layer's names, or those of a norm in front of one, perhaps behind a module's.
    """
    for key, layer in beside.items():
        names = [str(name).rpartition(".") for name in layer]
        modules, fields = {module for module, _, _ in names}, {field for _, _, field in names}
        weights = [t for name, t in layer.items() if str(name).rpartition(".")[2] == "weight"]
        linear = all(type(t) is Tensor and t.is_read and len(t.size) <= 2 for t in weights)
        if weights and linear and len(modules) == 1 and fields <= _OF_A_LAYER:
            raise FormatError(
                f"the network is under {chosen!r}, and under {key!r} a layer beside it, which may "
                "be its classifier; put it into the network's state dict, as fc.weight and "
                f"fc.bias, or say --key {chosen} to have the network without it"
            )
