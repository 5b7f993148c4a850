"""A ModelProto: the nodes of its graph, its tensors, and what it says of itself.

::

    ModelProto   1 ir_version    7 graph    8 opset_import    14 metadata_props    25 functions
    GraphProto   1 node    5 initializer    11 input    12 output    15 sparse_initializer
    NodeProto    1 input    2 output    3 name    4 op_type    5 attribute    7 domain

A node names its inputs and outputs, and is computed after the nodes whose outputs it reads. An
initializer is a tensor with a name.

Source: onnx.proto of https://github.com/onnx/onnx
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import FormatError, UnsafeError
from .tensor import MOST_INTEGERS, MOST_NAME, Tensor, read_tensor
from .wire import BYTES, FOUR, VARINT, Field, Source

__all__ = ["Input", "Model", "Node", "begins", "read_model"]

MOST_NODES = MOST_TENSORS = 20_000  # a ResNeXt-101 has 344 nodes and 626 tensors
MOST_ENTRIES = 64  # inputs, outputs and attributes of a node; inputs of a graph have tensors beside
MOST_OPSETS = 64
# fields of a ModelProto, and how they lie in a file
_MODEL = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES}
_MODEL |= {14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
# by the number of an attribute's type: the field of its value
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7
_VALUES = {2: _FLOAT, 3: _INT, 4: _STRING, 5: _TENSOR, 7: _FLOATS, 8: _INTS}
_GRAPHS = (6, 11)

Value = int | float | bytes | tuple[int, ...] | tuple[float, ...] | Tensor


class Input(NamedTuple):
    """An input of a graph: the number of its data type, 0 if it says none, and its dimensions.

    A dimension that is left open is None.
    """

    type: int
    dims: tuple[int | None, ...]


class Node(NamedTuple):
    """One operation of a graph."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Value]

    def __str__(self) -> str:
        """Return the node as messages call it."""
        shown = self.name or (self.outputs[0] if self.outputs else "")
        domain = f"{ascii(self.domain)[1:-1][:40]}:" if self.domain else ""
        return f"node {shown!a:.80} ({domain}{ascii(self.op)[1:-1][:40]})"


@dataclass
class Model:
    """What a file says.

    Attributes
    ----------
    opset : int
        The version of ONNX's own operators.
    nodes : list of Node
        In the file's order.
    tensors : dict of str to Tensor
        The initializers.
    inputs : dict of str to Input
    outputs : list of str
    metadata : dict of str to Field
        Texts that programs have put beside the graph, which are not read yet.
    """

    opset: int = 0
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    metadata: dict[str, Field] = field(default_factory=dict)


def begins(source: Source) -> bool:
    """Return whether a file is an ONNX model: the fields up to its graph are a ModelProto's.

    ONNX has no mark at its beginning, so this is all that can be looked at.
    """
    try:
        at = 0
        for one in source.fields(0, source.size):
            at += 1
            if _MODEL.get(one.number) != one.wire or at > 1000:
                return False
            if one.number == 7:
                return True
    except (FormatError, UnsafeError):
        return at > 0
    return at > 1


def read_model(source: Source) -> Model:
    """Read a file, without the numbers of its tensors.

    Raises
    ------
    FormatError
        It is cut short, contradicts itself, or has parts that no plain network has.
    UnsafeError
        It has more nodes or tensors than any network, or texts that are too long.
    """
    model, graph, opsets = Model(), None, 0
    for one in source.fields(0, source.size):
        if one.number == 7:
            if graph is not None:
                raise FormatError("the file has two graphs; save the model again")
            graph = one
        elif one.number == 8:
            opsets += 1
            if opsets > MOST_OPSETS:
                raise UnsafeError(f"the file names more than {MOST_OPSETS} sets of operators")
            domain, version = _opset(source, one)
            if domain in ("", "ai.onnx"):
                model.opset = version
        elif one.number == 14 and len(model.metadata) < MOST_NODES:
            entry = {part.number: part for part in source.message(one, "an entry of metadata")}
            if 1 in entry and 2 in entry and entry[1].size <= MOST_NAME:
                key = source.text(entry[1], MOST_NAME, "a name in the metadata")
                if key in model.metadata:
                    raise FormatError(f"{key!a:.80} stands twice in the metadata")
                model.metadata[key] = entry[2]
        elif one.number in (20, 25):
            what = "training information" if one.number == 20 else "functions of its own"
            raise FormatError(f"the model has {what}; expected a plain graph for inference")
    if graph is None:
        raise FormatError("the file has no graph; it is cut short or not an ONNX model")
    _read_graph(source, graph, model)
    return model


def _opset(source: Source, entry: Field) -> tuple[str, int]:
    """Return an OperatorSetIdProto: a domain, and the version of its operators."""
    domain, version = "", 0
    for one in source.message(entry, "opset_import"):
        if one.number == 1:
            domain = source.text(one, MOST_NAME, "a domain")
        elif one.number == 2:
            version = one.value
    return domain, version


def _read_graph(source: Source, graph: Field, model: Model) -> None:
    """Read the GraphProto into the model."""
    for one in source.message(graph, "the graph"):
        if one.number == 1:
            if len(model.nodes) == MOST_NODES:
                raise UnsafeError(f"the graph has more than {MOST_NODES:,} nodes; no network has")
            model.nodes.append(_node(source, one))
        elif one.number == 5:
            if len(model.tensors) == MOST_TENSORS:
                raise UnsafeError(f"the graph has more than {MOST_TENSORS:,} tensors")
            if one.wire != BYTES:
                raise FormatError("an initializer is no message; fetch the file again")
            tensor = read_tensor(source, one.start, one.end)
            if tensor.name in model.tensors:
                raise FormatError(f"there are two initializers {tensor.name!a:.80}; save it again")
            model.tensors[tensor.name] = tensor
        elif one.number in (11, 12):
            name, found = _value_info(source, one)
            if one.number == 12:
                model.outputs.append(name)
            else:
                model.inputs[name] = found
            if len(model.inputs) + len(model.outputs) > MOST_TENSORS:
                raise UnsafeError(f"the graph has more than {MOST_TENSORS:,} inputs and outputs")
        elif one.number == 15:
            raise FormatError("the graph has sparse tensors, which are not read; save them dense")


def _node(source: Source, entry: Field) -> Node:
    """Read a NodeProto."""
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: dict[str, Value] = {}
    for one in source.message(entry, "a node"):
        if one.number in texts:
            texts[one.number].append(source.text(one, MOST_NAME, "a name in a node"))
            if len(texts[one.number]) > MOST_ENTRIES:
                raise UnsafeError(f"a node has more than {MOST_ENTRIES} inputs or outputs")
        elif one.number == 5:
            name, value = _attribute(source, one)
            if name in attributes or len(attributes) == MOST_ENTRIES:
                raise FormatError(f"a node has the attribute {name!a:.80} twice, or too many")
            attributes[name] = value
    name, op, domain = ((texts[number] or [""])[-1] for number in (3, 4, 7))
    return Node(name, op, domain, tuple(texts[1]), tuple(texts[2]), attributes)


def _attribute(source: Source, entry: Field) -> tuple[str, Value]:
    """Read an AttributeProto: its name and its value. Graphs in it are refused, not entered."""
    name, stated, kinds = "", 0, set[int]()
    single: Value | None = None
    several: list[int | float] = []
    for one in source.message(entry, "an attribute"):
        if one.number == 1:
            name = source.text(one, MOST_NAME, "the name of an attribute")
        elif one.number == 20:
            stated = one.value
        elif one.number in _GRAPHS:
            raise FormatError("a node has a graph in it, as loops and branches do; no ResNeXt has")
        elif one.number in _VALUES:
            kinds.add(_VALUES[one.number])
            if one.number in (7, 8):
                several += _several(source, one)
                if len(several) > MOST_INTEGERS:
                    raise UnsafeError(f"an attribute has more than {MOST_INTEGERS} numbers")
            else:
                single = _single(source, one)
        elif one.number in (9, 10, 21, 22, 23, 14, 15):
            raise FormatError(f"the attribute {name!a:.80} is of a kind that no ResNeXt has")
    kind = stated or (kinds.pop() if len(kinds) == 1 else 0)
    if kind not in _VALUES.values() or kinds - {kind}:
        raise FormatError(f"the attribute {name!a:.80} is not of the type that it states")
    if kind in (_FLOATS, _INTS):
        return name, tuple(several)
    default: dict[int, Value] = {_FLOAT: 0.0, _INT: 0, _STRING: b""}
    if single is None and kind not in default:
        raise FormatError(f"the attribute {name!a:.80} has no value; fetch the file again")
    value: Value = default[kind] if single is None else single
    return name, value


def _single(source: Source, one: Field) -> Value:
    """Return the value of an attribute: a float, a whole number, a text or a tensor."""
    if one.number == 2 and one.wire == FOUR:
        return float(struct.unpack("<f", source.raw(one, 4, "an attribute"))[0])
    if one.number == 3 and one.wire == VARINT:
        return source.numbers(one, 1, "an attribute")[0]
    if one.number == 4 and one.wire == BYTES:
        return source.raw(one, MOST_NAME, "an attribute")
    if one.number == 5 and one.wire == BYTES:
        return read_tensor(source, one.start, one.end)
    raise FormatError("the value of an attribute has another wire type; fetch the file again")


def _several(source: Source, one: Field) -> list[int] | list[float]:
    """Return numbers of an attribute, packed or one."""
    if one.number == 8:
        return source.numbers(one, MOST_INTEGERS, "the numbers of an attribute")
    raw = source.raw(one, 4 * MOST_INTEGERS, "the numbers of an attribute")
    if len(raw) % 4 or one.wire not in (BYTES, FOUR):
        raise FormatError("the numbers of an attribute are no floats; fetch the file again")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def _value_info(source: Source, entry: Field) -> tuple[str, Input]:
    """Read a ValueInfoProto: the name of an input or output, and what is known of it."""
    name, number, dims = "", 0, list[int | None]()
    for one in source.message(entry, "an input"):
        if one.number == 1:
            name = source.text(one, MOST_NAME, "the name of an input")
        elif one.number == 2:
            for kind in source.message(one, "the type of an input"):
                if kind.number == 1:  # a tensor
                    for part in source.message(kind, "the type of an input"):
                        if part.number == 1:
                            number = part.value
                        elif part.number == 2:
                            dims += _dimensions(source, part)
    return name, Input(number, tuple(dims))


def _dimensions(source: Source, shape: Field) -> list[int | None]:
    """Read a TensorShapeProto: dimensions that are numbers, or None if they only have names."""
    dims = list[int | None]()
    for one in source.message(shape, "a shape"):
        if one.number == 1:
            values = [d.value for d in source.message(one, "a dimension") if d.number == 1]
            dims.append(values[0] if len(values) == 1 and 0 < values[0] < 1 << 31 else None)
            if len(dims) > MOST_ENTRIES:
                raise UnsafeError(f"an input has more than {MOST_ENTRIES} dimensions")
    return dims
