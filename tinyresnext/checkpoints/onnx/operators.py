"""The operators that compute: each turns a node into a step, and checks all of its attributes.

Source: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from ...errors import FormatError
from ...formats.onnx.model import Node
from ...formats.onnx.tensor import Tensor
from .attributes import Attributes, over_the_map, padding, same
from .constants import scalar, whole_numbers
from .values import BINOMIAL, MEANS, Constant, Dims, Reading, Step, Value, Zeros

__all__ = ["OPERATORS"]


def _slid(
    dims: Dims, size: int, stride: int, pad: int, *, dilation: int = 1, ceil: bool = False
) -> Dims:
    """Return the height and width behind a window that slides over the map."""
    found = list[int | None]()
    for n in dims[2:4]:
        over = -1 if n is None else n + 2 * pad - dilation * (size - 1) - 1
        if n is None or over < 0:
            found.append(None)
            continue
        count = (over + stride - 1 if ceil else over) // stride + 1
        # A window may not begin in the padding behind the map.
        found.append(count - (ceil and (count - 1) * stride >= n + pad))
    return tuple(found)


def conv(reading: Reading, node: Node) -> Value:
    """Read a Conv."""
    x, weight, bias = reading.value(node, 0), reading.constant(node, 1), reading.constant(node, 2)
    if not isinstance(weight, Tensor) or len(weight.shape) != 4:
        raise FormatError(f"{node}: its weight is no tensor of four dimensions")
    size = weight.shape[2]
    a = Attributes(node)
    stride, dilation = same(a, "strides", 1), same(a, "dilations", 1)
    pad, groups = padding(a, size, stride, dilation), a.whole("group", 1)
    if weight.shape[3] != size or a.wholes("kernel_shape", (size, size)) != (size, size):
        raise FormatError(f"{node}: its kernel is {weight.shape[2:]} or not as kernel_shape says")
    a.done()
    slid = _slid(x.shape, size, stride, pad, dilation=dilation)
    shape = x.shape[0], weight.shape[0], *slid
    zero = bias is None or (isinstance(bias, Zeros) and bias.value == 0)
    if zero and weight.shape == (groups, 1, 3, 3) and dilation == 1:
        if reading.repeats(weight, BINOMIAL):
            return _blur(reading, node, x, stride, pad, shape)
        if stride == pad == 1 and reading.repeats(weight, MEANS):
            return reading.step("smooth", node, (x,), shape)
    return reading.step(
        "conv2d", node, (x,), shape, (weight, bias),
        stride=stride, padding=pad, groups=groups, dilation=dilation,
    )  # fmt: skip


def _blur(reading: Reading, node: Node, x: Value, stride: int, pad: int, shape: Dims) -> Value:
    """Add the step of a blur pooling: the Pad before it belongs to it."""
    before = x.step
    if before is None or not _pads(before, "reflect", (1, 1, 1, 1)) or pad:
        raise FormatError(
            f"{node}: a blur pooling whose edges are not reflected; expected a Pad before it, of "
            "mode reflect, by 1 on all four sides"
        )
    return reading.step("blur_pool", node, (reading.without(before),), shape, stride=stride)


def _pads(step: Step | None, mode: str, pads: tuple[int, ...]) -> bool:
    """Return whether a step is such a Pad."""
    return step is not None and step.attributes == {"mode": mode, "pads": pads}


def pad(reading: Reading, node: Node) -> Value:
    """Read a Pad of height and width; what follows must be a pooling that it belongs to."""
    x, a = reading.value(node, 0), Attributes(node)
    mode, pads = a.text("mode", "constant"), a.wholes("pads", ())
    a.only("value", 0.0)
    a.done()
    inputs = (*node.inputs, "", "", "")
    pads = whole_numbers(reading, node, 1) if inputs[1] else pads
    if inputs[2] and scalar(reading, node, 2).value:
        raise FormatError(f"{node}: it pads with another number than 0")
    axes = whole_numbers(reading, node, 3) if inputs[3] else (0, 1, 2, 3)
    sides = _sides(pads, axes)
    if sides is None:
        raise FormatError(f"{node}: pads is {pads!s:.80}; expected some of height and width")
    top, left, bottom, right = sides
    h, w = x.shape[2:4]
    size = None if h is None else h + top + bottom, None if w is None else w + left + right
    return reading.step("pad", node, (x,), (*x.shape[:2], *size), mode=mode, pads=sides)


def _sides(pads: tuple, axes: tuple) -> tuple[int, int, int, int] | None:
    """Return what is added above, left, below and right; None if other dimensions get more."""
    count = len(axes)
    if not all(type(n) is int for n in (*pads, *axes)) or len(pads) != 2 * count:
        return None
    first, last = (
        {n % 4: by for n, by in zip(axes, part, strict=True)}
        for part in (pads[:count], pads[count:])
    )
    others = [part.get(n, 0) for part in (first, last) for n in (0, 1)]
    if any(others) or len(first) != count or not all(-4 <= n < 4 for n in axes):
        return None
    top, left, bottom, right = (part.get(n, 0) for part in (first, last) for n in (2, 3))
    return top, left, bottom, right


def batch_norm(reading: Reading, node: Node) -> Value:
    """Read a BatchNormalization."""
    x, a = reading.value(node, 0), Attributes(node)
    a.only("training_mode", 0)
    a.only("spatial", 1)
    a.unused("momentum")
    eps = a.real("epsilon", 1e-5)
    a.done()
    weights = tuple(reading.constant(node, index) for index in range(1, 5))
    if None in weights:
        raise FormatError(f"{node}: it has {len(node.inputs)} inputs; expected five")
    return reading.step("batch_norm", node, (x,), x.shape, weights, eps=eps)


def relu(reading: Reading, node: Node) -> Value:
    """Read a Relu."""
    x = reading.value(node, 0)
    Attributes(node).done()
    return reading.step("relu", node, (x,), x.shape)


def add(reading: Reading, node: Node) -> Value:
    """Read an Add: of two maps, or of the bias of a linear layer."""
    Attributes(node).done()
    first, second = reading.get(node, 0), reading.get(node, 1)
    if isinstance(first, Tensor):
        first, second = second, first
    if isinstance(second, Tensor) and not isinstance(first, tuple):
        step = getattr(first, "step", None)
        if step is None or step.op != "linear" or step.constants[1] is not None:
            raise FormatError(f"{node}: it adds a constant; no ResNeXt does this here")
        return reading.step(
            "linear", node, (reading.without(step),), step.out.shape, (step.constants[0], second),
            **step.attributes,
        )  # fmt: skip
    both = reading.value(node, 0), reading.value(node, 1)
    return reading.step("add", node, both, both[0].shape)


def sigmoid(reading: Reading, node: Node) -> Value:
    """Read a Sigmoid, of squeeze and excitation."""
    x = reading.value(node, 0)
    Attributes(node).done()
    return reading.step("sigmoid", node, (x,), x.shape)


def mul(reading: Reading, node: Node) -> Value:
    """Read a Mul of a map and a number for each of its channels."""
    Attributes(node).done()
    both = reading.value(node, 0), reading.value(node, 1)
    whole = next((one for one in both if one.shape[2:] != (1, 1)), both[0])
    return reading.step("mul", node, both, whole.shape)


def max_pool(reading: Reading, node: Node) -> Value:
    """Read a MaxPool."""
    x, a = reading.value(node, 0), Attributes(node)
    size, stride = same(a, "kernel_shape", 1), same(a, "strides", 1)
    pad, ceil = padding(a, size, stride, 1), a.whole("ceil_mode", 0)
    a.only("storage_order", 0)
    if same(a, "dilations", 1) != 1:
        raise FormatError(f"{node}: dilations is not [1, 1]; no ResNeXt has a dilated pooling")
    a.done()
    shape = *x.shape[:2], *_slid(x.shape, size, stride, pad, ceil=bool(ceil))
    return reading.step(
        "max_pool2d", node, (x,), shape, size=size, stride=stride, padding=pad, ceil_mode=bool(ceil)
    )


def average_pool(reading: Reading, node: Node) -> Value:
    """Read an AveragePool; one window over the whole map is a mean over the map."""
    x, a = reading.value(node, 0), Attributes(node)
    size, stride = same(a, "kernel_shape", 1), same(a, "strides", 1)
    own = node.attributes.get("pads") == (0, 0, 1, 1)  # behind each line and column
    pad = 0 if own else padding(a, size, stride, 1)
    a.unused(*["pads"] * own)
    ceil, counted = bool(a.whole("ceil_mode", 0)), bool(a.whole("count_include_pad", 0))
    if same(a, "dilations", 1) != 1:
        raise FormatError(f"{node}: dilations is not [1, 1]; no ResNeXt has a dilated pooling")
    a.only("auto_pad", b"NOTSET")
    a.done()
    before = _pads(x.step, "constant", (0, 0, 1, 1))
    if own or before:
        if (size, stride, pad) != (2, 1, 0) or own == before or not (counted or before):
            raise FormatError(f"{node}: it pads behind the map; expected a mean of 2x2 values")
        x = reading.without(x.step) if before and x.step is not None else x
        return reading.step("smooth", node, (x,), x.shape)
    if (size, stride, pad) == (1, 1, 0):
        return x
    shape = *x.shape[:2], *_slid(x.shape, size, stride, pad, ceil=ceil)
    if pad == 0 and x.shape[2:] == (size, size):
        return reading.step("mean_pool", node, (x,), shape, window=size, stride=stride)
    fits = all(n is not None and n % stride == 0 for n in x.shape[2:]) and size == stride
    whole = pad == 0 and fits  # no window reaches beyond the map, so neither of these matters
    return reading.step(
        "avg_pool2d", node, (x,), shape, size=size, stride=stride, padding=pad,
        ceil_mode=None if whole else ceil,
        count_include_pad=None if whole or (pad == 0 and not ceil) else counted,
    )  # fmt: skip


def global_average_pool(reading: Reading, node: Node) -> Value:
    """Read a GlobalAveragePool."""
    x = reading.value(node, 0)
    Attributes(node).done()
    return reading.step("mean_pool", node, (x,), (*x.shape[:2], 1, 1))


def reduce_mean(reading: Reading, node: Node) -> Value:
    """Read a ReduceMean, which must be over height and width; axes are an input from 18 on."""
    x, a = reading.value(node, 0), Attributes(node)
    keep = a.whole("keepdims", 1)
    axes = a.wholes("axes", ())
    a.only("noop_with_empty_axes", 0, 1)
    a.done()
    if len(node.inputs) > 1 and node.inputs[1]:
        axes = whole_numbers(reading, node, 1)
    over_the_map(node, axes)
    return reading.step("mean_pool", node, (x,), (*x.shape[:2], 1, 1) if keep else x.shape[:2])


def gemm(reading: Reading, node: Node) -> Value:
    """Read a Gemm: the classifier."""
    x, weight, bias = reading.value(node, 0), reading.constant(node, 1), reading.constant(node, 2)
    a = Attributes(node)
    a.only("alpha", 1.0)
    a.only("beta", 1.0)
    a.only("transA", 0)
    transposed = not a.whole("transB", 0)
    a.done()
    return _linear(reading, node, x, weight, bias, transposed)


def matmul(reading: Reading, node: Node) -> Value:
    """Read a MatMul: the classifier, to which an Add may give its bias."""
    Attributes(node).done()
    return _linear(reading, node, reading.value(node, 0), reading.constant(node, 1), None, True)


def _linear(
    reading: Reading,
    node: Node,
    x: Value,
    weight: Constant | None,
    bias: Constant | None,
    transposed: bool,
) -> Value:
    """Add the step of a linear layer."""
    if not isinstance(weight, Tensor) or len(weight.shape) != 2:
        raise FormatError(f"{node}: its weight is no matrix")
    classes = weight.shape[1 if transposed else 0]
    if len(x.shape) != 2:
        raise FormatError(f"{node}: its input has {len(x.shape)} dimensions; expected a row each")
    return reading.step(
        "linear", node, (x,), (x.shape[0], classes), (weight, bias), transposed=transposed
    )


OPERATORS = {
    "Conv": conv,
    "BatchNormalization": batch_norm,
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Mul": mul,
    "Add": add,
    "MaxPool": max_pool,
    "Pad": pad,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
    "Gemm": gemm,
    "MatMul": matmul,
}
