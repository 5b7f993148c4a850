"""ResNeXt in NumPy and Numba, written to be read.

Names are loaded when they are first used, so that ``import tinyresnext`` costs nothing and brings no Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert import load_checkpoint
    from .evaluation import Evaluation, evaluate
    from .image import Preprocess, prepare
    from .model import Model, Prediction, list_models, load, save
    from .resnext import forward, parameters
    from .spec import VARIANTS, Spec, cifar, variant

__version__ = "0.1.0"

_HOMES = {
    "VARIANTS": "spec",
    "Evaluation": "evaluation",
    "Model": "model",
    "Prediction": "model",
    "Preprocess": "image",
    "Spec": "spec",
    "cifar": "spec",
    "evaluate": "evaluation",
    "forward": "resnext",
    "list_models": "model",
    "load": "model",
    "load_checkpoint": "convert",
    "parameters": "resnext",
    "prepare": "image",
    "save": "model",
    "variant": "spec",
}
__all__ = [
    "VARIANTS",
    "Evaluation",
    "Model",
    "Prediction",
    "Preprocess",
    "Spec",
    "cifar",
    "evaluate",
    "forward",
    "list_models",
    "load",
    "load_checkpoint",
    "parameters",
    "prepare",
    "save",
    "variant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
