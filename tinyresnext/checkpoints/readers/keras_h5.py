"""Weights as Keras keeps them in HDF5 files, found with our own reader and not the HDF5 library.

Keras writes a group for each layer, and lists in attributes what belongs to it::

    /  or  /model_weights        attribute layer_names: which groups, in order
      conv1_conv/                attribute weight_names: conv1_conv/kernel:0, conv1_conv/bias:0
        conv1_conv/kernel:0      a dataset, in Keras' own orientation

A list that is too long for one attribute is cut into ``layer_names0``, ``layer_names1`` and so on.
The attribute ``backend`` names the library that computed. Theano's convolutions turn their kernels
by 180 degrees, so the same kernels under another library are another network.
Everything else in such a file (the optimiser, the training configuration as JSON) is never read.

Source: the layout of Keras' ``hdf5_format``, and ``_need_convert_kernel`` in it.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from ...formats.dtypes import BY_HDF5
from ...formats.hdf5.form import AGAIN
from ...formats.hdf5.tree import Tree, shown
from ...system.files import pieces
from .checkpoint import MAX_TENSORS, Listed, Stored, checked_name

__all__ = ["listed"]

# HDF5's classes of types, in the order of their numbers
_CLASSES = (
    "integers",
    "floats",
    "times",
    "text",
    "bits",
    "opaque",
    "compound",
    "references",
    "enumerated",
    "of varying length",
)


def listed(file: BinaryIO) -> Listed:
    """List the tensors of an open file, at any position.

    Raises
    ------
    FormatError
        Cut short, not such a file, or written in a form that is not understood; the message says
        how to rewrite it.
    UnsafeError
        Something lies outside the file or across something else, is a link, in pieces, filtered or
        in other files.
    """
    tree = Tree(file)
    top, wrapper, others = _top(tree)
    for path in dict.fromkeys(((), top)):
        _check_backend(tree, path)
    stored: dict[str, Stored] = {}
    layers = _names(tree, top, "layer_names")
    if len(set(layers)) != len(layers):
        raise FormatError("the list of layers has a name twice; save the model again")
    for layer in layers:
        place = (*top, layer)
        for inside in _names(tree, place, "weight_names"):
            name = _of_layer(layer, checked_name(inside))
            if name in stored:
                raise FormatError(
                    f"two layers have a weight {name}; give the layers different names and save "
                    "the model again"
                )
            stored[name] = _stored(file, tree, (*place, *inside.split("/")), name)
            if len(stored) > MAX_TENSORS:
                raise UnsafeError(f"the file has more than {MAX_TENSORS:,} tensors; do not use it")
    return Listed(stored, "keras", wrapper=wrapper, others=others)


def _check_backend(tree: Tree, path: tuple[str, ...]) -> None:
    """Raise `FormatError` if a group names the backend whose kernels are others."""
    attribute = tree.attributes(path).get("backend")
    if attribute is None:
        return
    backend = tree.text(attribute, f"backend of {shown(path)}")
    if backend == "theano":
        raise FormatError(
            "the weights were written under Keras' backend Theano, whose convolutions turn their "
            "kernels; expected those of another; load the model with Keras under TensorFlow, which "
            "turns them back, and save it again"
        )


def _of_layer(layer: str, name: str) -> str:
    """Return the name of a weight with that of its layer.

    For the second model of a session, TensorFlow 1 put a number behind the layer's name in those of
    its weights: ``fc1/fc1_1/kernel:0``.
    """
    first, _, rest = name.partition("/")
    numbered = first.startswith(f"{layer}_") and first.removeprefix(f"{layer}_").isdigit()
    return f"{layer}/{rest}" if numbered else name


def _top(tree: Tree) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the path of the group with the list of layers, its key, and the keys of others."""
    if _has(tree, (), "layer_names"):
        return (), "", ()
    if "spec" in tree.attributes(()):
        raise FormatError("an HDF5 file of tinyresnext; open it as a model instead")
    members = tree.members(())
    if "model_weights" in members and _has(tree, ("model_weights",), "layer_names"):
        others = tuple(name for name in members if name == "optimizer_weights")
        return ("model_weights",), "model_weights", others
    newer = "_layer_checkpoint_dependencies" in members or "layers" in members
    what = (
        "in the form of Keras 3's .weights.h5; save the model as .h5"
        if newer
        else "without Keras' list of layers"
    )
    raise FormatError(
        f"an HDF5 file {what}; a model file of tinyresnext is opened as a model instead"
    )


def _has(tree: Tree, path: tuple[str, ...], name: str) -> bool:
    """Return whether a group has a list of that name, whole or in parts."""
    return not {name, f"{name}0"}.isdisjoint(tree.attributes(path))


def _names(tree: Tree, path: tuple[str, ...], name: str) -> list[str]:
    """Return the texts of a list in a group's attributes, whole or in parts."""
    attributes = tree.attributes(path)
    parts = [name] if name in attributes else []
    while parts[:1] != [name] and f"{name}{len(parts)}" in attributes:
        parts.append(f"{name}{len(parts)}")
    if not parts:
        raise FormatError(
            f"{shown(path)} has no attribute {name}, in which Keras lists what it has; save the "
            "model again"
        )
    where = shown(path)
    return [text for part in parts for text in tree.texts(attributes[part], f"{part} of {where}")]


def _stored(file: BinaryIO, tree: Tree, path: tuple[str, ...], name: str) -> Stored:
    """Return where the numbers of the dataset at a path are."""
    array = tree.array(path, name)
    if array.datatype not in BY_HDF5:
        number = array.datatype[0] & 15 if array.datatype else 15
        what = _CLASSES[number] if number < len(_CLASSES) else "of an unknown kind"
        raise FormatError(
            f"{name} has values that are {what}, or not little-endian; expected floats of 2, 4 or "
            "8 bytes"
        )
    kind, count = BY_HDF5[array.datatype], prod(array.shape)
    if count * kind.itemsize != array.size:
        raise FormatError(
            f"{name} of shape {array.shape!s:.80} has {array.size:,} bytes of values; {AGAIN}"
        )
    tree.claim(array, name)
    read_values = partial(pieces, file, array.offset, array.size, name)
    return Stored(kind, array.shape, count, read_values)
