"""Accuracies as timm's files of results have them, and beside what was published for the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...errors import FormatError, UsageError

if TYPE_CHECKING:
    from ...data.dataset import Dataset, LabelledImages
    from ...inference.ensemble import Ensemble
    from ...inference.model import Model
    from ...inference.scores.answers import AnswerEvaluation
    from ...inference.scores.evaluation import Evaluation
    from ...inference.scores.labels import LabelEvaluation

FAR = 20  # standard errors beyond which images are hardly those that their names say


def beside_others(
    asked: dict[str, Any],
    model: Ensemble,
    data: Dataset | LabelledImages,
    found: Evaluation | LabelEvaluation | AnswerEvaluation,
    fast: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``results`` and ``published`` for a JSON object, as far as there are such numbers.

    They are those of one model that sees one view of each image and names one class for it.
    ``fast`` is that of `evaluate`.
    """
    from ...inference.scores.evaluation import Evaluation
    from ...inference.scores.labels import LabelEvaluation

    if isinstance(found, LabelEvaluation) or not is_plain(asked, model):
        return {}, {}
    name = asked["models"][0]
    row = {"results": results(name, model.models[0], found)}
    says = None
    if isinstance(found, Evaluation):
        says = published(name, data, found, fast, model.models[0].precision)
    return row, {} if says is None else {"published": says}


def is_plain(asked: dict[str, Any], model: Ensemble) -> bool:
    """Return whether one model sees one view of each image and names one class for it."""
    alone = len(model.models) == 1 and asked["crops"] == 1 and not asked["mirror"]
    return alone and not model.spec.several


def check_plain(asked: dict[str, Any], model: Ensemble) -> None:
    """Raise `UsageError` unless ``--results`` has numbers to write, before they are computed."""
    if not is_plain(asked, model):
        raise UsageError(
            "--results has the columns of one model that sees one view of each image and names one "
            "class for it; leave out --results, or the other models, --crops and --mirror"
        )


def results(name: str, model: Model, found: Evaluation | AnswerEvaluation) -> dict[str, Any]:
    """Return the columns of timm's files, such as ``results-imagenet.csv``, in their order.

    Accuracies are in percent, and parameters in millions: those that are trained, without the
    running statistics of batch norms, as timm counts. For a data set of fewer classes than the
    model, such as ImageNet-A, timm's files have the accuracies among these classes.
    """
    from ...inference.scores.answers import AnswerEvaluation
    from ...network.count import layers, totals

    among = None if isinstance(found, AnswerEvaluation) else found.within
    parts = (found.top1, found.top5) if among is None else (among.top1, among.top5)
    top1, top5 = (round(100 * part, 3) for part in parts)
    p = model.preprocess
    return {
        "model": name,
        "top1": top1,
        "top1_err": round(100 - top1, 3),
        "top5": top5,
        "top5_err": round(100 - top5, 3),
        "param_count": round(totals(layers(model.spec, p.crop, p.crop))["params"] / 1e6, 2),
        "img_size": p.crop,
        "crop_pct": round(p.crop / p.resize, 3),
        "interpolation": p.interpolation,
    }


def published(
    name: str,
    data: Dataset | LabelledImages,
    found: Evaluation,
    fast: bool = False,
    precision: str = "float32",
) -> dict[str, Any] | None:
    """Return the published accuracy of a model and how far this one is from it, in percent.

    None for a model that is not in the catalogue, and for images with other names than those of
    ImageNet's validation set, for which these accuracies are published. A standard error is that of
    the published accuracy for as many images as were seen. If these are of some classes only, as in
    Imagenette, ``classes`` says of how many, since the published accuracy is that of all.
    ``measured`` says how images were prepared for the published accuracy, where that is not how the
    model prepares them, ``fast_decode`` that JPEGs were decoded at a reduced size, and
    ``precision`` what the model computed in, where that is not float32.
    """
    from ...hub.catalogue import entries, find

    if not data.validation:
        return None
    try:
        known = {one.name for one in entries()} | {one.architecture for one in entries()}
    except FormatError:  # an installation without the list; what was measured is not lost for it
        return None
    if name not in known:
        return None
    entry = find(name)
    score = entry.score
    if score is None or not 0 < score.top1 < 100:
        return None
    error = math.sqrt(score.top1 * (100 - score.top1) / found.pictures)
    away = 100 * found.top1 - score.top1
    says: dict[str, Any] = {
        "model": entry.name,
        "top1": score.top1,
        "by": score.by,
        "difference": round(away, 3),
        "standard_errors": round(away / error, 2),
    }
    says |= {} if found.within is None else {"classes": found.within.classes}
    says |= {"measured": score.measured} if score.measured else {}
    says |= {"fast_decode": True} if fast else {}
    return says | ({} if precision == "float32" else {"precision": precision})


def sentence(says: dict[str, Any]) -> str:
    """Return what `published` found as a line of text, with all that forbids to compare.

    Only names say which images these are, and copies that were changed, such as those of
    ImageNet-C, have the same.
    """
    parts = [
        f"published: top-1 {says['top1']:.2f}% for {says['model']}, by {says['by']}, for images of "
        f"these names; here {says['difference']:+.2f} points, {says['standard_errors']:+.1f} "
        "standard errors"
    ]
    if "classes" in says:
        parts.append(f"here are {says['classes']} of its classes only")
    elif abs(says["standard_errors"]) > FAR:
        parts.append("so these may be other images of the same names, such as those of ImageNet-C")
    if "measured" in says:
        parts.append(
            f"published for images after {says['measured']}, and here they are prepared as "
            f"`tinyresnext info {says['model']}` says"
        )
    if "fast_decode" in says:
        parts.append("JPEGs were decoded at a reduced size here")
    if "precision" in says:
        parts.append(f"the model computed in {says['precision']} here")
    return "; ".join(parts)
