"""A teacher: models whose probabilities a network learns beside the labels (distillation).

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network". A model sees what the
network sees, after augmentation and mixing: what it says then fits the image that is learnt from
(Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent"). Stored
logits are of whole images, as a label is, and are mixed as labels are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...data.dataset import Dataset
from ...errors import UsageError
from ...images.preprocess import Preprocess
from ...inference.files import digest_of
from ...inference.heads import check_finite
from ...inference.inputs import shapes_that_fit
from ...inference.many.logits import Logits, of_images
from ...inference.model import Model
from ...inference.scores.classes import same_classes
from ...network.count import norm_values
from ...network.spec import Spec
from ...ops.distillation import Distillation
from ..recipes import Recipe

__all__ = ["USUAL", "Teacher", "Teaches", "distillation", "softened", "taught"]

Teaches = Model | Logits
# Where a recipe has 0: the weight and the temperature of Tian et al. 2020 ("Contrastive
# Representation Distillation", section 4.1) for CIFAR.
USUAL = Distillation(weight=0.9, temperature=4.0)


@dataclass(frozen=True, eq=False)
class Teacher:
    """Models that teach together, or what they have said: the mean of their probabilities counts.

    Parameters
    ----------
    models : tuple of Model
    stored : tuple of Logits
        In place of models.
    """

    models: tuple[Model, ...] = ()
    stored: tuple[Logits, ...] = ()

    @classmethod
    def of(cls, given: Teaches | Sequence[Teaches] | None) -> Teacher | None:
        """Return the teacher that a model or logits are, or several are; None for none.

        Raises
        ------
        UsageError
            Nothing is given, both kinds are, or something else.
        """
        if given is None:
            return None
        if isinstance(given, Model | Logits | str) or not isinstance(given, Iterable):
            every = [given]
        else:
            every = list(given)
        models = tuple(one for one in every if isinstance(one, Model))
        stored = tuple(one for one in every if isinstance(one, Logits))
        if not every or len(every) not in (len(models), len(stored)):
            raise UsageError(
                f"the teachers are {', '.join(type(one).__name__ for one in every) or 'none'}: "
                "give models, as tinyresnext.load reads them, or logits that were stored, but not "
                "both"
            )
        return cls(models, stored)

    def identity(self) -> str:
        """Return the digests of the models, as they are those of their files, or of the logits."""
        if self.models:
            return ", ".join(f"model sha256 {digest_of(model)}" for model in self.models)
        return ", ".join(
            f"logits sha256 {one.sha256} of model sha256 {one.about['model']}"
            for one in self.stored
        )

    def check(self, spec: Spec, dataset: Dataset, recipe: Recipe, preprocess: Preprocess) -> None:
        """Refuse what cannot be right, before anything is written.

        Raises
        ------
        UsageError
            A loss or a model is not that of a softmax; or a model has other classes, or takes other
            images than the network that is trained; or logits are not of the data set's images.
        """
        if spec.head != "softmax" or recipe.loss.entropy != "softmax":
            what = f"head {spec.head}" if spec.head != "softmax" else "entropy binary"
            raise UsageError(
                f"the run has {what}, and a teacher is compared by the softmax cross entropy; "
                "leave out the teacher, or give --head softmax and --entropy softmax"
            )
        for model in self.models:
            if model.spec.head != "softmax":
                raise UsageError(
                    f"the teacher {model!r} has a {model.spec.head}, expected a softmax over the "
                    "classes of the data set; give another teacher"
                )
            same_classes(model.labels, dataset.classes, f"the teacher {model!r}")
            _check_images(model, preprocess, recipe.augmentation.sides)
        for one in self.stored:
            of_images(one, dataset)

    def said(self, recipe: Recipe, preprocess: Preprocess) -> str:
        """Say in one line how the teacher teaches, and what is assumed."""
        how, several = distillation(recipe), len(self.models) + len(self.stored) > 1
        names = [model.provenance.get("model") or model.spec.name for model in self.models]
        names += [f"{one.about['architecture']} (stored logits)" for one in self.stored]
        return (
            f"teacher {', '.join(names)}: the loss is {1 - how.weight:g} of the cross entropy with "
            f"the labels and {how.weight:g} x {how.temperature:g}^2 of the divergence from "
            f"{'the mean of their' if several else 'its'} probabilities at temperature "
            f"{how.temperature:g}; {self._sees(recipe, preprocess)}"
        )

    def _sees(self, recipe: Recipe, preprocess: Preprocess) -> str:
        """Say which images the teacher sees."""
        if self.stored:
            return (
                "a teacher saw whole images, and not what is drawn of them here; what it said of "
                "an image counts for all that is drawn of it, as a label does"
            )
        text = "a teacher sees each image as it is augmented and mixed here"
        if any(_colours(one.preprocess) != _colours(preprocess) for one in self.models):
            text += ", converted to the mean and standard deviation that it was trained with"
        if smaller := [side for side in recipe.augmentation.sides if side != preprocess.crop]:
            text += f"; also of other sides than its {preprocess.crop} pixels: "
            text += ", ".join(map(str, smaller))
        return text

    def remembered(self, dataset: Dataset, temperature: float) -> np.ndarray | None:
        """Return the mean of the stored probabilities of all images, [n, classes] float32.

        Those of a broken image without logits are not-a-number. Of models, return None.
        """
        if not self.stored:
            return None
        each = [softened(of_images(one, dataset), temperature) for one in self.stored]
        return np.asarray(sum(each[1:], start=each[0]) / len(each), np.float32)

    def probabilities(
        self, x: np.ndarray, preprocess: Preprocess, temperature: float, at_once: int
    ) -> np.ndarray:
        """Return the models' mean probabilities of augmented images at a temperature.

        Parameters
        ----------
        x : [n, h, w, channels] float32
            As the network sees them.
        preprocess : Preprocess
            That of the network.
        temperature : float
        at_once : int
            How many images go through a model together.

        Returns
        -------
        [n, classes] float32

        Raises
        ------
        IntegrityError
            Logits are not finite.
        """
        total = np.zeros((len(x), self.models[0].spec.classes))
        for model in self.models:
            seen = _recoloured(x, preprocess, model.preprocess)
            parts = [seen[first : first + at_once] for first in range(0, len(x), at_once)]
            logits = np.concatenate(list(map(model, parts)))
            check_finite(logits)
            total += softened(logits, temperature)
        return (total / len(self.models)).astype(np.float32)


def taught(recipe: Recipe, teacher: Teacher | None) -> Recipe:
    """Return the recipe with the usual weight and temperature where it has none for its teacher."""
    if teacher is None:
        return recipe
    how = distillation(recipe)
    return recipe.changed({"teacher_weight": how.weight, "temperature": how.temperature})


def distillation(recipe: Recipe) -> Distillation:
    """Return what a recipe says about a teacher: the usual values in place of 0."""
    loss = recipe.loss
    return replace(
        USUAL,
        weight=loss.teacher_weight or USUAL.weight,
        temperature=loss.temperature or USUAL.temperature,
    )


def softened(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``softmax(logits / temperature)`` in float64; a row that is not finite is all NaN."""
    colder = logits.astype(np.float64) / temperature
    exponentials = np.exp(colder - colder.max(1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


def _check_images(model: Model, preprocess: Preprocess, sides: Sequence[int]) -> None:
    """Refuse a teacher that takes images of another size or with other channels."""
    own = model.preprocess
    if own.channels != preprocess.channels or model.spec.channels != preprocess.channels:
        raise UsageError(
            f"the teacher {model!r} takes {model.spec.channels} channels and the network "
            f"{preprocess.channels}; give a teacher for the same images"
        )
    if own.crop != preprocess.crop:
        raise UsageError(
            f"the teacher {model!r} takes images of {own.crop} x {own.crop} and the network "
            f"{preprocess.crop} x {preprocess.crop}: it would see sizes that it was not made for; "
            f"give a teacher for the same size, or train with --size {own.crop}"
        )
    for side in sides:
        with shapes_that_fit(model.spec):
            norm_values(model.spec, (1, side, side, own.channels), ())


def _colours(preprocess: Preprocess) -> tuple[tuple[float, ...], ...]:
    """Return how values are normalised."""
    return preprocess.mean, preprocess.std


def _recoloured(x: np.ndarray, now: Preprocess, wanted: Preprocess) -> np.ndarray:
    """Return normalised images as another mean and standard deviation normalise them."""
    if _colours(now) == _colours(wanted):
        return x
    mean, std, other, wide = (np.array(v) for v in (*_colours(now), *_colours(wanted)))
    scale, shift = (std / wide).astype(np.float32), ((mean - other) / wide).astype(np.float32)
    seen: np.ndarray = x * scale + shift
    return seen
