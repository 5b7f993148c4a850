"""Networks and the results that other projects' own code computed for them (see `recipe`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recipe
import torch_files

from tinyresnext import Spec, parameters
from tinyresnext.checkpoints.convert import Conversion, opened_checkpoint

DATA = Path(__file__).parent / "data"


class Case(NamedTuple):
    """Weights under their system's names, an input, float64 logits, and PyTorch's float32 error."""

    name: str
    tensors: dict[str, np.ndarray]
    x: np.ndarray
    logits: np.ndarray
    stages: dict[str, np.ndarray]
    torch_float32_error: float


def understood(folder, top, **options):
    """Write a checkpoint of PyTorch, and return what is understood: the model, and all notes."""
    (folder / "in.pth").write_bytes(torch_files.zip_file(top))
    stored, notes = read_checkpoint(folder / "in.pth", **options)
    return stored, "\n".join(notes)


def read_checkpoint(path, **options) -> Conversion:
    """A checkpoint with all its weights in memory."""
    with opened_checkpoint(path, **options) as (stored, notes):
        return Conversion(stored._replace(params=dict(stored.params)), notes)


def load(name: str, folder: Path = DATA) -> Case:
    """Return one case: SYSTEM.MODEL."""
    meta = json.loads((folder / f"{name}.json").read_text("utf-8"))
    tensors = {key: recipe.tensor(key, tuple(shape)) for key, shape, _ in meta["keys"]}
    x = recipe.pictures(meta["input_name"], tuple(meta["input_shape"]))
    with np.load(folder / f"{name}.npz") as found:
        stages = {
            key.removeprefix("stage_"): found[key]
            for key in found.files
            if key.startswith("stage_")
        }
        return Case(name, tensors, x, found["logits"], stages, meta["torch_float32_error"])


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value, as for ``torch_float32_error``."""
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())


def checkpoint(tensors: dict[str, np.ndarray], *, legacy: bool) -> bytes:
    """Return the bytes of a .pth file with these tensors, written without PyTorch."""
    state = torch_files.StateDict(
        (key, torch_files.tensor(value)) for key, value in tensors.items()
    )
    return torch_files.legacy_file(state) if legacy else torch_files.zip_file(state)


def wrapped(case: Case, *, legacy: bool) -> bytes:
    """Return the bytes of a .pth file as the case's system writes it, with its own wrapping."""
    system = case.name.partition(".")[0]
    if system == "prlz77":  # trained on several GPUs, whose numbers it then names
        tensors = {
            key: torch_files.tensor(value, module="torch.cuda", location="cuda:0")
            for key, value in case.tensors.items()
        }
        top: object = torch_files.StateDict(
            (f"module.{key}", value) for key, value in tensors.items()
        )
    else:
        top = torch_files.StateDict(
            (key, torch_files.tensor(value)) for key, value in case.tensors.items()
        )
    if system == "mmpretrain":
        top = {
            "meta": {
                "mmcls_version": "0.12.0",
                "epoch": 100,
                "CLASSES": ["tench", "goldfish"],
                "env": None,
            },
            "state_dict": top,
        }
    return torch_files.legacy_file(top) if legacy else torch_files.zip_file(top)


def weights(spec: Spec, *, counters: bool = True) -> dict[str, np.ndarray]:
    """Return a state dict for any architecture, with values made from the names.

    It can include the counters of batch norms that PyTorch stores.
    """
    made = {}
    for name, shape in parameters(spec).items():
        made[name] = recipe.tensor(name, shape)
        if counters and name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            made[counter] = recipe.tensor(counter, ())
    return made


if (
    __name__ == "__main__"
):  # python cases.py FILE.pth: a legacy checkpoint of a ResNeXt-14 with 1,000 classes
    Path(sys.argv[1]).write_bytes(checkpoint(weights(Spec((1, 1, 1, 1))), legacy=True))
