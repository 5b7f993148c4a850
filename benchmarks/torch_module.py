"""A case as a PyTorch module, built from the modules that users build from. Needs ``torch``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


class Network(nn.Module):
    """A network whose convolutions, norms and classifier are modules with the case's weights.

    All other steps are functions.
    """

    def __init__(self, steps: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.steps, self.parts = steps, nn.ModuleDict()
        for i, step in enumerate(steps):
            weights = [
                torch.from_numpy(arrays[name]) for name in step["args"][1:] if name in arrays
            ]
            if step["op"] in ("conv2d", "batch_norm", "linear"):
                self.parts[str(i)] = _part(step["op"], step["attrs"], weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"x": x}
        for i, step in enumerate(self.steps):
            a, first = step["attrs"], values[step["args"][0]]
            if str(i) in self.parts:
                y = self.parts[str(i)](first)
            elif step["op"] == "relu":
                # In place, as in torchvision: no other step reads the input of a ReLU.
                y = nn.functional.relu(first, inplace=True)
            elif step["op"] == "add":
                y = first + values[step["args"][1]]
            elif step["op"] == "max_pool2d":
                y = nn.functional.max_pool2d(first, a["size"], a["stride"], a["padding"])
            elif step["op"] == "mean_pool":
                y = nn.functional.adaptive_avg_pool2d(first, 1).flatten(1)
            else:
                raise ValueError(f"there is no module for {step['op']!r} here")
            values[step["out"]] = y
        return y


def _part(op: str, a: dict[str, Any], weights: list[torch.Tensor]) -> nn.Module:
    """Return a module with the weights of one step."""
    if op == "batch_norm":
        part = nn.BatchNorm2d(len(weights[0]), eps=a["eps"])
        names = ("weight", "bias", "running_mean", "running_var")
    elif op == "linear":
        part, names = nn.Linear(*reversed(weights[0].shape)), ("weight", "bias")
    else:
        c_out, c_in, *kernel = weights[0].shape
        groups = a.get("groups", 1)
        part = nn.Conv2d(
            c_in * groups,
            c_out,
            kernel,
            a.get("stride", 1),
            a.get("padding", 0),
            1,
            groups,
            bias=len(weights) > 1,
        )
        names = ("weight", "bias")
    part.load_state_dict(dict(zip(names, weights, strict=False)), strict=False)
    return part
