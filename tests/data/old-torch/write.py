"""Write checkpoints with the PyTorch that runs this: ``python write.py FOLDER``.

It runs on Python 2.7 and 3.6 with PyTorch 1.0 to 1.4. `test_old_torch` knows the values.
"""

import argparse
import collections
import os
import sys

import torch

SHAPES = [("conv1.weight", (4, 3, 3, 3)), ("bn1.running_var", (4,)), ("fc.weight", (3, 5))]


def values(shape, start):
    """Return eighths that half precision has exactly."""
    count = int(torch.Size(shape).numel())
    return ((torch.arange(count) * 7 + start) % 61).float().reshape(shape) / 8


def main(folder):
    """Write all files."""
    state = collections.OrderedDict((name, values(s, i)) for i, (name, s) in enumerate(SHAPES))
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    views, start = collections.OrderedDict(), 0
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].reshape(tensor.shape)
        start += tensor.numel()
    views["fc.weight"] = state["fc.weight"].t().contiguous().t()
    weights = [torch.nn.Parameter(tensor) for tensor in state.values()]
    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    everything = {
        "epoch": 90,
        "arch": "resnext50",
        "state_dict": collections.OrderedDict(
            ("module." + name, values(s, i)) for i, (name, s) in enumerate(SHAPES)
        ),
        "best_prec1": torch.tensor(77.5),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, data="/d\xe9", gpus=[0, 1]),
    }
    state = collections.OrderedDict((name, values(s, i)) for i, (name, s) in enumerate(SHAPES))
    half = collections.OrderedDict((name, tensor.half()) for name, tensor in state.items())
    name = "torch{}-py{}{}-".format(torch.__version__.replace(".", ""), *sys.version_info[:2])
    name = os.path.join(folder, name)
    torch.save(everything, name + "imagenet.saved")
    torch.save(half, name + "half.saved", pickle_protocol=1)
    torch.save(views, name + "views.saved")
    if torch.__version__ >= "1.4":
        torch.save(everything, name + "zip.saved", _use_new_zipfile_serialization=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
