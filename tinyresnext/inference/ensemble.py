"""Several models, or several views of an image: the mean of their probabilities.

Krizhevsky et al. (2012) predict with ten views of an image, its corners and its middle, each also
mirrored, and take the mean of the probabilities; the ensembles of ResNet and ResNeXt do the same
with the probabilities of several networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..errors import UsageError
from ..images.checks import whole_number
from ..images.decode import Picture
from ..images.files import Contents
from ..images.prepare import views
from ..network.spec import Spec
from .files import check_model
from .heads import Prediction, check_finite, check_head, check_threshold
from .inputs import each_image
from .model import Model

__all__ = ["CROPS", "Ensemble", "Seen"]

CROPS = (1, 5, 10)
Seen = tuple[np.ndarray, ...]  # of one image: for each model its views [views, h, w, channels]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models that predict together; a single one with a single view predicts as it does alone.

    Parameters
    ----------
    models : tuple of Model
        With the same labels and the same kind of head. Each prepares images in its own way.
    crops : {1, 5, 10}
        Views of an image: the middle; the corners too; all of these of the mirrored image too.
    mirror : bool
        Whether each view is also seen mirrored; ten already are.

    Raises
    ------
    UsageError
        There is no model, they do not have the same labels, ``crops`` is another number, or ten
        crops are to be mirrored.
    """

    models: tuple[Model, ...]
    crops: int = 1
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.crops not in CROPS or isinstance(self.crops, bool):
            raise UsageError(f"crops is {self.crops!r}: expected 1, 5 or 10 views of an image")
        if self.crops == 10 and self.mirror:
            raise UsageError(
                "of 10 crops, five are those of the mirrored image already; leave out mirror "
                "(--mirror), or give 5 crops with it"
            )
        if not self.models:
            raise UsageError("there is no model; give at least one")
        for model in self.models:
            check_model(model)
        for other in self.models[1:]:
            kinds = [(m.spec.head, m.spec.classes, m.labels) for m in (self.models[0], other)]
            if kinds[0] != kinds[1]:
                raise UsageError(
                    f"the labels of {other!r} are not those of {self.models[0]!r}, in the same "
                    "order, with the same head and as many outputs; models that predict together "
                    "need the same"
                )

    @classmethod
    def of(
        cls, models: Model | Ensemble | Iterable[Model], crops: int = 1, mirror: bool = False
    ) -> Ensemble:
        """Return models that predict together, given as one or as several.

        Raises
        ------
        UsageError
            An ensemble has views of its own, and others are given.
        """
        if isinstance(models, Ensemble):
            if (crops, mirror) not in ((1, False), (models.crops, models.mirror)):
                raise UsageError(
                    f"crops is {crops!r} and mirror {mirror!r}, and the ensemble has views of its "
                    "own; give them to Ensemble"
                )
            return models
        if not isinstance(models, Iterable) or isinstance(models, str):
            check_model(models)
        return cls((models,) if isinstance(models, Model) else tuple(models), crops, mirror)

    @property
    def spec(self) -> Spec:
        """Return the specification of the first network: labels and head are those of all."""
        return self.models[0].spec

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the labels."""
        return self.models[0].labels

    @property
    def loaders(self) -> int:
        """Return how many threads prepare images while the models compute."""
        return max(model.ops.thread_count(model.threads) for model in self.models)

    def check_pictures(self) -> None:
        """Raise `UsageError` if prepared images do not have the channels of their network."""
        for model in self.models:
            model.check_pictures()

    def prepare(self, image: Picture | Contents, fast: bool = False) -> Seen:
        """Return the views of an image as each model sees them; ``fast`` is that of `views`."""
        return tuple(views(image, m.preprocess, self.crops, self.mirror, fast) for m in self.models)

    def __call__(self, images: Sequence[Seen]) -> np.ndarray:
        """Return logits [n, classes] that stand for the mean of all probabilities.

        Those of a single model with a single view are its own.

        Raises
        ------
        IntegrityError
            Logits of a model are not finite.
        """
        if not images:
            return np.empty((0, self.spec.classes), np.float32)
        found = []
        for number, model in enumerate(self.models):
            x = np.concatenate([seen[number] for seen in images])
            found.append(model(x).reshape(len(images), -1, self.spec.classes))
        logits = np.concatenate(found, axis=1)
        return logits[:, 0] if logits.shape[1] == 1 else _mean(logits, self.spec)

    def predict(
        self,
        images: Picture | Iterable[Picture],
        top: int | None = None,
        batch: int = 8,
        threshold: float | None = None,
    ) -> list[list[Prediction]]:
        """Prepare images, compute their logits and rank the classes, as `Model.predict` does."""
        top = top if top is None else whole_number("top", top, 1)
        size = whole_number("batch", batch, 1)
        check_head(self.spec)
        check_threshold(self.spec, threshold)
        self.check_pictures()
        remaining, found = each_image(images), list[list[Prediction]]()
        while group := list(islice(remaining, size)):
            found += self.rank(self([self.prepare(one) for one in group]), top, threshold)
        return found

    def rank(
        self, logits: np.ndarray, top: int | None = None, threshold: float | None = None
    ) -> list[list[Prediction]]:
        """Return the most probable labels of each row, as `Model.rank` does."""
        return self.models[0].rank(logits, top, threshold)


def _mean(logits: np.ndarray, spec: Spec) -> np.ndarray:
    """Return the logits of the mean of the probabilities over axis 1 of [n, views, classes]."""
    check_finite(logits)
    wide = logits.astype(np.float64)
    if spec.head == "softmax":
        return _log_mean(wide - np.logaddexp.reduce(wide, axis=2, keepdims=True))
    yes, no = -np.logaddexp(0, -wide), -np.logaddexp(0, wide)
    return _log_mean(yes) - _log_mean(no)


def _log_mean(logs: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean over axis 1, from logarithms: nothing underflows."""
    found: np.ndarray = np.logaddexp.reduce(logs, axis=1) - np.log(logs.shape[1])
    return found
