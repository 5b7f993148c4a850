"""The logits of a data set's images in a file, by their names: what a stored teacher says.

The file is an uncompressed ``.npz``: ``meta`` (JSON as bytes: names, classes, what computed them),
``labels``, ``crc32`` (of the pixels of each decoded image) and ``logits``. Nothing in it is
trusted: `read_logits` accepts only what `write_logits` writes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.dataset import Dataset
from ...errors import FormatError, ImageError, IntegrityError, UsageError, WeightsError
from ...formats.npy import read_array, write_npz
from ...formats.stored_zip.reader import read_members
from ...images.checks import whole_number
from ...images.prepare import views
from ...system.files import regular, sha256_of, shown
from ..evaluate import score
from ..heads import check_finite, check_head
from ..model import Model
from ..scores.classes import same_classes
from ..scores.evaluation import Evaluation
from .batches import grouped

__all__ = ["Logits", "logits_of", "of_images", "read_logits", "scored", "write_logits"]

FORMAT = "tinyresnext logits 1"
AGAIN = "write it again with `tinyresnext evaluate DATA --logits FILE.npz`"
_TEXTS = ("model", "architecture", "preprocess")  # of the meta, which is for people but the first


@dataclass(frozen=True, eq=False)
class Logits:
    """What a model says of the images of a data set.

    Parameters
    ----------
    classes : tuple of str
        Of the data set; the model has the same, in the same order.
    names : tuple of str
        Of the images, as the data set calls them; all different.
    labels : [n] int64
        The class of each image.
    crc32 : [n] uint32
        Checksums of their pixels, after decoding.
    values : [n, classes] float32
        The logits.
    about : dict of str to str
        ``model``, the digest of the model; its ``architecture`` and its ``preprocess``.
    left_out : tuple of str
        Broken images that have no logits.
    sha256 : str
        Of the file that this was read from.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    crc32: np.ndarray
    values: np.ndarray
    about: dict[str, str]
    left_out: tuple[str, ...] = ()
    sha256: str = ""


def logits_of(
    model: Model,
    digest: str,
    data: Dataset,
    *,
    batch: int | None = 64,
    progress: Callable[[int], None] | None = None,
) -> Logits:
    """Compute the logits of all images of a data set, each as the model sees it in an evaluation.

    Parameters
    ----------
    model : Model
        With a softmax over the classes of the data set.
    digest : str
        Of the model.
    data : Dataset
    batch : int, optional
        The number of images in a mini-batch; None finds a good one.
    progress : callable, optional
        Called after each mini-batch with the number of images so far.

    Raises
    ------
    UsageError
        The model does not fit the data set, or two images have the same name.
    ImageError
        An image cannot be used, and broken ones are not left out.
    IntegrityError
        Logits are not finite.
    """
    batch = batch if batch is None else whole_number("batch", batch, 1)
    check_head(model.spec)
    model.check_pictures()
    if model.spec.head != "softmax" or data.labels.ndim != 1:
        raise UsageError(
            "logits are kept of a model with a softmax and images of one class each: those are "
            "what a run of training can learn from"
        )
    same_classes(model.labels, data.classes, repr(model))
    if len(set(data.names)) < len(data):
        raise UsageError(
            "two images of the data set have the same name, so their logits could not be told "
            "apart; rename one"
        )

    def made(i: int) -> tuple[int, np.ndarray, int] | str:
        try:
            pixels = data.picture(i)
            [x] = views(pixels, model.preprocess)
            return i, x, _crc32(pixels)
        except ImageError as error:
            if not data.skips:
                raise
            data.warn(f"{error}; it is left out")
            return data.names[i]

    numbers: list[int] = []
    sums: list[int] = []
    values: list[np.ndarray] = []
    left_out: list[str] = []
    threads = model.ops.thread_count(model.threads)
    for group in grouped(made, range(len(data)), batch, threads):
        good = [one for one in group if not isinstance(one, str)]
        left_out += [one for one in group if isinstance(one, str)]
        if good:
            values.append(model(np.stack([x for _, x, _ in good])))
            check_finite(values[-1])
            numbers += [i for i, _, _ in good]
            sums += [crc for _, _, crc in good]
        if progress is not None:
            progress(len(numbers))
    if not numbers:
        raise UsageError("there are no images to evaluate on; choose another data set or split")
    preprocess = json.dumps(model.preprocess.to_json())
    about = {"model": digest, "architecture": model.spec.name, "preprocess": preprocess}
    names = tuple(data.names[i] for i in numbers)
    labels, crc32 = data.labels[numbers], np.array(sums, np.uint32)
    found = np.concatenate(values).astype(np.float32)
    return Logits(tuple(data.classes), names, labels, crc32, found, about, tuple(left_out))


def scored(found: Logits) -> Evaluation:
    """Compare the logits with the labels, as `tinyresnext.evaluate` compares them."""

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(found.labels), 1024):
            yield found.values[first : first + 1024], found.labels[first : first + 1024]

    return score(lambda rows: rows, pieces(), found.classes)


def of_images(found: Logits, data: Dataset) -> np.ndarray:
    """Return the logits of a data set's images, in its order; each is found by its name.

    Images in memory are compared by their pixels too. Of a broken image that was left out, all
    logits are not-a-number.

    Raises
    ------
    UsageError
        The classes differ, an image has no logits, or an image of that name is another one.
    """
    if found.classes != tuple(data.classes):
        raise UsageError(
            f"the logits are of the classes {', '.join(found.classes[:5])} ... "
            f"({len(found.classes)}), and the data set has {', '.join(data.classes[:5])} ... "
            f"({len(data.classes)}); {AGAIN}"
        )
    place, broken = {name: i for i, name in enumerate(found.names)}, set(found.left_out)
    values = np.full((len(data), len(found.classes)), np.nan, np.float32)
    for i, name in enumerate(data.names):
        if name not in place:
            if data.skips and name in broken:
                continue
            raise UsageError(
                f"there are no logits of the image {shown(name)}, and {len(place):,} of others; "
                f"{AGAIN} and the images to train on (--split train)"
            )
        row = place[name]
        if found.labels[row] != data.labels[i]:
            raise UsageError(
                f"the image {shown(name)} is of class {data.classes[data.labels[i]]!r}, and the "
                f"one that the logits are of was {found.classes[found.labels[row]]!r}; {AGAIN}"
            )
        if data.in_memory and _crc32(data.picture(i)) != found.crc32[row]:
            raise UsageError(
                f"the image {shown(name)} has other pixels than the one that the logits are of; "
                f"{AGAIN}"
            )
        values[i] = found.values[row]
    return values


def write_logits(path: str | os.PathLike[str], found: Logits) -> None:
    """Write logits to a file, whole or not at all.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    meta = {"format": FORMAT, "classes": found.classes, "names": found.names}
    meta |= {"left_out": found.left_out, **found.about}
    arrays = {
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        "labels": found.labels.astype("<i8"),
        "crc32": found.crc32.astype("<u4"),
        "logits": found.values.astype("<f4"),
    }
    write_npz(path, arrays)


def read_logits(path: str | os.PathLike[str]) -> Logits:
    """Read what `write_logits` wrote.

    Raises
    ------
    FormatError
        No such file, or something else.
    IntegrityError
        A checksum differs, or a logit is not finite.
    """
    try:
        with regular(path) as file:
            members = read_members(file)
            names = ("meta", "labels", "crc32", "logits")
            if sorted(members) != sorted(f"{name}.npy" for name in names):
                raise FormatError(f"it has the parts {', '.join(sorted(members)[:8])!r:.200}")
            meta, *rest = (read_array(file, members[f"{name}.npy"], name) for name in names)
            return _checked(meta.tobytes(), rest, sha256_of(file))
    except IntegrityError as error:
        raise IntegrityError(f"{shown(path)}: {error}; {AGAIN}") from error
    except (WeightsError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{shown(path)} has no logits as a teacher has them: {error}; {AGAIN}"
        ) from error


def _checked(meta: bytes, arrays: list[np.ndarray], sha256: str) -> Logits:
    """Return the logits of a file, if its parts fit together."""
    said: Any = json.loads(meta)
    labels, crc32, values = arrays
    lists = ("classes", "names", "left_out")
    fields = {"format", *lists, *_TEXTS}
    if not isinstance(said, dict) or set(said) != fields or said["format"] != FORMAT:
        raise FormatError(f"its meta is not of {FORMAT!r}")
    good = all(isinstance(said[name], list) for name in lists)
    good = good and all(isinstance(one, str) for name in lists for one in said[name])
    n, classes = (len(said["names"]), len(said["classes"])) if good else (0, 0)
    good = good and all(isinstance(said[name], str) for name in _TEXTS)
    good = good and n > 0 and len(set(said["names"])) == n
    kinds = [(labels, "<i8", (n,)), (crc32, "<u4", (n,)), (values, "<f4", (n, classes))]
    good = good and all((a.dtype, a.shape) == (np.dtype(kind), s) for a, kind, s in kinds)
    if not good or labels.min() < 0 or labels.max() >= classes:
        raise FormatError("its parts do not fit together")
    check_finite(values)
    about = {name: said[name] for name in _TEXTS}
    names, left_out = tuple(said["names"]), tuple(said["left_out"])
    return Logits(tuple(said["classes"]), names, labels, crc32, values, about, left_out, sha256)


def _crc32(pixels: np.ndarray) -> int:
    """Return the checksum of decoded pixels."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)
