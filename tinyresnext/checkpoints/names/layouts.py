"""How other systems lay out a weight, and how it becomes one in PyTorch's layout.

That is ``[c_out, c_in/groups, k_h, k_w]`` for a convolution, ``[c_out, c_in]`` for a classifier.
A layout is a pair of plain functions. ``shape`` computes the resulting shape before any number is
read, so that a file can be judged by its names and shapes; ``array`` converts the numbers. Both
take a list, as one weight may be kept in several pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError

__all__ = [
    "AS_IT_IS",
    "CONSTANTS",
    "DENSE",
    "DENSE_1X1",
    "DEPTHWISE",
    "FOLDED_EPSILON",
    "KERNEL",
    "OTHER_SUM",
    "PATHS",
    "STACKED",
    "Layout",
    "Part",
    "Reading",
    "Shape",
    "folded_norm",
    "identity",
    "is_fixed_sum",
    "without_bias",
]

Shape = tuple[int, ...]
OTHER_SUM = (
    "the sum behind a depthwise kernel is not the fixed one that makes it a grouped convolution"
)


class Layout(NamedTuple):
    """The shape of the weight from the shapes of its pieces, and the weight from the pieces."""

    shape: Callable[[Sequence[Shape]], Shape]
    array: Callable[[Sequence[NDArray]], NDArray]


Part = tuple[tuple[str, ...], Layout]  # the keys that a parameter is made of, and how
# what fits, under torchvision's names; and the keys that do not fit
Reading = tuple[dict[str, Part], list[str]]


def _only_shape(shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _only(arrays: Sequence[NDArray]) -> NDArray:
    return arrays[0]


def _kernel_shape(shapes: Sequence[Shape]) -> Shape:
    k_h, k_w, c_in, c_out = _rank(shapes[0], 4)
    return c_out, c_in, k_h, k_w


def _kernel(arrays: Sequence[NDArray]) -> NDArray:
    return np.ascontiguousarray(arrays[0].transpose(3, 2, 0, 1))


def _dense_shape(shapes: Sequence[Shape]) -> Shape:
    c_in, c_out = _rank(shapes[0], 2)
    return c_out, c_in


def _dense(arrays: Sequence[NDArray]) -> NDArray:
    return np.ascontiguousarray(arrays[0].T)


def _dense_1x1_shape(shapes: Sequence[Shape]) -> Shape:
    return *_dense_shape(shapes), 1, 1


def _dense_1x1(arrays: Sequence[NDArray]) -> NDArray:
    return _dense(arrays)[:, :, None, None]


def _stacked_shape(shapes: Sequence[Shape]) -> Shape:
    if not shapes[0] or any(shape[1:] != shapes[0][1:] or not shape for shape in shapes):
        raise FormatError(
            f"the paths of a block have the shapes {', '.join(map(str, shapes[:4]))}; they must be "
            "equal"
        )
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


def _paths_shape(shapes: Sequence[Shape]) -> Shape:
    found = [_kernel_shape([shape]) for shape in shapes]
    if any(shape[:2] != (shape[1], shape[1]) for shape in found):  # else the groups are others
        raise FormatError(
            f"the paths of a block have kernels of {shapes[0]}; as many outputs as inputs were "
            "expected of each"
        )
    return _stacked_shape(found)


def _paths(arrays: Sequence[NDArray]) -> NDArray:
    return np.concatenate([_kernel([array]) for array in arrays])


def _depthwise_shape(shapes: Sequence[Shape]) -> Shape:
    k_h, k_w, channels, width = _rank(shapes[0], 4)
    if not width or channels % width:
        raise FormatError(
            f"a depthwise kernel of shape {shapes[0]} is no grouped convolution: {channels} "
            "channels are not whole groups"
        )
    if len(shapes) > 1 and shapes[1] != (1, 1, channels * width, channels):
        raise FormatError(
            f"the sum behind a depthwise kernel of shape {shapes[0]} has the shape {shapes[1]}"
        )
    return channels, width, k_h, k_w


def _depthwise(arrays: Sequence[NDArray]) -> NDArray:
    """Compute ``W[o, t] = D[group(o) * c + t, o % c]``.

    Input t of a group has c products, of which output o sums the (o % c)-th. The sum is a fixed 1x1
    convolution of zeros and ones behind the depthwise one. Files that have it must have that one.
    """
    k_h, k_w, channels, width = arrays[0].shape
    if len(arrays) > 1:
        # [group, input, product, output]: a one wherever output = group * c + product.
        ones = arrays[1].reshape(channels // width, width, width, channels)
        group, product = np.ogrid[: channels // width, :width]
        every = (ones[group, :, product, group * width + product] == 1).all()
        if np.count_nonzero(ones) != channels * width or not every:
            raise IntegrityError(OTHER_SUM)
    # [k_h, k_w, group, input, output]
    split = arrays[0].reshape(k_h, k_w, channels // width, width, width)
    return np.ascontiguousarray(split.transpose(2, 4, 3, 0, 1)).reshape(channels, width, k_h, k_w)


def is_fixed_sum(shape: Shape, at: int, numbers: NDArray) -> bool:
    """Return whether a piece of the sum behind a depthwise kernel is as `_depthwise` says.

    Parameters
    ----------
    shape : tuple of int
        Of the whole sum.
    at : int
        The index of the piece's first number, in C order.
    numbers : array
        The piece.
    """
    channels = shape[3]
    width = shape[2] // channels
    # row = (group * c + input) * c + product
    row, output = np.divmod(np.arange(at, at + len(numbers)), channels)
    return np.array_equal(output == row // width**2 * width + row % width, numbers)


def folded_norm(norm: str, bias: str) -> dict[str, Part]:
    """Return the parameters of a norm that was folded into a convolution with a bias.

    Parameters
    ----------
    norm : str
        Torchvision's name of the norm.
    bias : str
        The key of the convolution's bias.
    """
    fields = ("weight", "running_mean", "running_var", "bias")
    layouts = (*CONSTANTS, AS_IT_IS)
    return {f"{norm}.{f}": ((bias,), layout) for f, layout in zip(fields, layouts, strict=True)}


def without_bias(weight: Part) -> Part:
    """Return the bias of a linear layer that has none: zeros, one for each output of its weight."""
    keys, layout = weight

    def zeros(arrays: Sequence[NDArray]) -> NDArray:
        return np.zeros(layout.shape([array.shape for array in arrays])[:1], np.float32)

    return keys, Layout(lambda shapes: layout.shape(shapes)[:1], zeros)


def identity(eps: float) -> tuple[float, float, float]:
    """Return scale, mean and variance of a norm that only adds its shift.

    Of a norm that is folded into the convolution before it, only a shift is left: the convolution's
    bias. With `FOLDED_EPSILON`, a power of two, the variance and the epsilon sum to exactly 1.
    """
    return 1.0, 0.0, 1.0 - eps


def _rank(shape: Shape, rank: int) -> Shape:
    """Return the shape, which must have that many axes."""
    if len(shape) != rank:
        raise FormatError(f"found the shape {shape}; expected {rank} dimensions")
    return shape


def _constant(value: float) -> Callable[[Sequence[NDArray]], NDArray]:
    """Return a function that makes an array of one value, with the shape of its piece."""
    return lambda arrays: np.full(arrays[0].shape, value, np.float32)


AS_IT_IS = Layout(_only_shape, _only)
FOLDED_EPSILON = 2.0**-17
CONSTANTS = tuple(Layout(_only_shape, _constant(value)) for value in identity(FOLDED_EPSILON))
KERNEL = Layout(_kernel_shape, _kernel)  # Keras' convolutions: [k_h, k_w, c_in, c_out]
DENSE = Layout(_dense_shape, _dense)  # Keras' classifier: [c_in, c_out]
DENSE_1X1 = Layout(_dense_1x1_shape, _dense_1x1)  # the same, of a 1x1 convolution
# Keras' grouped convolutions: [k_h, k_w, channels, c], and maybe the sum
DEPTHWISE = Layout(_depthwise_shape, _depthwise)
# Figure 3(b): the paths' weights one below the other are the grouped convolution's
STACKED = Layout(_stacked_shape, np.concatenate)
PATHS = Layout(_paths_shape, _paths)  # the same of Keras' kernels
