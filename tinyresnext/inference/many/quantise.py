"""From a float32 model and some images to a model of 8 bits: post-training quantisation.

The float32 network sees the images once. For three of four, the numbers of every value that will
have 8 bits are counted, and scales are proposed (`tinyresnext.network.plan.calibration`). The
others are held back: on them the scales are compared, and then both models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...data.dataset import Dataset, LabelledImages
from ...errors import ImageError, UsageError
from ...images.decode import Picture
from ...images.prepare import prepare, views
from ...images.preprocess import Preprocess
from ...network.plan import Program, program
from ...network.plan.calibration import Candidates, Histogram, best_of
from ...network.plan.quantised import Quantisation, integer_parts, rounded
from ...network.trace import replay
from ...ops import integer
from ...store.weights import Weights
from ..files import check_model
from ..heads import same_first
from ..inputs import check_not_quantised, checked, complete, each_image, shapes_that_fit
from ..model import Model

__all__ = ["Quantised", "quantise", "quantised"]

BATCH = 8
HELD = 4  # one image of so many is held back


class Quantised(NamedTuple):
    """A quantised model, and how it compares with the model that it was made of.

    Attributes
    ----------
    model : Model
    compared : int
        The number of images that both models saw.
    held_back : bool
        Whether the scales were found on other images than these; not with fewer than four.
    same : int, optional
        For how many both models have the same first class; None without classes to tell apart.
    error : float
        The largest difference of their logits, divided by the largest logit.
    """

    model: Model
    compared: int
    held_back: bool
    same: int | None
    error: float


def quantise(model: Model, images: Picture | Iterable[Picture] | Dataset | LabelledImages) -> Model:
    """Make a model whose convolutions compute with integers of 8 bits.

    Weights have a scale for each filter, values between layers one for each layer, which is found
    on images. See ``docs/quantisation.md``.

    Parameters
    ----------
    model : Model
        In float32, on any device.
    images : image, iterable of images or data set
        As for `Model.predict`: such as the model will see, of all kinds. A few hundred are enough.
        Of a data set all images are used. Those that cannot be read are left out with a warning, if
        it was opened to leave them out, or to count them as wrong.

    Returns
    -------
    Model
        `tinyresnext.save` writes it.

    Raises
    ------
    UsageError
        ``model`` is no `Model`, or is quantised already, or there are no images.
    DeviceError
        The model's device does not compute with integers of 8 bits.
    ImageError
        An image cannot be used.
    IntegrityError
        A value of the network is not finite.
    """
    check_model(model)
    model.check_pictures()
    return quantised(model, _prepared(images, model.preprocess)).model


def _prepared(images: Any, preprocess: Preprocess) -> Iterator[np.ndarray]:
    """Yield images, also those of a data set, as a network takes them."""
    if not isinstance(images, Dataset | LabelledImages):
        yield from (prepare(one, preprocess) for one in each_image(images))
        return
    for source in images:
        try:
            [x] = views(source.open(), preprocess)
        except ImageError as error:
            if not (images.skips or images.keeps):
                raise
            images.warn(f"{error}; it is left out")
        else:
            yield x


def quantised(
    model: Model,
    images: Iterable[np.ndarray],
    seen: Callable[[int], None] | None = None,
) -> Quantised:
    """Make a quantised model, and compare it with the one that it is made of.

    Parameters
    ----------
    model : Model
    images : iterable of [h, w, channels] float32
        Normalised, all of one size.
    seen : callable, optional
        Called with the number of images that the network has seen.

    Raises
    ------
    UsageError, DeviceError, IntegrityError
        As for `quantise`.
    """
    check_not_quantised(model.quantisation, "quantising it again")
    integer(model.ops)
    parts, watch = integer_parts(model.spec), Watch(model)
    counted = {name: Histogram() for name in parts.values}
    held: list[np.ndarray] = []
    first: list[np.ndarray] = []
    total = 0
    for x in _batches(images):
        back = (total + np.arange(len(x))) % HELD == HELD - 1
        total += len(x)
        held += list(x[back])
        if len(rest := x[~back]):
            first = first or list(rest)
            for name, numbers in watch(rest)[0].items():
                counted[name].add(numbers)
        if seen is not None:
            seen(total)
    if not total:
        raise UsageError("there are no images to find scales with; give some")
    candidates = {name: Candidates(counted[name], signed) for name, signed in parts.values.items()}
    wanted = []
    for x in _batches(held or first):
        values, logits = watch(x)
        wanted.append(logits)
        for name, one in values.items():
            candidates[name].measure(one)
    made = _made(model, Quantisation(best_of(candidates), total))
    found = np.concatenate([made(x) for x in _batches(held or first)])
    return _compared(made, bool(held), np.concatenate(wanted), found)


class Watch:
    """A float32 network that also returns the values which will have 8 bits.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self.model, self.names = model, integer_parts(model.spec).values.keys()
        right = complete(model.params, model.spec)
        self.program: Program = program(right, model.spec, model.ops)

    def __call__(self, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return values by name, and the logits, of a mini-batch."""
        ops, calls = self.model.ops, self.program.calls
        x = checked(x, self.model.spec.channels)
        count = ops.thread_count(self.model.threads)
        with ops.on_threads(count), shapes_that_fit(self.model.spec):
            results = replay(calls, self.program.x, ops.upload(x), ops)
        pairs = zip(calls, results, strict=True)
        values = {call.name: ops.download(y) for call, y in pairs if call.name in self.names}
        return values, ops.download(results[-1])


def _made(model: Model, quantisation: Quantisation) -> Model:
    """Return the model with rounded weights."""
    weights = set(integer_parts(model.spec).weights)
    params: dict[str, Any] = {
        name: rounded(np.asarray(w)) if name in weights else w for name, w in model.params.items()
    }
    origin = model.provenance | {"quantised": f"to int8, with {quantisation.images} images"}
    if "accuracy" in origin:  # nobody has measured that of the new model
        origin["accuracy"] = f"{origin['accuracy']}, before it was quantised"
    return Model(
        model.spec, Weights(params), model.preprocess, model.labels, origin, model.ops,
        model.threads, quantisation,
    )  # fmt: skip


def _compared(made: Model, held_back: bool, wanted: np.ndarray, found: np.ndarray) -> Quantised:
    """Return a quantised model beside the comparison of its logits with the float32 model's."""
    same = same_first(made.spec, wanted, found)
    largest = float(np.abs(wanted).max()) or 1.0
    error = float(np.abs(found - wanted).max()) / largest
    return Quantised(made, len(wanted), held_back, same, error)


def _batches(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield mini-batches."""
    remaining = iter(images)
    while group := list(islice(remaining, BATCH)):
        yield np.stack(group)
