"""Making our model of any system's checkpoint: read it, rename, infer the architecture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ShapeError, UsageError
from ..images.preprocess import Preprocess
from ..network.resnext import parameters
from ..network.spec import Spec, dilated, variant
from ..store.contents import Stored
from ..system.files import shown
from ..system.version import __version__
from . import carried, infer
from .beside import architecture, config, folder, layers
from .beside.labels import labels_of
from .carried import Carried
from .names import layouts
from .names.classification_models import INPUT, preprocessing
from .names.judge import check_outside, judge, without_other_heads
from .names.paddle import check_twins
from .names.schemes import Names, recognise
from .names.table import PADDLE, TORCHVISION
from .notes import FOUND_NORM, About, notes
from .onnx.architecture import agreed
from .readers import container, parts
from .readers.checkpoint import Look, OnDemand

__all__ = ["Conversion", "opened_checkpoint"]


class Conversion(NamedTuple):
    """A model ready to be stored, and what the user should know about how it was understood."""

    stored: Stored
    notes: tuple[str, ...]


@contextmanager
def opened_checkpoint(
    path: str | os.PathLike[str],
    *,
    arch: str | Spec | None = None,
    stem: str | None = None,
    head: str | None = None,
    blur_pool: str | None = None,
    output_stride: int | None = None,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    ema: bool = False,
    licence: str = "",
    key: str | None = None,
    prefix: str | None = None,
) -> Iterator[Conversion]:
    """Understand a checkpoint without having it in memory.

    What `carried.written` wrote beside the tensors decides what no argument says, unless ``arch``
    has other classes or channels. Else the files that timm or transformers put into the folder do.

    In the ``with`` block each weight is read when it is asked for.

    Parameters
    ----------
    path : str or path
        A ``.pth`` file of either of PyTorch's formats, ``.safetensors``, ``.npz``, Torch7's ``.t7``
        or Keras' ``.h5``, recognised by its content; with the key names of any system in
        `names.schemes.SCHEMES`. Or a folder as the Hugging Face Hub has them, the ``config.json``
        in it, or the index of a checkpoint in parts.
    arch : str or Spec, optional
        The architecture; by default it is inferred from the tensors.
    stem : str, optional
        One of `tinyresnext.network.spec.STEMS`, if the tensors do not determine it: a pooling has
        no tensors, so a 3x3 stem is taken for CIFAR's unless ``pooled`` is given.
    head : str, optional
        One of `tinyresnext.network.spec.HEADS`; no tensor says it. By default that of an ``arch``
        with a sigmoid, or what those files say; else a single output is under a sigmoid, and
        several under a softmax.
    blur_pool : str, optional
        One of `tinyresnext.network.spec.BLUR_POOLS`, if the network has a blur pooling, which has
        no tensors.
    output_stride : int, optional
        How many pixels a step in the result of the last stage is, if the last stages dilate; that
        has no tensors either.
    preprocess : Preprocess, optional
        By default what those files say, or that of the system whose names the file has:
        ImageNet's (256, 224, bilinear), CIFAR's for a CIFAR stem. Where the network has a norm of
        its input, mean and deviation are always those of the norm.
    labels : sequence of str, optional
        By default what those files say, ImageNet's for 1,000 classes, numbers otherwise.
    ema : bool
        Take the averaged weights of a training checkpoint that has them beside the plain ones.
    licence : str
        Of the weights, to be kept with them.
    key : str, optional
        Under which a ``.pth`` file has the state dict, such as ``model.ema``; by default it is
        found.
    prefix : str, optional
        What stands before the names of the network, such as ``module.encoder_q.``; by default it is
        found. Tensors of other names are not taken.

    Yields
    ------
    Conversion
        Its ``params`` can be written or copied as long as the file is open. All
        values have been checked.

    Raises
    ------
    WeightsError
        The file cannot be used: the message says what was found, what was expected and what to do.
    UsageError
        ``arch``, ``stem``, ``labels`` or ``preprocess`` do not fit the network; nothing lies under
        ``key`` or behind ``prefix``.
    """

    def check(shapes: infer.Shapes, beside: bytes, graph: Spec | None) -> Look:
        named = _understood(shapes, arch, stem, carried.understood(beside), prefix, graph)[1]
        return judge(shapes, named)

    _check_given(key, prefix, preprocess)
    named_path, path = path, folder.weights(path)
    with container.opened(path, ema=ema, check=check, key=key) as found:
        beside = carried.understood(found.carried)
        spec, named = _understood(found.shapes, arch, stem, beside, prefix, found.spec)
        said = None
        if beside is None:
            parts.refuse_one(path)
            wanted = path is not named_path
            said = config.read(path, wanted=wanted, labels=labels is None)
        if said is not None and said.architecture:
            given = arch is not None, stem is not None
            untold = architecture.decided(path, said, spec, given, blur_pool, output_stride)
            blur_pool, output_stride = untold
        elif beside is None and found.called:
            name, is_given = found.called, arch is not None
            blur_pool = architecture.blur_of_name(path, name, spec, is_given, blur_pool)
        asked = head or ("sigmoid" if getattr(arch, "head", "") == "sigmoid" else "")
        asked = asked or (said.head if said is not None and spec.classes > 1 else "")
        spec = _with_head(spec, asked or None, beside)
        spec = spec if blur_pool is None else replace(spec, blur_pool=blur_pool)
        spec = spec if output_stride is None else dilated(spec, output_stride)
        spec = spec if found.spec is None else agreed(found.spec, spec)
        spec = spec if found.eps is None else _with_eps(spec, found.eps, isinstance(arch, Spec))
        if found.layers is not None:
            layers.compare(found.layers, named, spec)
        if preprocess is not None and preprocess.channels != spec.channels in (1, 3):
            raise UsageError(
                f"the preprocessing makes {preprocess.channels} channels and the network takes "
                f"{spec.channels}; give a mean and a deviation for each"
            )
        told = notes(found, spec, named, About(arch is not None, stem is not None, beside, said))
        provenance = {
            "source": _source(named_path, path),
            "sha256": found.sha256,
            "licence": licence,
            "converter": f"tinyresnext {__version__}",
        }
        if beside is not None and carried.fits(beside, spec):
            labels = beside.labels if labels is None else labels
            preprocess = preprocess or beside.preprocess
            provenance = beside.origin(provenance)
        elif said is not None:
            architecture.check_labels(path, said, spec)
            labels = said.labels if labels is None and spec.classes else labels
            preprocess = preprocess or said.preprocess
            provenance["licence"] = licence or said.licence
        arrays = named.tensors(found.tensors)
        if f"{INPUT}bias" in arrays:
            own = preprocessing(arrays, infer.epsilon(named.scheme), spec.channels)
            preprocess = replace(preprocess or own, mean=own.mean, std=own.std)
            told += (f"{FOUND_NORM}, in the norm of the input (bn_data)",)
        params = OnDemand(parameters(spec), arrays.__getitem__)
        preprocess = preprocess or infer.implied(named.scheme, spec).preprocess
        stored = Stored(spec, params, preprocess, labels_of(spec, labels), provenance)
        yield Conversion(stored, told)


def _check_given(key: object, prefix: object, preprocess: object) -> None:
    """Raise `UsageError` for what is no text, or no preprocessing."""
    for name, value in (("key", key), ("prefix", prefix)):
        if not isinstance(value, str | None) or (name == "key" and value == ""):
            raise UsageError(f"{name} is {value!r:.80}; give a text, or leave it out")
    if not isinstance(preprocess, Preprocess | None):
        raise UsageError(
            f"preprocess is {preprocess!r:.80}; give a tinyresnext.Preprocess, or leave it out"
        )


def _source(given: str | os.PathLike[str], file: str | os.PathLike[str]) -> str:
    """Return the name of a checkpoint for its provenance, with that of a folder that was named."""
    name = Path(file).name
    return shown(name if given is file else f"{Path(os.path.abspath(file)).parent.name}/{name}")


def _understood(
    shapes: infer.Shapes,
    arch: str | Spec | None,
    stem: str | None,
    beside: Carried | None,
    prefix: str | None = None,
    graph: Spec | None = None,
) -> tuple[Spec, Names]:
    """Return the architecture, and whose names the tensors have.

    An architecture that was asked for gets the checkpoint's own classes and channels.
    """
    if graph is None or prefix is not None:
        named = recognise(shapes, prefix)
    else:  # the reader has named the tensors as we do
        named = Names(TORCHVISION, {name: ((name,), layouts.AS_IT_IS) for name in shapes}, {})
    if not (isinstance(arch, Spec) and arch.classes):
        named = without_other_heads(shapes, named)
    eps, whole = infer.epsilon(named.scheme), shapes
    shapes = {n: s for n, s in named.shapes(shapes).items() if not n.startswith(INPUT)}
    if arch is not None:
        spec = _asked_for(shapes, eps, arch, beside)
    elif beside is not None:
        spec = beside.spec
        carried.check(spec, shapes)
    elif graph is not None:
        spec = graph
    else:
        spec = infer.by_names(named.scheme, infer.infer(shapes, eps))
        if named.scheme == PADDLE:
            check_twins(spec)
    if stem is None and arch is not None:
        _check_stem(named.scheme, spec)
    if stem is not None:
        spec = replace(spec, stem=stem)
        infer.check(shapes, spec, "name another stem, or none to have it inferred")
    if prefix is None and not (isinstance(arch, Spec) and not arch.classes):
        check_outside(whole, named, spec)
    return spec, named


def _check_stem(scheme: str, spec: Spec) -> None:
    """Raise `UsageError` if an architecture was asked for whose stem the names say to be another.

    The two have the same tensors and compute different numbers.
    """
    told = infer.by_names(scheme, spec).stem
    if told != spec.stem:
        raise UsageError(
            f"the architecture has the stem {spec.stem!r}, and the names are those of {scheme}, "
            f"whose stem is {told!r}; name an architecture that has it (legacy_...), or none, or "
            f"say --stem {spec.stem} if the names are wrong"
        )


def _asked_for(shapes: infer.Shapes, eps: float, arch: str | Spec, beside: Carried | None) -> Spec:
    """Return the architecture of that name, or the one that is given, if it fits the shapes.

    What no name says is as it was carried.
    """
    if isinstance(arch, str):
        spec = replace(variant(arch), eps=eps)
        if beside is not None and carried.of_a_kind(beside.spec, spec):
            ours = beside.spec
            spec = replace(spec, eps=ours.eps, dilated=ours.dilated, stride_on=ours.stride_on)
        stem = shapes.get("conv1.0.weight" if spec.stem == "deep" else "conv1.weight", ())
        classifier = shapes.get("fc.weight", ())
        if len(stem) == 4 and stem[1] and (not classifier or len(classifier) == 2):
            spec = replace(spec, channels=stem[1], classes=classifier[0] if classifier else 0)
    else:
        spec = arch
    infer.check(shapes, spec, "name another architecture, or none to have it inferred")
    return spec


def _with_eps(spec: Spec, eps: float, given: bool) -> Spec:
    """Return the architecture with the epsilon of a file; refuse another that was ``given``."""
    if given and np.float32(spec.eps) != np.float32(eps):
        raise ShapeError(
            f"the batch norms of the file have the epsilon {eps:g}, and those of the architecture "
            f"{spec.eps:g}; give an architecture with the file's"
        )
    return spec if given else replace(spec, eps=eps)


def _with_head(spec: Spec, head: str | None, beside: Carried | None) -> Spec:
    """Return the architecture with the head that was asked for, carried beside it, or usual."""
    if head is None and beside is not None and beside.spec.classes == spec.classes:
        head = beside.spec.head
    if head == "softmax" and spec.classes == 1:
        raise UsageError("a single output means nothing under a softmax; give --head sigmoid")
    return replace(spec, head=head or infer.usual_head(spec.classes))
