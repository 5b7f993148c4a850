"""What a run needs beside its state, and what is refused before it begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..data.dataset import Dataset
from ..data.loader import Loader
from ..errors import DeviceError, ImageError, UsageError
from ..images.augmentation.augment import Augment
from ..images.checks import whole_number
from ..images.preprocess import Preprocess
from ..inference.inputs import shapes_that_fit
from ..network.count import norm_values
from ..network.spec import Spec, check_spec
from ..ops import Backend, backend
from ..system.ranks import ALONE, Ranks, part_of
from .recipes import Recipe
from .samples.augmentation import augmented, check_padding
from .samples.classes import other_than_one
from .samples.given import check_labels, check_validation
from .samples.targets import check_balance
from .samples.teacher import Teacher

__all__ = ["Setting", "check", "frozen_parts", "headed"]


@dataclass(frozen=True)
class Setting:
    """What a run needs beside its state: images, a device, and what log and model say."""

    dataset: Dataset
    validation: Dataset | None
    preprocess: Preprocess
    frozen: tuple[str, ...]
    ops: Backend
    threads: int
    log_every: int
    half: bool
    provenance: Mapping[str, str]
    origin: Mapping[str, str] = field(default_factory=dict)
    # The broken images that have been reported, so that no epoch reports them again.
    broken: dict[int, ImageError] = field(default_factory=dict)
    broken_in_validation: dict[int, ImageError] = field(default_factory=dict)
    # The processes that share each mini-batch, and whether they share statistics of batch norms.
    ranks: Ranks = ALONE
    sync_norm: bool = False
    teacher: Teacher | None = None
    initial: str = ""  # the digest of the model that is trained further

    def step_ops(self, recipe: Recipe) -> Backend:
        """Return what computes a step: the backend, or the one of the same device in bfloat16."""
        if recipe.precision == self.ops.precision:
            return self.ops
        return backend(self.ops.__name__.rpartition(".")[2], recipe.precision)

    def described(self, recipe: Recipe) -> str:
        """Return what computes, in a few words for people."""
        device, count = self.step_ops(recipe).described(), self.ranks.count
        if count == 1:
            return device
        norms = "shared" if self.sync_norm else "separate"
        return f"{device} in {count} ranks with {norms} batch norms"

    def loader(
        self,
        recipe: Recipe,
        side: int,
        threads: int = 1,
        places: Sequence[int] | None = None,
        images: Augment | None = None,
    ) -> Loader:
        """Return what makes the mini-batches of an epoch whose images have this side.

        They have the numbers of their images in place of labels. ``places`` are the images of each
        that are made, by default those of this rank; ``images`` is how each is prepared, by
        default as the recipe says.
        """
        return Loader(
            self.dataset,
            images or augmented(recipe.augmentation, self.preprocess, self.dataset, side),
            batch=recipe.batch,
            seed=recipe.seed,
            threads=threads,
            broken=self.broken,
            balanced=recipe.loss.balance == "sampling",
            repeats=recipe.augmentation.repeats,
            places=self.places(recipe) if places is None else places,
            numbers=True,
        )

    def normed(self, recipe: Recipe) -> int:
        """Return how many images a batch norm sees at a time."""
        return (
            recipe.batch if self.sync_norm else recipe.batch // self.ranks.count
        ) // recipe.parts

    def before(self, recipe: Recipe) -> int:
        """Return how many images a rank makes beside its own: one, if a recipe mixes neighbours."""
        return int(self.ranks.count > 1 and bool(recipe.loss.mixup or recipe.loss.cutmix))

    def places(self, recipe: Recipe) -> list[int] | None:
        """Return which images of a mini-batch this rank makes, by their places; None for all.

        Where images are mixed, the neighbour before its own comes first.
        """
        if self.ranks.count == 1:
            return None
        first, last = part_of(self.ranks, recipe.batch)
        return [place % recipe.batch for place in range(first - self.before(recipe), last)]

    def decides(self) -> dict[str, str]:
        """Return what must be the same when a run goes on, beside network and recipe."""
        teacher = {} if self.teacher is None else {"teacher": self.teacher.identity()}
        initial = {"initial model": self.initial} if self.initial else {}
        return (
            teacher
            | initial
            | {
                "images": _described(self.dataset),
                "validation": "none" if self.validation is None else _described(self.validation),
                "frozen": " ".join(self.frozen),
                "preprocess": json.dumps(self.preprocess.to_json()),
            }
        )


def check(spec: Spec, recipe: Recipe, setting: Setting, resume: bool = False) -> None:
    """Refuse what does not fit together, before anything is written."""
    check_spec(spec)
    whole_number("log_every", setting.log_every, 0)
    count, names = len(setting.dataset), ", ".join(setting.dataset.classes)[:80]
    if spec.labels < 2:
        raise UsageError(
            f"there is {spec.labels or 'no'} class to train for ({names!r}), and a softmax needs "
            "two: give a folder for each class, or a table (.csv) with the columns image,label"
        )
    if not isinstance(setting.preprocess, Preprocess):
        raise UsageError(
            f"preprocess is of type {type(setting.preprocess).__name__}, expected a Preprocess, "
            "such as model.preprocess or tinyresnext.Preprocess(resize=256, crop=224)"
        )
    if setting.preprocess.channels != spec.channels:
        raise UsageError(
            f"the preprocessing makes {setting.preprocess.channels} channels and the network takes "
            f"{spec.channels}"
        )
    if len(setting.dataset.classes) != spec.labels:
        raise UsageError(
            f"the data set has {len(setting.dataset.classes)} classes and the network "
            f"{spec.labels}; both must have the same"
        )
    for what, images in (("data set", setting.dataset), ("validation set", setting.validation)):
        if images is not None and images.labels.ndim == 2 and not spec.several:
            raise UsageError(
                f"the images of the {what} have any number of labels ({other_than_one(images)}), "
                "and the network names one class for each; give --head sigmoid (head='sigmoid' of "
                "the Spec), or each image exactly one label"
            )
        if images is not None:
            check_labels(what, images)
    check_balance(spec, setting.dataset, recipe.loss)
    if count < recipe.batch:
        raise UsageError(
            f"the data set has {count} images and a mini-batch {recipe.batch}; give --batch "
            f"{count} at most"
        )
    if setting.validation is not None:
        check_validation(setting.validation, resume)
    if recipe.patience and setting.validation is None:
        raise UsageError(
            f"patience is {recipe.patience}, and there are no validation images that could get "
            "better; give some (--val, or --val-part 0.2), or no patience"
        )
    if setting.teacher is not None:
        setting.teacher.check(spec, setting.dataset, recipe, setting.preprocess)
    elif recipe.loss.teacher_weight or recipe.loss.temperature:
        raise UsageError(
            f"teacher_weight is {recipe.loss.teacher_weight:g} and temperature "
            f"{recipe.loss.temperature:g}, and there is no teacher: give --teacher MODEL "
            "(teacher=), or neither"
        )
    if not resume:  # what began a run is not judged again: it must stay what it was
        check_padding(recipe.augmentation, setting.preprocess.crop)
    for side in {*recipe.augmentation.sides, setting.preprocess.crop}:
        # This refuses padding or a square that is larger than the image.
        augmented(recipe.augmentation, setting.preprocess, setting.dataset, side)
    _check_precision(recipe, setting)
    if setting.ranks.count > 1:
        _check_ranks(recipe, setting)
    _check_norms(spec, recipe, setting)


def _check_precision(recipe: Recipe, setting: Setting) -> None:
    """Refuse weights that are not float32, and a precision that the device does not train in."""
    if setting.ops.precision != "float32":
        raise DeviceError(
            f"the model computes in {setting.ops.precision}, and weights are trained in float32: "
            "load it without a precision, and give the recipe one (precision='bfloat16', "
            "--precision bfloat16) to store what is between layers so"
        )
    if recipe.precision != "float32" and setting.ops.__name__.rpartition(".")[2][:4] == "cuda":
        raise DeviceError(
            f"{setting.ops.described()} trains in float32 only, and {recipe.precision} is asked "
            "for: give --device cpu (device='cpu'), or leave out --precision"
        )


def _check_ranks(recipe: Recipe, setting: Setting) -> None:
    """Refuse what several processes cannot share."""
    count = setting.ranks.count
    if recipe.batch % count:
        less = recipe.batch - recipe.batch % count
        fits = f"{less} or {less + count}" if less else str(count)
        raise UsageError(
            f"a mini-batch of {recipe.batch} images cannot be shared equally by {count} ranks: "
            f"give --batch {fits}, or another number of ranks"
        )
    if recipe.parts > 1:
        raise UsageError(
            f"parts is {recipe.parts}, and {count} ranks share each mini-batch: each of them "
            "computes one part already; leave out --parts, or start more ranks"
        )
    if setting.ops.__name__.rpartition(".")[2].startswith("cuda"):
        raise UsageError(
            f"ranks share mini-batches on processors only, and this is {setting.ops.described()}: "
            "give --device cpu, or leave out --mpi"
        )


def headed(spec: Spec, dataset: Dataset, head: str | None = None) -> Spec:
    """Return the network with outputs for the classes of a data set.

    Parameters
    ----------
    spec : Spec
    dataset : Dataset
    head : {"softmax", "sigmoid"}, optional
        Under a sigmoid, two classes need a single output, and each image may have any number of
        more. By default it is a sigmoid where the images have any number of labels, else a softmax.
    """
    several = dataset.labels.ndim == 2
    chosen = head or ("sigmoid" if several else "softmax")
    one = chosen == "sigmoid" and len(dataset.classes) == 2 and not several
    return replace(spec, classes=1 if one else len(dataset.classes), head=chosen)


def frozen_parts(spec: Spec, stage: str | None) -> tuple[str, ...]:
    """Return the first parts of the names of all layers up to a stage.

    Raises
    ------
    UsageError
        The network has no such stage.
    """
    stages = ["stem", *(f"layer{number + 1}" for number in range(len(spec.blocks)))]
    if stage is None:
        return ()
    if stage not in stages:
        raise UsageError(f"frozen_to is {stage!r}: {spec.name} has the stages {', '.join(stages)}")
    return ("conv1", "bn1", *stages[1 : stages.index(stage) + 1])


def _check_norms(spec: Spec, recipe: Recipe, setting: Setting) -> None:
    """Refuse a mini-batch of which a trained batch norm gets one value for each channel.

    The mean is then the value itself: the result is the shift, whatever the image is, and no
    gradient passes.
    """
    batch = setting.normed(recipe)
    for side in recipe.augmentation.sides or (setting.preprocess.crop,):
        shape = batch, side, side, spec.channels
        with shapes_that_fit(spec):
            values = norm_values(spec, shape, setting.frozen)
        if single := [name for name, count in values.items() if count == 1]:
            raise UsageError(
                f"of a mini-batch of {batch} image of {side} x {side}, the batch norm "
                f"{single[0]} gets a single value for each channel, of which it can learn nothing; "
                "give a larger mini-batch or fewer --parts (--batch, at least 2"
                f"{' for each rank' * (setting.ranks.count > 1)}), or larger images"
            )


def _described(dataset: Dataset) -> str:
    """Say how many images of how many classes a data set has, and which.

    Images in memory count with every pixel, others by their names below the root, so that a data
    set may move.
    """
    classes, labels = list(dataset.classes), np.ascontiguousarray(dataset.labels, "<i8")
    found = hashlib.sha256(json.dumps([classes, list(dataset.names)]).encode())
    found.update(labels.data)
    for i in range(len(dataset)) if dataset.in_memory else ():
        found.update(np.ascontiguousarray(dataset.picture(i)).data)
    return f"{len(dataset)} in {len(classes)} classes, sha256 {found.hexdigest()}"
