"""What the file of a quantised model has besides: a document, and weights of 8 bits.

The document ``quantisation`` is JSON: the number of calibration images, and for each value of 8
bits the scale, the method that proposed it, and the error that was measured. Each quantised weight
is stored as its integers, and beside it lies the scale of each filter::

    /params/layer1/0/conv1/weight        int8
    /params/layer1/0/conv1/weight_scale  float32 [c_out]

The product is the float32 weight, exactly, and its digest is that of the tensor. Such a file is of
version 2; a tinyresnext that knows only version 1 says so and reads no more of it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import FormatError, IntegrityError, UsageError
from ..network.plan.quantised import (
    METHODS,
    Parts,
    Quantisation,
    Scale,
    integer_parts,
    joined,
    split,
)
from ..network.spec import Spec, parameters

__all__ = [
    "DOCUMENT",
    "integers_of",
    "meaning",
    "parts_of",
    "scale_name",
    "shapes_of_scales",
    "value_of",
]

DOCUMENT = "quantisation"  # the attribute
MOST_IMAGES = 10**9
LEAST_SCALE = 2.0**-101  # half of what `tinyresnext.network.plan.calibration` proposes at least


def value_of(found: Quantisation) -> dict[str, Any]:
    """Return what the document says, as JSON has it."""
    scales = {name: [one.scale, one.method, one.error] for name, one in found.scales.items()}
    return {"images": found.images, "scales": scales}


def meaning(value: Any, spec: Spec) -> Quantisation:
    """Return what a document means; every number of it is checked.

    Raises
    ------
    FormatError
        It is not as tinyresnext writes it, or has other values than the architecture.
    """
    names = tuple(parts_of(spec).values)
    right = isinstance(value, dict) and value.keys() == {"images", "scales"}
    if not right or not isinstance(value["scales"], dict):
        raise FormatError("the quantisation is not as tinyresnext writes it; quantise again")
    images, scales = value["images"], value["scales"]
    if type(images) is not int or not 1 <= images <= MOST_IMAGES:
        raise FormatError(f"the quantisation has {images!r:.40} images; expected a whole number")
    if differing := sorted(scales.keys() ^ set(names)):
        raise FormatError(
            f"the quantisation has {len(scales)} scales and {spec.name} {len(names)} values of 8 "
            f"bits; {differing[0]!r:.80} is in one of both only; quantise again with this version"
        )
    return Quantisation({name: _scale(name, scales[name]) for name in names}, images)


def parts_of(spec: Spec) -> Parts:
    """Return what has 8 bits in a file of such a network.

    Raises
    ------
    FormatError
        There can be no such file.
    """
    try:
        return integer_parts(spec)
    except UsageError as error:
        raise FormatError(f"the file cannot be of a quantised model: {error}") from error


def _scale(name: str, row: Any) -> Scale:
    """Return the scale of a value; raise `FormatError` if it is none."""
    if isinstance(row, list) and len(row) == 3:
        scale, method, error = row
        numbers = [one for one in (scale, error) if type(one) in (int, float)]
        # compared, not converted: a whole number may be larger than any float
        fits = len(numbers) == 2 and all(0 <= one <= sys.float_info.max for one in numbers)
        if fits and method in METHODS and LEAST_SCALE < scale <= 1 / LEAST_SCALE:
            return Scale(float(scale), method, float(error))
    raise FormatError(
        f"the quantisation has {row!r:.80} for {name}; expected a scale, one of "
        f"{', '.join(METHODS)}, and an error; quantise again"
    )


def scale_name(name: str) -> str:
    """Return the name of the tensor with the scales of a weight's filters."""
    return f"{name}_scale"


def shapes_of_scales(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors with scales, by their names."""
    shapes = parameters(spec)
    return {scale_name(name): shapes[name][:1] for name in parts_of(spec).weights}


def integers_of(name: str, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integers and scales of a weight that has been quantised.

    Raises
    ------
    IntegrityError
        It has not, or was changed since.
    """
    integers, scale = split(weight)
    if not np.array_equal(joined(integers, scale), weight):
        raise IntegrityError(
            f"{name} is not a product of integers of 8 bits and scales; the weights of a quantised "
            "model cannot be changed: change those of the float32 model, and quantise it again"
        )
    return integers, scale
