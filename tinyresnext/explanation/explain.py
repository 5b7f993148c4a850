"""Explain one image: labels, maps, and what every path of every block did."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.rules import alike
from ..errors import UsageError
from ..images.checks import whole_number
from ..images.decode import Picture
from ..images.prepare import prepare
from ..images.preprocess import Preprocess
from ..inference.files import check_model
from ..inference.heads import check_head
from ..inference.inputs import check_not_quantised
from ..inference.model import Model
from ..network.resnext import Block, blocks
from ..system.words import one_of
from .effects import exact
from .explanation import Explanation, Stage, Terms
from .maps import class_activation, grad_cam, strongest
from .paths import projections
from .recorded import COPIES, Recorded, record

__all__ = ["MOST_CLASSES", "explain"]

CHANNELS = 6  # of each stage: as many as stand in a row
MOST_CLASSES = 20


def explain(
    model: Model,
    image: Picture,
    block: str | None = None,
    label: str | int | None = None,
    *,
    top: int = 5,
) -> Explanation:
    """Explain what a network did with one image, above all with the paths of its blocks.

    Parameters
    ----------
    model : Model
    image : image
        A path, a Pillow image, a uint8 array, bytes of an image file, or a file open in binary
        mode.
    block : str, optional
        The block whose effects are computed exactly, such as ``layer4.2``, or ``all``. For each
        path, the network after the block runs again. By default it is the last block.
    label : str or int, optional
        The name or number of a class to explain beside the most probable ones.
    top : int
        How many of the most probable classes are explained, at most 20.

    Returns
    -------
    Explanation

    Raises
    ------
    ImageError
        The image cannot be used.
    UsageError
        ``model`` is no `Model`, there is no such block or class, ``top`` is out of range, the
        network has a single output, or other channels than the preprocessing makes; or the model
        does not compute in float32.
    IntegrityError
        The logits are not finite.
    """
    check_model(model)
    top = whole_number("top", top, 1, MOST_CLASSES, " of classes")
    check_head(model.spec)
    check_not_quantised(model.quantisation, "an explanation")
    if model.precision != "float32":
        raise UsageError(
            f"the model computes in {model.precision}, and an explanation needs gradients in "
            "float32; load it with precision='float32'"
        )
    if model.spec.classes == 1:
        raise UsageError(
            "the network has a single output, and its two labels share one logit; what is "
            "explained is the logit of each class, so use a model with an output for each"
        )
    model.check_pictures()
    asked = None if label is None else class_number(model.labels, label)
    wanted = _chosen([b.name for b in blocks(model.spec)], block)
    x = prepare(image, model.preprocess)
    [logits] = model(x[None])
    [ranked] = model.rank(logits[None], model.spec.classes)
    classes = ranked[:top] + [guess for guess in ranked[top:] if guess.index == asked]
    numbers = [guess.index for guess in classes]
    recorded = record(model, x, min(len(numbers), COPIES))
    sums = [f"{b.name}.add" for b in recorded.blocks]
    slopes = recorded.gradients(numbers, [*recorded.stages.values(), *sums])
    return Explanation(
        name=_name(image),
        spec=model.spec,
        image=_seen(x, model.preprocess),
        predictions=ranked[:top],
        classes=classes,
        label=0 if asked is None else numbers.index(asked),
        logits=logits[numbers],
        biases=model.params["fc.bias"][numbers],
        cam=np.stack([class_activation(recorded, number) for number in numbers]),
        stages=tuple(
            _stage(recorded, name, output, slopes[output])
            for name, output in recorded.stages.items()
        ),
        blocks=tuple(
            _terms(recorded, b, slopes[f"{b.name}.add"], numbers if b.name in wanted else None)
            for b in recorded.blocks
        ),
    )


def class_number(labels: Sequence[str], label: str | int) -> int:
    """Return the number of a class that is given by its name or its number.

    Raises
    ------
    UsageError
        There is no such class, or several have that name.
    """
    if not isinstance(label, str):
        return whole_number("label", label, 0, len(labels) - 1, " of a class")
    same = [i for i, name in enumerate(labels) if name == label]
    if not same:
        same = [i for i, name in enumerate(labels) if alike(name) == alike(label)]
    digits = label.lstrip("0")[:9] or "0"  # so many are beyond all classes
    if not same and label.isascii() and label.isdigit() and int(digits) < len(labels):
        return int(digits)
    if len(same) > 1:
        raise UsageError(
            f"{len(same)} classes are called {label!r}; give a number: {', '.join(map(str, same))}"
        )
    if not same:
        known = one_of(label, labels) if len(labels) <= 20 else _nearest(label, labels)
        raise UsageError(f"the model has no class {label!r}: {known}")
    return same[0]


def _nearest(label: str, labels: Sequence[str]) -> str:
    """Return what to expect, and the nearest of many names."""
    near = one_of(label, labels).partition("; did you mean ")[2]
    text = f"expected one of its {len(labels)} names, or a number below {len(labels)}"
    return f"{text}; did you mean {near}" if near else text


def _chosen(known: Sequence[str], block: str | None) -> Sequence[str]:
    """Return the names of the blocks whose effects are computed exactly."""
    if block == "all":
        return known
    if block is not None and block not in known:
        raise UsageError(f"there is no block {block!r}: {one_of(block, [*known, 'all'])}")
    return [known[-1] if block is None else block]


def _name(image: Any) -> str:
    """Return the name of a file, or ``image`` for what has none."""
    named = getattr(image, "name", getattr(image, "filename", image))
    if isinstance(named, (str, os.PathLike)) and os.fspath(named):
        return os.path.basename(os.fsdecode(named)) or "image"
    return "image"


def _seen(x: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the pixels of a normalised image."""
    values = x * np.asarray(preprocess.std, np.float32) + np.asarray(preprocess.mean, np.float32)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def _stage(recorded: Recorded, name: str, output: str, slopes: np.ndarray) -> Stage:
    """Explain a stage; ``slopes`` are the gradients of the logits for its output."""
    values = recorded.value(output)
    maps = np.stack([grad_cam(values, slope) for slope in slopes])
    return Stage(name, values.shape, maps, strongest(values, CHANNELS))


def _terms(
    recorded: Recorded, block: Block, slopes: np.ndarray, numbers: Sequence[int] | None
) -> Terms:
    """Explain a block; its exact effects are computed for the classes of these numbers, if any.

    ``slopes`` are the gradients of the logits for its sum.
    """
    y = recorded.value(f"{block.name}.add").astype(np.float64)
    channel = int(np.maximum(y, 0).mean((0, 1)).argmax())
    one = np.zeros_like(y)
    one[:, :, channel] = 1
    # A block whose output is zero everywhere has no shares.
    share = y / ((y * y).sum() or 1)
    shares, of_channel, *effects = projections(recorded, block, np.stack([share, one, *slopes]))
    found = None if numbers is None else exact(recorded, block).T[numbers]
    return Terms(block, y.shape, shares, np.stack(effects), channel, of_channel, found)
