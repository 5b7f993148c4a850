"""What is refused of the data sets and the recipe that a run is given, whatever its network is."""

from __future__ import annotations

from ...data.dataset import Dataset
from ...data.pixels.checks import no_dataset
from ...errors import UsageError
from ..recipes import Recipe

__all__ = ["check_kinds", "check_labels", "check_validation"]


def check_kinds(dataset: Dataset, recipe: Recipe, validation: Dataset | None) -> None:
    """Refuse names and arrays in place of data sets and recipes.

    Raises
    ------
    UsageError
    """
    for what, images in (("data set", dataset), ("validation set", validation)):
        if not isinstance(images, Dataset) and (images is not None or what == "data set"):
            raise no_dataset(what, images)
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"a Recipe was expected, found {type(recipe).__name__}; tinyresnext.recipe returns one "
            "for a name"
        )


def check_validation(images: Dataset, resume: bool) -> None:
    """Refuse validation images of which no measure says anything.

    What began a run is not judged by labels again (``resume``).

    Raises
    ------
    UsageError
    """
    if len(images) == 0:
        raise UsageError("the validation set has no images; leave it out")
    if images.labels.ndim == 2 and not images.labels.any() and not resume:
        raise UsageError(
            "no validation image has a label, so there is no average precision that could say "
            "which model is the best; add images with labels, or leave the validation set out"
        )


def check_labels(what: str, images: Dataset) -> None:
    """Refuse labels that name no class, or are neither there nor not there: -1 is the last one."""
    labels, most = images.labels, len(images.classes) - 1 if images.labels.ndim == 1 else 1
    if len(labels) and not (labels.min() >= 0 and labels.max() <= most):
        raise UsageError(
            f"labels of the {what} reach from {labels.min()} to {labels.max()}, expected 0 to "
            f"{most}; leave out images without a label"
        )
