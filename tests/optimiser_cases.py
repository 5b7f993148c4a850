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
    "sgd": {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0},
    "sgd with momentum": {"optimiser": "sgd", "weight_decay": 1e-2},
    "sgd with nesterov": {
        "optimiser": "sgd",
        "nesterov": True,
        "momentum": 0.8,
        "weight_decay": 1e-2,
        "decay_all": False,
    },
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
    if how["optimiser"] == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=how.get("nesterov", False))
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


# Networks whose layers have rates of their own, as theirs and as ours are called.
BLOCKS = [2, 1, 3, 1]
LAYER_DECAY = 0.75
# Schedules of 12 epochs of 4 steps, with what theirs is made from.
EPOCHS, UPDATES, LR = 12, 4, 0.5
SCHEDULES: dict[str, dict[str, Any]] = {
    "timm by epoch": {"warmup_epochs": 3, "warmup_lr": 1e-3, "min_lr": 1e-2, "cooldown_epochs": 2},
    "timm by step": {
        "warmup_epochs": 3,
        "warmup_lr": 1e-3,
        "min_lr": 1e-2,
        "cooldown_epochs": 2,
        "step_on_epochs": False,
        "updates_per_epoch": UPDATES,
    },
    "timm with a prefix": {"warmup_epochs": 3, "warmup_lr": 1e-3, "warmup_prefix": True},
}


def _clipped() -> dict[str, Any]:
    """Return the gradients of the first step, clipped in each way."""
    import torch
    from timm.utils.agc import adaptive_clip_grad

    ways = {
        "norm": lambda weights: torch.nn.utils.clip_grad_norm_(weights, 2.0),
        "norm that is large": lambda weights: torch.nn.utils.clip_grad_norm_(weights, 1e3),
        "value": lambda weights: torch.nn.utils.clip_grad_value_(weights, 0.5),
        "adaptive": lambda weights: adaptive_clip_grad(weights, 0.9),
    }
    found = {}
    for way, clip in ways.items():
        weights = {name: torch.tensor(w, requires_grad=True) for name, w in values(0).items()}
        for name, gradient in values(1).items():
            weights[name].grad = torch.tensor(gradient)
        clip(list(weights.values()))
        found[way] = {name: w.grad.numpy().ravel().tolist() for name, w in weights.items()}
    return found


def _rates() -> dict[str, list[float]]:
    """Return the learning rate of each step."""
    import torch
    from timm.scheduler import create_scheduler_v2

    found: dict[str, list[float]] = {}
    for name, how in SCHEDULES.items():
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR)
        falling = EPOCHS - how.get("cooldown_epochs", 0) - how.get("warmup_prefix", False) * 3
        schedule, _ = create_scheduler_v2(optimiser, "cosine", falling, **how)
        found[name] = []
        for epoch in range(EPOCHS):
            for step in range(UPDATES):
                found[name].append(optimiser.param_groups[0]["lr"])
                schedule.step_update(epoch * UPDATES + step + 1)
            schedule.step(epoch + 1)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR)
    linear = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.01, total_iters=3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS - 3, 0.02 * LR)
    both = torch.optim.lr_scheduler.SequentialLR(optimiser, [linear, cosine], [3])
    steps = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR)
    straight = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR)
    plain = {
        "torchvision": (optimiser, both),
        "milestones": (steps, torch.optim.lr_scheduler.MultiStepLR(steps, [3, 6, 9], 0.1)),
        "line": (straight, torch.optim.lr_scheduler.LinearLR(straight, 1.0, 0.0, EPOCHS)),
    }
    for name, (moved, schedule) in plain.items():
        found[name] = []
        for _ in range(EPOCHS):
            found[name] += [moved.param_groups[0]["lr"]] * UPDATES
            moved.step()
            schedule.step()
    return found


def _layers() -> dict[str, Any]:
    """Return the scale of each weight's rate, and the rate of stochastic depth of each block."""
    from timm.models.resnet import Bottleneck, ResNet
    from timm.optim._param_groups import param_groups_layer_decay

    network = ResNet(Bottleneck, BLOCKS, 5, cardinality=2, base_width=4, drop_path_rate=0.2)
    names = {id(weight): name for name, weight in network.named_parameters()}
    groups = param_groups_layer_decay(network, layer_decay=LAYER_DECAY)
    scales = {names[id(w)]: group["lr_scale"] for group in groups for w in group["params"]}
    dropped = {}
    for name, module in network.named_modules():
        if name.endswith("drop_path"):
            dropped[name.removesuffix(".drop_path")] = module.drop_prob
    return {"scales": scales, "dropped": dropped}


def _averages() -> dict[str, list[float]]:
    """Return what remains of timm's average in each step."""
    import torch
    from timm.utils import ModelEmaV3

    plain = torch.nn.Linear(1, 1)
    return {
        "none": [ModelEmaV3(plain, 0.9).get_decay(n + 1) for n in range(40)],
        "power": [ModelEmaV3(plain, 0.9, use_warmup=True).get_decay(n + 1) for n in range(40)],
    }


def main() -> None:
    """Print all of it."""
    found: dict[str, Any] = {name: _optimised(how) for name, how in CASES.items()}
    found = {"optimisers": found, "clipped": _clipped(), "rates": _rates()}
    found |= {"layers": _layers(), "averages": _averages()}
    json.dump(found, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
