"""Whether a model file is whole, and computes what it should."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from . import store
from .errors import UsageError
from .files import regular
from .model import Model, backend

# PyTorch's own float32 logits of such networks differ from float64 by 2e-7 to 7e-7 of the largest; a reference that does not
# say its own error is taken to have the largest of these. Three times that is what a right implementation stays within.
TORCH_FLOAT32_ERROR = 7e-7
MARGIN = 3


def verify(path: str | os.PathLike[str], reference: str | os.PathLike[str] | None = None, device: str = "cpu") -> store.Report:
    """Check digests, shapes and numbers of a model file, and its logits if a reference is given.

    Parameters
    ----------
    path : path
        A model file.
    reference : path, optional
        An ``.npz`` file with the arrays ``x`` [n, h, w, c], normalised pictures, and ``logits`` [n, classes], best
        computed in float64; and, if known, the number ``float32_error``: how far another float32 implementation's logits
        are from these, over the largest of them.
    device : {"cpu", "auto", "reference"}

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
    model = Model(*store.read(path), backend(device))
    return replace(report, checks=(*report.checks, _compare(model, *_read_reference(reference))))


def _compare(model: Model, x: np.ndarray, wanted: np.ndarray, error: float) -> store.Check:
    """The largest difference of the logits, against what float32 allows."""
    if wanted.shape != (len(x), model.spec.classes):
        raise UsageError(f"the reference has logits {wanted.shape}, expected ({len(x)}, {model.spec.classes}) for this model")
    found = model(x)
    difference = float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
    same = int((found.argmax(1) == wanted.argmax(1)).sum())
    text = f"off by {difference:.1e} of the largest, allowed {MARGIN * error:.1e}; first class equal for {same} of {len(x)}"
    return store.Check("logits", difference <= MARGIN * error, text)


def _read_reference(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, float]:
    """Input, logits and the error that float32 may have."""
    try:
        with regular(path, error=UsageError) as file, np.load(file, allow_pickle=False) as found:
            x, logits = found["x"], np.asarray(found["logits"], np.float64)
            error = float(found["float32_error"]) if "float32_error" in found else TORCH_FLOAT32_ERROR
    except UsageError:
        raise
    except Exception as problem:  # NumPy raises a dozen kinds on what is no archive, each in its own words
        raise UsageError(
            f"{os.fspath(path)!r} is not an .npz file with arrays x and logits, which --reference needs"
        ) from problem
    if logits.size == 0 or not np.isfinite(logits).all() or not logits.any() or not 0 < error < 1:
        raise UsageError(f"the reference {os.fspath(path)!r} has logits {logits.shape} that are empty, zero or not finite")
    return x, logits, error
