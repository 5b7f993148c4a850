"""What a finished model's file says beside its weights, and whether that can be saved."""

from __future__ import annotations

import json
from dataclasses import replace

from ...errors import UsageError, WeightsError
from ...inference.model import Model
from ...store.contents import Stored, documents_of, shapes_of
from ...store.weights import Weights
from ...system.version import __version__
from ..setting import Setting
from ..weights import views
from .state import State


def contents(state: State, setting: Setting) -> Stored:
    """Return what a model file will hold, without the weights."""
    recipe = state.recipe
    provenance = {
        "source": f"trained by tinyresnext {__version__}",
        "recipe": json.dumps(recipe.to_json()),
        "seed": str(recipe.seed),
        "pictures": state.run["images"],
        "licence": "",
    }
    if "teacher" in state.run:
        provenance["teacher"] = state.run["teacher"]
    if state.top1 is not None:
        what = "mean average precision" if state.spec.several else "top-1"
        provenance["accuracy"] = f"{state.top1:.2%} {what} of {state.tried:,} images"
    provenance |= setting.provenance
    labels = tuple(setting.dataset.classes)
    return Stored(state.spec, {}, setting.preprocess, labels, provenance)


def origin_of(model: Model) -> dict[str, str]:
    """Return what a model that is trained further keeps: the origin and the licence."""
    known = model.provenance
    origin = ", ".join(known[name] for name in ("model", "source", "sha256") if known.get(name))
    return {"initial weights": origin, "licence": known.get("licence", "")}


def model_of(state: State, setting: Setting) -> Model:
    """Return the network of a state: with the averaged weights if there are any.

    It has a copy of them, so later steps do not change it.
    """
    params = Weights(views(state.result.copy(), state.spec))
    stored = contents(state, setting)._replace(params=params)
    return Model(*stored, setting.ops, setting.threads)


def check_savable(state: State, setting: Setting) -> None:
    """Refuse before the first step what could not be saved after the last.

    The texts of the model file are made and read, with the longest that the accuracy may become.

    Raises
    ------
    UsageError
    """
    tried = len(setting.validation or ())
    try:
        documents_of(contents(replace(state, top1=1.0, tried=tried), setting))
        shapes_of(state.spec)
    except WeightsError as error:
        raise UsageError(
            f"the model could not be saved in the end: {error}; rename that class, or give a "
            "shorter --licence in one line"
        ) from error
