"""Check a model file: its digests, and its logits against a reference."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from math import prod
from typing import cast

import numpy as np

from ..errors import IntegrityError, UsageError, WeightsError
from ..formats.npy import Header, read_array, read_header
from ..formats.stored_zip.reader import read_members
from ..images.checks import whole_number
from ..network.resnext import forward
from ..ops import Backend, backend
from ..ops.bfloat16 import limits
from ..store import store
from ..system.checks import check_ending
from ..system.files import regular, shown
from ..system.writing import replacing
from .heads import same_first
from .model import Model

# PyTorch's float32 logits of such networks differ from float64 by 2e-7 to 7e-7 of the largest
# logit. A reference without its own float32_error is taken to have the largest of these errors. A
# correct implementation stays within three times that.
TORCH_FLOAT32_ERROR = 7e-7
MARGIN = 3
MOST_ERROR = 1e-3
MOST_ALLOWED = 0.25  # of the largest logit: else coarse roundings would excuse other weights
MOST_ENLARGED, SMALL_SIDE = 2, 64  # an image of a reference may be so much larger than the crop
MOST_REFERENCE = 256 << 20  # bytes of all arrays: four hundred images of 224 x 224
HEADERS = 4096  # bytes of them that the headers of three arrays do not exceed


def verify(
    path: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
) -> store.Report:
    """Check a model file: its digests, its tensors and, with a reference, its logits.

    Parameters
    ----------
    path : path
        A model file.
    reference : path, optional
        An ``.npz`` file with the arrays ``x`` [n, h, w, c], normalised images, and ``logits`` [n,
        classes], or features where there is no classifier, best computed in float64; and, if known,
        the number ``float32_error``: the largest difference between these logits and another
        float32 implementation's, divided by the largest logit.
    device : {"cpu", "cuda", "cuda:N", "auto", "reference"}
    threads : int, optional
        As for `tinyresnext.load`.
    precision : {"float32", "float16", "bfloat16"}
        As for `tinyresnext.load`. As many times more is allowed as its rounding is coarser than
        that of float32: 8,192 in float16, and 65,536 in bfloat16; but never more than a quarter of
        the largest logit.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        The reference is not such a file, or does not fit the model.
    """
    report = store.check(path)
    if reference is None or not report.passed:
        return report
    ops = backend(device, precision)
    model = Model(*store.read(path), ops, ops.thread_count(threads))
    return replace(
        report, checks=(*report.checks, _compare(model, *_read_reference(reference, model)))
    )


def make_reference(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    pictures: int = 2,
    with_torch: bool = False,
) -> float:
    """Write a reference file for `verify`: normalised uniform noise, and its logits in float64.

    A file of this name is written over.

    Parameters
    ----------
    path : path
        A model file.
    to : path
        The ``.npz`` file to write: ``x`` float32 [n, crop, crop, channels], ``logits`` float64 [n,
        classes] (or features, without a classifier), and ``float32_error``.
    pictures : int
        The number of images n, from 1 to 256, and no more than `verify` reads: all arrays have at
        most 256 MiB, which 217 images of 320 x 320 fill.
    with_torch : bool
        Compute with PyTorch instead of `tinyresnext.ops.reference`.

    Returns
    -------
    float
        ``float32_error``: the largest error of the same arithmetic in float32, divided by the
        largest logit, and at least 7e-7. `verify` allows three times that.

    Raises
    ------
    WeightsError
        The model cannot be used, or its values overflow in float32.
    UsageError
        ``pictures`` is no whole number or out of range, `verify` would refuse so large a file, the
        preprocessing does not fit the network, PyTorch is asked for and not installed, the file
        cannot be written, or its name ends otherwise.
    """
    check_ending(to, (".npz",), "a reference (NumPy)")
    pictures = whole_number("pictures", pictures, 1, 256)
    ops = _torch() if with_torch else backend("reference")
    model = Model(*store.read(path), ops)
    side, preprocess = model.preprocess.crop, model.preprocess
    model.check_pictures()
    each = 4 * side * side * model.spec.channels + 8 * model.spec.outputs
    if pictures > (most := (MOST_REFERENCE - HEADERS) // each):
        raise UsageError(
            f"pictures is {pictures}, and each of {side} x {side} takes {each:,} bytes in a "
            f"reference, of which `verify` reads {MOST_REFERENCE:,}; at most {most} fit, give fewer"
        )
    shape = pictures, side, side, model.spec.channels
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    x = (noise - np.array(preprocess.mean, np.float32)) / np.array(preprocess.std, np.float32)
    logits = _logits(model, x, np.float64)
    with np.errstate(all="ignore"):
        error = _difference(_logits(model, x, np.float32), logits)
    if not error < MOST_ERROR:  # NaN fails the comparison
        raise IntegrityError(
            f"in float32 the logits are off by {error:.1e} of the largest, expected less than "
            f"{MOST_ERROR:.0e}; use other weights"
        )
    error = max(error, TORCH_FLOAT32_ERROR)
    with replacing(to) as temporary, open(temporary, "wb") as file:
        np.savez(file, x=x, logits=logits, float32_error=np.float64(error))
    return error


def _logits(model: Model, x: np.ndarray, dtype: type) -> np.ndarray:
    """Compute the logits op by op in the precision of ``dtype``, and return them in float64."""
    params = {name: model.ops.upload(value.astype(dtype)) for name, value in model.params.items()}
    return model.ops.download(
        forward(params, model.spec, model.ops.upload(x.astype(dtype)), model.ops)
    ).astype(np.float64)


def _torch() -> Backend:
    """Return the module with the inference ops in PyTorch."""
    try:
        return cast(Backend, import_module("tinyresnext.ops.torch_reference"))
    except ImportError as error:
        raise UsageError(
            f"PyTorch is not installed ({error}); install it, or compute the reference without it"
        ) from error


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference of float64 logits, divided by the largest wanted logit."""
    largest = np.abs(wanted).max()
    return float(np.abs(found - wanted).max() / largest) if largest > 0 else np.inf


def _compare(model: Model, x: np.ndarray, wanted: np.ndarray, error: float) -> store.Check:
    """Check that the model's logits differ from the reference's by no more than roundings allow."""
    if wanted.shape != (len(x), model.spec.outputs):
        raise UsageError(
            f"the reference has logits {wanted.shape}, expected ({len(x)}, {model.spec.outputs}) "
            "for this model; use the reference that was made for it"
        )
    # The errors of roundings are proportional to how coarse they are.
    error *= limits(model.ops.precision).epsilon / limits("float32").epsilon
    allowed = min(MARGIN * error, MOST_ALLOWED)
    found = model(x)
    difference = _difference(found.astype(np.float64), wanted)
    text = f"off by {difference:.1e} of the largest, allowed {allowed:.1e}"
    if (same := same_first(model.spec, found, wanted)) is not None:
        text += f"; first class equal for {same} of {len(x)}"
    return store.Check("logits", difference <= allowed, text)


def _read_reference(
    path: str | os.PathLike[str], model: Model
) -> tuple[np.ndarray, np.ndarray, float]:
    """Read the input, the logits and the float32 error of a reference.

    The headers of all arrays are compared with the model before the numbers of any are read.
    """
    what = f"the reference {shown(path)}"
    expected = (
        "expected an .npz file with arrays x [n, h, w, c] and logits [n, classes] of floating "
        "point (or features, without a classifier)"
    )
    try:
        with regular(path, error=UsageError) as file:
            members = read_members(file, deflated=True)
            if (size := sum(member.size for member in members.values())) > MOST_REFERENCE:
                raise UsageError(
                    f"{what} unpacks to {size:,} bytes, more than {MOST_REFERENCE:,}; use fewer "
                    "images"
                )
            names = [name for name in ("x", "logits", "float32_error") if f"{name}.npy" in members]
            headers = {name: read_header(file, members[f"{name}.npy"], name) for name in names}
            _check_headers(headers["x"], headers["logits"], model, f"{what} has", expected)
            found = {name: read_array(file, members[f"{name}.npy"], name) for name in names}
            x, logits = found["x"], found["logits"]
            error = float(found.get("float32_error", TORCH_FLOAT32_ERROR))
    except UsageError:
        raise
    # a KeyError: an array is missing; a TypeError: float32_error is no single number
    except (WeightsError, KeyError, TypeError) as problem:
        raise UsageError(f"{what} cannot be read; {expected}") from problem
    if not np.isfinite(logits).all() or not logits.any() or not 0 < error < MOST_ERROR:
        raise UsageError(f"{what} has logits that are zero or not finite, or an error beyond 0.001")
    return np.ascontiguousarray(x, np.float32), logits.astype(np.float64), error


def _check_headers(x: Header, logits: Header, model: Model, what: str, expected: str) -> None:
    """Raise `UsageError` for arrays that are not images and logits of the model."""
    floats = np.dtype(x.descr).kind == np.dtype(logits.descr).kind == "f"
    if len(x.shape) != 4 or len(logits.shape) != 2 or not floats or not prod(logits.shape):
        raise UsageError(
            f"{what} x {x.descr} {x.shape} and logits {logits.descr} {logits.shape}; {expected}"
        )
    (n, *sides, channels), outputs = x.shape, model.spec.outputs
    if logits.shape != (n, outputs) or channels != model.spec.channels:
        raise UsageError(
            f"{what} x {x.shape} and logits {logits.shape}, expected (n, h, w, "
            f"{model.spec.channels}) and (n, {outputs}) for this model; use the reference that was "
            "made for it"
        )
    # What the network computes grows with the image, and not with the numbers that it ends in.
    most = MOST_ENLARGED * max(model.preprocess.crop, SMALL_SIDE)
    if not all(0 < side <= most for side in sides):
        raise UsageError(
            f"{what} images of {' x '.join(map(str, sides))}; expected sides of 1 to {most}, for a "
            f"model of images of {model.preprocess.crop} x {model.preprocess.crop}"
        )
