"""What a caller passes: attributes of a model; images, taken one by one, and their shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset, LabelledImages
from ..errors import PrecisionError, ShapeError, UsageError
from ..images.checks import short
from ..images.decode import Picture, is_picture
from ..images.preprocess import Preprocess
from ..network.plan import Quantisation
from ..network.spec import Spec, parameters
from ..store.weights import Weights, weights_of
from ..system.words import one_of

__all__ = [
    "check_not_quantised",
    "check_precision",
    "checked",
    "complete",
    "each_image",
    "kept",
    "shapes_that_fit",
]


def each_image(images: Any) -> Iterator[Picture]:
    """Yield an image, or every image of an iterable.

    Raises
    ------
    UsageError
        It is something else, or an iterable of something else.
    """
    if isinstance(images, Dataset | LabelledImages):
        raise UsageError(
            "a data set has labels beside its images; tinyresnext.evaluate compares them with "
            "predictions, and tinyresnext.inference.classify.classify only predicts"
        )
    kind = type(images).__name__
    expected = (
        "give a path, the bytes of an image file, a file open in binary mode, a Pillow image or a "
        "uint8 array, or an iterable of these, such as a list"
    )
    if is_picture(images):
        yield images
        return
    try:
        if isinstance(images, Mapping):  # its keys may be file names, or names of its images
            raise TypeError
        names = isinstance(images, np.ndarray) and images.dtype.kind in "OSU"
        found = iter(images.flat if names else images)
    except TypeError:
        raise UsageError(
            f"an object of type {kind} is no image and no iterable; {expected}"
        ) from None
    for number, image in enumerate(found):
        if not (is_picture(image) or isinstance(image, np.ndarray)):
            raise UsageError(
                f"item {number} of the {kind} is of type {type(image).__name__}; {expected}"
            )
        yield image


def checked(x: Any, channels: int) -> np.ndarray:
    """Return normalised images in C order, if their type and shape are what a network takes.

    Raises
    ------
    UsageError
        They are something else.
    """
    right = isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == 4
    if not right or x.shape[3] != channels:
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise UsageError(
            f"the input is {found}, expected a float32 array [n, h, w, {channels}] of normalised "
            "images; tinyresnext.prepare makes them, and model.predict takes image files and "
            "Pillow images"
        )
    return np.ascontiguousarray(x)


def kept(name: str, value: Any, known: Iterable[str]) -> Any:
    """Return a value as a model keeps it; what depends on other attributes is checked later.

    Raises
    ------
    UsageError
        A model has no such attribute, or the value is of another kind.
    ShapeError
        A parameter is no float32 array.
    """
    if name not in known:
        if name in ("device", "precision"):
            why = f"tinyresnext.load takes {name}= and returns another model"
        else:
            why = one_of(name, (one for one in known if one[0] != "_"))
        raise UsageError(f"a model has no attribute {name!r:.80} that can be set; {why}")
    if name == "params":
        return weights_of(value)
    if name == "labels" and isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        value = tuple(np.ravel(value).tolist() if isinstance(value, np.ndarray) else value)
    right, expected = {
        "spec": (isinstance(value, Spec), "a Spec, such as tinyresnext.variant returns"),
        "preprocess": (isinstance(value, Preprocess), "a tinyresnext.Preprocess"),
        "labels": (
            isinstance(value, tuple) and all(isinstance(label, str) for label in value),
            "a list of texts, the name of each class",
        ),
        "provenance": (isinstance(value, dict), "a dict of texts"),
        "ops": (
            callable(getattr(value, "conv2d", None)),
            "a backend, such as tinyresnext.ops.backend('cpu') returns; "
            "tinyresnext.load takes device=",
        ),
        "quantisation": (
            value is None or isinstance(value, Quantisation),
            "what tinyresnext.quantise gives its model, or None",
        ),
    }.get(name, (True, ""))
    if not right:
        raise UsageError(f"{name} of a model is {short(value)}; expected {expected}")
    return value


def complete(params: Mapping[str, np.ndarray], spec: Spec) -> Weights:
    """Return parameters, if they have the names and the shapes of a network's.

    Raises
    ------
    ShapeError
        They have others: a name that nothing reads would change nothing.
    """
    weights, wanted = weights_of(params), parameters(spec)
    if differing := sorted(wanted.keys() ^ params.keys(), key=repr):
        what = "missing" if differing[0] in wanted else "not expected"
        raise ShapeError(
            f"{len(differing)} parameters are missing or unexpected for {spec.name}; "
            f"{differing[0]!r} is {what}"
        )
    for name, shape in wanted.items():
        if weights.shapes[name] != shape:
            raise ShapeError(f"{name} has the shape {weights.shapes[name]}, expected {shape}")
    return weights


def check_not_quantised(quantisation: Quantisation | None, what: str) -> None:
    """Raise `UsageError` if a model is quantised, which is not for ``what``."""
    if quantisation is not None:
        raise UsageError(
            f"the model is quantised to 8 bits, and {what} needs float32; use the model that it "
            "was made of"
        )


def check_precision(precision: str, x: np.ndarray, y: np.ndarray) -> None:
    """Raise `PrecisionError` if finite images led to results that are not.

    In float16 nothing between them hides it: infinity stays, or becomes what is not a number
    (`tinyresnext.ops.cuda.words.arithmetic.floor4_or_nan`). In float32, and in bfloat16, which
    reaches as far, it is the weights' fault.
    """
    if precision == "float16" and not np.isfinite(y).all() and np.isfinite(x).all():
        most = f"{np.finfo(precision).max:,.0f}"
        raise PrecisionError(
            f"the network computes values that are not finite in {precision}, whose largest number "
            f"is {most}; compute in float32 (precision='float32', --precision float32)"
        )


@contextmanager
def shapes_that_fit(spec: Spec) -> Iterator[None]:
    """Raise `UsageError` if an op in the ``with`` block refuses a shape: the caller chose it."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        more = ""
        if spec.blur_pool == "average":  # it halves downwards, and shortcuts upwards
            sides = replace(spec, dilated=0).output_stride
            more = f"; use images whose sides are multiples of {sides}"
        found = f"the network cannot take an input of this shape: {error}"
        raise UsageError(found + more) from error
