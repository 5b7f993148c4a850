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

# What is clipped before each step, and rates of weights of their own.
CLIPPED: dict[str, dict[str, Any]] = {
    "sgd after norm": {"optimiser": "sgd", "clip": "norm", "clip_at": 2.0},
    "sgd after value": {"optimiser": "sgd", "clip": "value", "clip_at": 0.5},
    "sgd after adaptive": {"optimiser": "sgd", "clip": "adaptive", "clip_at": 0.3},
    "adamw after norm": {
        "optimiser": "adamw",
        "weight_decay": 0.02,
        "clip": "norm",
        "clip_at": 2.0,
    },
}
SCALED = {"sgd of layers": CASES["sgd with momentum"], "lamb of layers": CASES["lamb"]}
SCALES = {"vector": 0.25, "matrix": 0.5, "kernel": 1.0}
# Muon's constants in Jordan's code for CIFAR-10; and convolutions that it trains: their shapes, and
# in how many groups they are.
JORDAN = {"momentum": 0.6, "ns_coefficients": (3.4445, -4.7750, 2.0315), "ns_steps": 3}
MUON = {"wide": ((4, 2, 3, 3), 1), "groups": ((6, 2, 3, 3), 2), "tall": ((8, 2, 1, 1), 1)}
PARTS = 3  # of a mini-batch, whose gradients are accumulated


def rate(step: int) -> float:
    """Return the learning rate of a step."""
    return 0.02 * (1 + step % 3)


def values(seed: int, shapes: dict[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
    """Return weights, or the gradients of a step: numbers that float32 holds."""
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = {name: rng.random(shape) * 4 - 2 for name, shape in (shapes or SHAPES).items()}
    return {name: one.astype(np.float32).astype(np.float64) for name, one in drawn.items()}


def _optimiser(weights: dict, how: dict[str, Any], scaled: bool = False) -> Any:
    """Return their optimiser of these weights."""
    import timm.optim
    import torch

    groups = [
        {
            "params": [w],
            "weight_decay": how.get("weight_decay", 1e-4)
            if w.ndim > 1 or how.get("decay_all", True)
            else 0.0,
            "lr_scale": SCALES[name] if scaled else 1.0,
        }
        for name, w in weights.items()
    ]
    momentum, eps = how.get("momentum", 0.9), {"eps": how["eps"]} if "eps" in how else {}
    if how["optimiser"] == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=how.get("nesterov", False))
    betas = {"betas": (momentum, how.get("beta2", 0.999))}
    if how["optimiser"] == "adamw":
        return torch.optim.AdamW(groups, **betas, **eps)
    if how["optimiser"] == "lamb":
        most = how.get("own_clip")  # of its class, which is not a setting of ours
        return timm.optim.Lamb(groups, **betas, **eps, max_grad_norm=most)
    alpha = {"alpha": how["beta2"]} if "beta2" in how else {}
    return timm.optim.RMSpropTF(groups, momentum=momentum, **alpha, **eps)


def _optimised(how: dict[str, Any], scaled: bool = False, parts: int = 1) -> dict[str, list[float]]:
    """Return the weights after `STEPS` steps."""
    import torch

    weights = {name: torch.tensor(w, requires_grad=True) for name, w in values(0).items()}
    optimiser = _optimiser(weights, how, scaled)
    for step in range(STEPS):
        optimiser.zero_grad()
        for part in range(parts):  # whose gradients PyTorch adds up
            for name, gradient in values(step * parts + part + 1).items():
                ((weights[name] * torch.tensor(gradient)).sum() / parts).backward()
        if "clip" in how:
            _ways()[how["clip"]](list(weights.values()), how["clip_at"])
        for group in optimiser.param_groups:
            group["lr"] = rate(step) * group["lr_scale"]
        optimiser.step()
    return {name: w.detach().numpy().ravel().tolist() for name, w in weights.items()}


def _muon() -> dict[str, list[float]]:
    """Return the weights after `STEPS` steps of PyTorch's Muon, whose matrices are in float64 here.

    Ours keeps the norm of each matrix, and its rate is a part of that norm. Both are done here
    around PyTorch's own step.
    """
    import torch

    torch.Tensor.bfloat16 = torch.Tensor.double  # else its matrices have 8 bits
    shapes = {name: shape for name, (shape, _) in MUON.items()}
    found = {}
    for name, (shape, groups) in MUON.items():
        start = values(0, shapes)[name].reshape(groups, shape[0] // groups, -1)
        norms = [float(np.linalg.norm(one)) for one in start]
        weights = [torch.nn.Parameter(torch.tensor(one)) for one in start]
        rows, columns = start.shape[1:]
        optimisers = [torch.optim.Muon([one], weight_decay=0.0, **JORDAN) for one in weights]
        for step in range(STEPS):
            gradients = values(step + 1, shapes)[name].reshape(start.shape)
            for one, g, norm, optimiser in zip(weights, gradients, norms, optimisers, strict=True):
                one.grad = torch.tensor(g)
                size = rate(step) * norm / np.sqrt(rows) / max(1, rows / columns) ** 0.5
                optimiser.param_groups[0]["lr"] = float(size)
                optimiser.step()
                with torch.no_grad():
                    one *= norm / one.norm()
        found[name] = np.concatenate([one.detach().numpy().ravel() for one in weights]).tolist()
    return found


# Networks whose layers have rates of their own, as theirs and as ours are called.
BLOCKS = [2, 1, 3, 1]
LAYER_DECAY = 0.75
# What is left out of samples [n, h, w, c], at which rate: 1 is kept.
DROPPED, RATE, KEPT = (4, 1, 1, 128), 0.2, (1.0, 0.0, 1.0, 1.0)
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


def _ways() -> dict[str, Any]:
    """Return their functions that clip."""
    import torch
    from timm.utils.agc import adaptive_clip_grad

    return {
        "norm": torch.nn.utils.clip_grad_norm_,
        "value": torch.nn.utils.clip_grad_value_,
        "adaptive": adaptive_clip_grad,
    }


def _clipped() -> dict[str, Any]:
    """Return the gradients of the first step, clipped in each way."""
    import torch

    ways = {"norm": ("norm", 2.0), "norm that is large": ("norm", 1e3)}
    ways |= {"value": ("value", 0.5), "adaptive": ("adaptive", 0.9)}
    found = {}
    for way, (how, most) in ways.items():
        weights = {name: torch.tensor(w, requires_grad=True) for name, w in values(0).items()}
        for name, gradient in values(1).items():
            weights[name].grad = torch.tensor(gradient)
        _ways()[how](list(weights.values()), most)
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
    return {"scales": scales, "dropped": dropped, "left out": _left_out()}


def _left_out() -> list[float]:
    """Return what timm's stochastic depth makes of a value, and torchvision's: the same."""
    import torch
    from timm.layers import drop_path
    from torchvision.ops import stochastic_depth

    x = torch.tensor(values(0, {"x": DROPPED})["x"])
    torch.Tensor.bernoulli_ = lambda self, p: torch.tensor(KEPT).reshape(self.shape)
    found = drop_path(x, RATE, training=True)
    assert torch.equal(found, stochastic_depth(x, RATE, "row"))
    return found.numpy().ravel().tolist()


# Averages of weights: 6 epochs of 7 steps, of which the first two are the warm-up.
AVERAGED = {"epochs": 6, "steps": 7, "warmup": 2, "decay": 0.9, "every": 3}


def _averages() -> dict[str, Any]:
    """Return what remains of timm's average in each step; and theirs of weights that move."""
    import torch
    from timm.utils import ModelEmaV3
    from torch.optim.swa_utils import AveragedModel

    plain = torch.nn.Linear(1, 1)
    decay, every = AVERAGED["decay"], AVERAGED["every"]
    found: dict[str, Any] = {
        "none": [ModelEmaV3(plain, decay).get_decay(n + 1) for n in range(40)],
        "power": [ModelEmaV3(plain, decay, use_warmup=True).get_decay(n + 1) for n in range(40)],
    }
    model = torch.nn.ParameterList([torch.zeros(SHAPES["matrix"], dtype=torch.float64)])
    theirs = {"none": ModelEmaV3(model, decay), "power": ModelEmaV3(model, decay, use_warmup=True)}
    copying = AveragedModel(model, avg_fn=lambda old, new, n: decay * old + (1 - decay) * new)
    for n in range(AVERAGED["epochs"] * AVERAGED["steps"]):
        with torch.no_grad():
            model[0].copy_(torch.tensor(values(n)["matrix"]))
        for average in theirs.values():
            average.update(model, n + 1)
        epoch, step = divmod(n, AVERAGED["steps"])
        if step % every == 0:  # from here as torchvision's references/classification/train.py
            copying.update_parameters(model)
            if epoch < AVERAGED["warmup"]:
                copying.n_averaged.fill_(0)
    moved = {name: average.module[0] for name, average in theirs.items()}
    moved["copy"] = copying.module[0]
    found["weights"] = {name: w.detach().numpy().ravel().tolist() for name, w in moved.items()}
    return found


def main() -> None:
    """Print all of it."""
    import torch

    # torchvision, which timm imports, needs its compiled part for nothing here.
    torch.library.register_fake = lambda *_, **__: lambda f: f
    found: dict[str, Any] = {name: _optimised(how) for name, how in CASES.items()}
    found |= {name: _optimised(how) for name, how in CLIPPED.items()}
    found |= {name: _optimised(how, scaled=True) for name, how in SCALED.items()}
    found["in parts"] = _optimised(CASES["sgd with nesterov"], parts=PARTS)
    found["lamb after its own norm"] = _optimised(CASES["lamb"] | {"own_clip": 1.0})
    found = {"optimisers": found, "clipped": _clipped(), "rates": _rates()}
    found |= {"layers": _layers(), "averages": _averages(), "muon": _muon()}
    json.dump(found, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
