"""What PyTorch and timm compute with given gradients, for the tests of training.

``python tests/optimiser_cases.py > tests/data/optimisers.json`` computes it with their own code, in
float64 (timm 1.0.31 and PyTorch 2.13.0 wrote the file that is there).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

STEPS = 20
SHAPES = {"vector": (7,), "matrix": (3, 4), "kernel": (4, 2, 3, 3)}
# Of our recipes' settings, with a name for each.
CASES: dict[str, dict[str, Any]] = {
    "adamw": {"optimiser": "adamw", "weight_decay": 0.02},
    "adamw of other constants": {
        "optimiser": "adamw",
        "weight_decay": 0.1,
        "momentum": 0.8,
        "beta2": 0.95,
        "eps": 1e-3,
        "decay_all": False,
    },
    "lamb": {"optimiser": "lamb", "weight_decay": 0.02, "decay_all": False},
    "lamb for all": {"optimiser": "lamb", "weight_decay": 0.3, "eps": 1e-3, "beta2": 0.98},
    "lamb without decay": {"optimiser": "lamb", "weight_decay": 0.0},
    "rmsprop": {"optimiser": "rmsprop", "weight_decay": 1e-2, "eps": 1e-3},
    "rmsprop without momentum": {
        "optimiser": "rmsprop",
        "weight_decay": 0.0,
        "momentum": 0.0,
        "beta2": 0.8,
    },
}


def rate(step: int) -> float:
    """Return the learning rate of a step."""
    return 0.02 * (1 + step % 3)


def values(seed: int) -> dict[str, np.ndarray]:
    """Return weights, or the gradients of a step: numbers that float32 holds."""
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = {name: rng.random(shape) * 4 - 2 for name, shape in SHAPES.items()}
    return {name: one.astype(np.float32).astype(np.float64) for name, one in drawn.items()}


def _optimiser(weights: dict, how: dict[str, Any]) -> Any:
    """Return their optimiser of these weights."""
    import timm.optim
    import torch

    spared = [w for w in weights.values() if w.ndim == 1 and not how.get("decay_all", True)]
    decayed = [w for w in weights.values() if not any(w is one for one in spared)]
    groups = [
        {"params": decayed, "weight_decay": how["weight_decay"]},
        {"params": spared, "weight_decay": 0.0},
    ]
    momentum, eps = how.get("momentum", 0.9), {"eps": how["eps"]} if "eps" in how else {}
    betas = {"betas": (momentum, how.get("beta2", 0.999))}
    if how["optimiser"] == "adamw":
        return torch.optim.AdamW(groups, **betas, **eps)
    if how["optimiser"] == "lamb":
        return timm.optim.Lamb(groups, **betas, **eps, max_grad_norm=None)
    alpha = {"alpha": how["beta2"]} if "beta2" in how else {}
    return timm.optim.RMSpropTF(groups, momentum=momentum, **alpha, **eps)


def _optimised(how: dict[str, Any]) -> dict[str, list[float]]:
    """Return the weights after `STEPS` steps."""
    import torch

    weights = {name: torch.tensor(w, requires_grad=True) for name, w in values(0).items()}
    optimiser = _optimiser(weights, how)
    for step in range(STEPS):
        for name, gradient in values(step + 1).items():
            weights[name].grad = torch.tensor(gradient)
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        optimiser.step()
    return {name: w.detach().numpy().ravel().tolist() for name, w in weights.items()}


def main() -> None:
    """Print all of it."""
    found = {"optimisers": {name: _optimised(how) for name, how in CASES.items()}}
    json.dump(found, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
