"""Anyone's checkpoint -> our model: read, rename, infer the architecture, and say back what was understood."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import __version__, store
from .checkpoints import container, infer, names
from .errors import FormatError, IntegrityError, UsageError
from .image import Preprocess
from .model import Model, backend
from .resnext import parameters
from .spec import Spec, variant

CIFAR = infer.CIFAR


class Conversion(NamedTuple):
    """A model ready to be stored, and what the user should know about how it was understood."""

    stored: store.Stored
    notes: tuple[str, ...]


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    arch: str | Spec | None = None,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    ema: bool = False,
    licence: str = "",
) -> Conversion:
    """Understand a checkpoint.

    Parameters
    ----------
    path : str or path
        A ``.pth`` file of either of PyTorch's formats, ``.safetensors``, ``.npz``, Torch7's ``.t7`` or Keras' ``.h5``,
        told apart by their content; with the key names of any system in `names.SCHEMES`.
    arch : str or Spec, optional
        What the network is; by default this is inferred from the tensors.
    preprocess : Preprocess, optional
        By default that of the system whose names the file has: ImageNet's (256, 224, bilinear), CIFAR's for a CIFAR stem.
    labels : sequence of str, optional
        By default ImageNet's for 1,000 classes, numbers otherwise.
    ema : bool
        Take the averaged weights of a training checkpoint that has them beside the plain ones.
    licence : str
        Of the weights, to be kept with them.

    Raises
    ------
    WeightsError
        When the file cannot be used: the message says what was found, what was expected and what to do.
    UsageError
        When ``arch`` or ``labels`` do not fit the network.
    """
    found = container.read(path, ema=ema, check=lambda shapes: _understood(shapes, arch))
    spec, named = _understood({name: array.shape for name, array in found.tensors.items()}, arch)
    tensors = named.tensors(found.tensors)
    odd = [f"{name} ({array.dtype})" for name, array in tensors.items() if array.dtype != np.float32]
    if odd:
        raise FormatError(f"{len(odd)} parameters are not floating point: {', '.join(odd[:3])}; quantised weights are not read")
    averaged = " (--ema takes averaged weights)" if found.container in ("zip", "legacy") else ""
    notes = [
        f"{found.container} format{f', weights under {found.wrapper!r}' if found.wrapper else ''}",
        *([f"not taken: {', '.join(found.others)}{averaged}"] if found.others else []),
        *([f"left out: {', '.join(found.skipped)}"] if found.skipped else []),
        *([f"left out: {len(named.left_out)} second copies, such as {named.left_out[0]}"] if named.left_out else []),
        f"names: {named.scheme}{f', behind {found.prefix!r}' if found.prefix else ''}",
        f"{'given' if arch else 'inferred'}: {infer.describe(spec)}",
        f"assumed: the {'3x3' if spec.stride_on == 2 else 'first 1x1'} convolutions stride, batch norm epsilon {spec.eps:g}",
    ]
    implied = infer.implied(named.scheme, spec)
    notes += [implied.note] if implied.note else []
    if preprocess is None:
        preprocess = implied.preprocess
    params = {name: tensors[name] for name in parameters(spec)}
    _check_values(params)
    provenance = {
        "source": Path(path).name,
        "sha256": found.sha256,
        "licence": licence,
        "converter": f"tinyresnext {__version__}",
    }
    return Conversion(store.Stored(spec, params, preprocess, _labels(spec, labels), provenance), tuple(notes))


def load_checkpoint(path: str | os.PathLike[str], arch: str | Spec | None = None, device: str = "cpu") -> Model:
    """Any supported foreign file -> a model, without writing anything. Parameters and errors as in `read_checkpoint`."""
    return Model(*read_checkpoint(path, arch=arch).stored, backend(device))


def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order that every checkpoint has them."""
    return tuple((files(__package__) / "imagenet_labels.txt").read_text("utf-8").splitlines())


def _understood(shapes: infer.Shapes, arch: str | Spec | None) -> tuple[Spec, names.Names]:
    """Whose names these are; and the architecture, or the one asked for with the checkpoint's own classes and channels."""
    named = names.recognise(shapes)
    shapes, eps = named.shapes(shapes), infer.epsilon(named.scheme)
    if arch is None:
        return infer.infer(shapes, eps), named
    spec = replace(variant(arch), eps=eps) if isinstance(arch, str) else arch
    if isinstance(arch, str):
        stem = shapes.get("conv1.0.weight" if spec.stem == "deep" else "conv1.weight", ())
        classifier = shapes.get("fc.weight", ())
        if len(stem) == 4 and len(classifier) == 2 and stem[1] and classifier[0]:
            spec = replace(spec, channels=stem[1], classes=classifier[0])
    infer.check(shapes, spec, "name another architecture, or none to have it inferred")
    return spec, named


def _check_values(params: Mapping[str, np.ndarray]) -> None:
    """Refuse weights that can only give nonsense."""
    for name, array in params.items():
        if not np.isfinite(array).all():
            raise IntegrityError(f"{name} has values that are NaN or infinite; use other weights")
        if name.endswith("running_var") and (array < 0).any():
            raise IntegrityError(f"{name} has negative variances; use other weights")


def _labels(spec: Spec, labels: Sequence[str] | None) -> tuple[str, ...]:
    """One name for each class."""
    if labels is None:
        return imagenet_labels() if spec.classes == 1000 else tuple(f"class {i}" for i in range(spec.classes))
    if len(labels) != spec.classes:
        raise UsageError(f"there are {len(labels)} labels and the network has {spec.classes} classes; give one line for each")
    return tuple(labels)
