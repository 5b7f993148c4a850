"""Whether a model file is whole, and computes what it should."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from importlib import import_module
from types import ModuleType

import numpy as np

from ..errors import IntegrityError, UsageError
from ..network.resnext import forward
from ..store import store
from ..system.files import regular, replacing, shown
from .model import Model, backend

# PyTorch's own float32 logits of such networks differ from float64 by 2e-7 to 7e-7 of the largest;
# a reference that does not say its own error is taken to have the largest of these. Three times
# that is what a right implementation stays within.
TORCH_FLOAT32_ERROR = 7e-7
MARGIN = 3
MOST_ERROR = 1e-3
MOST_REFERENCE = 256 << 20  # bytes of all arrays: four hundred pictures of 224 x 224


def verify(
    path: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> store.Report:
    """Check digests, shapes and numbers of a model file, and its logits if a reference is given.

    Parameters
    ----------
    path : path
        A model file.
    reference : path, optional
        An ``.npz`` file with the arrays ``x`` [n, h, w, c], normalised pictures, and ``logits`` [n,
        classes], best computed in float64; and, if known, the number ``float32_error``: how far
        another float32 implementation's logits are from these, over the largest of them.
    device : {"cpu", "auto", "reference"}
    threads : int, optional
        As for `tinyresnext.load`.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        When the reference is not such a file, or does not fit the model.
    """
    report = store.check(path)
    if reference is None or not report.passed:
        return report
    ops = backend(device)
    model = Model(*store.read(path), ops, ops.thread_count(threads))
    return replace(report, checks=(*report.checks, _compare(model, *_read_reference(reference))))


def make_reference(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    pictures: int = 2,
    with_torch: bool = False,
) -> float:
    """Write a reference file for `verify`: noise that looks normalised to the network, and its logits in float64.

    Parameters
    ----------
    path : path
        A model file.
    to : path
        An ``.npz`` file to make: ``x`` float32 [n, crop, crop, channels], ``logits`` float64 [n,
        classes], and ``float32_error``.
    pictures : int
        n.
    with_torch : bool
        Compute with PyTorch rather than with `tinyresnext.ops.reference`.

    Returns
    -------
    float
        ``float32_error``: how far the same arithmetic in float32 is off, over the largest logit, or
        7e-7 if that is more. `verify` allows three times that.

    Raises
    ------
    WeightsError
        When the model cannot be used, or float32 cannot hold what it computes.
    UsageError
        When PyTorch is asked for and not installed, or the file cannot be written.
    """
    if not 1 <= pictures <= 256:
        raise UsageError(f"pictures is {pictures}: expected a number from 1 to 256")
    ops = _torch() if with_torch else backend("reference")
    model = Model(*store.read(path), ops)
    side, preprocess = model.preprocess.crop, model.preprocess
    model.check_pictures()
    shape = pictures, side, side, model.spec.channels
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    x = (noise - np.array(preprocess.mean, np.float32)) / np.array(preprocess.std, np.float32)
    logits = _logits(model, x, np.float64)
    largest = np.abs(logits).max()
    with np.errstate(all="ignore"):
        error = (
            float(np.abs(_logits(model, x, np.float32) - logits).max() / largest)
            if largest > 0
            else np.inf
        )
    if not error < MOST_ERROR:
        raise IntegrityError(
            f"in float32 the logits are off by {error:.1e} of the largest; these weights cannot be used"
        )
    error = max(error, TORCH_FLOAT32_ERROR)
    with replacing(to) as temporary, open(temporary, "wb") as file:
        np.savez(file, x=x, logits=logits, float32_error=np.float64(error))
    return error


def _logits(model: Model, x: np.ndarray, dtype: type) -> np.ndarray:
    """Op by op in that precision."""
    params = {name: model.ops.upload(value.astype(dtype)) for name, value in model.params.items()}
    return model.ops.download(
        forward(params, model.spec, model.ops.upload(x.astype(dtype)), model.ops)
    ).astype(np.float64)


def _torch() -> ModuleType:
    """The ops in PyTorch."""
    try:
        return import_module("tinyresnext.ops.torch_reference")
    except ImportError as error:
        raise UsageError(
            f"PyTorch is not installed ({error}); install it, or compute the reference without it"
        ) from error


def _compare(model: Model, x: np.ndarray, wanted: np.ndarray, error: float) -> store.Check:
    """The largest difference of the logits, against what float32 allows."""
    if wanted.shape != (len(x), model.spec.classes):
        raise UsageError(
            f"the reference has logits {wanted.shape}, expected ({len(x)}, {model.spec.classes}) for this model"
        )
    found = model(x)
    difference = float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
    same = int((found.argmax(1) == wanted.argmax(1)).sum())
    text = f"off by {difference:.1e} of the largest, allowed {MARGIN * error:.1e}; first class equal for {same} of {len(x)}"
    return store.Check("logits", difference <= MARGIN * error, text)


def _read_reference(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, float]:
    """Input, logits and the error that float32 may have."""
    what = f"the reference {shown(path)}"
    expected = (
        "expected an .npz file with arrays x [n, h, w, c] and logits [n, classes] of floating point"
    )
    try:
        with regular(path, error=UsageError) as file, zipfile.ZipFile(file) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > MOST_REFERENCE:
                raise UsageError(
                    f"{what} unpacks to {size:,} bytes, more than {MOST_REFERENCE:,}; use fewer pictures"
                )
            x, logits = _array(archive, "x"), _array(archive, "logits")
            known = "float32_error.npy" in archive.namelist()
            error = float(_array(archive, "float32_error")) if known else TORCH_FLOAT32_ERROR
    except UsageError:
        raise
    # zipfile and NumPy raise a dozen kinds on what is no archive, each in its own words
    except Exception as problem:
        raise UsageError(f"{what} cannot be read; {expected}") from problem
    if x.ndim != 4 or logits.ndim != 2 or x.dtype.kind != "f" or logits.dtype.kind != "f":
        raise UsageError(
            f"{what} has x {x.dtype} {x.shape} and logits {logits.dtype} {logits.shape}; {expected}"
        )
    if (
        logits.size == 0
        or not np.isfinite(logits).all()
        or not logits.any()
        or not 0 < error < MOST_ERROR
    ):
        raise UsageError(
            f"{what} has logits that are empty, zero or not finite, or an error beyond 0.001"
        )
    return np.ascontiguousarray(x, np.float32), logits.astype(np.float64), error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an .npz file."""
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
