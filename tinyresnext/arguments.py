"""What can be typed: every command and its options. What they do is `cli`'s business."""

from __future__ import annotations

import argparse

from . import __version__


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    made = argparse.ArgumentParser("tinyresnext", description="ResNeXt in NumPy and Numba.")
    made.add_argument("--version", action="version", version=f"tinyresnext {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    c = commands.add_parser("classify", help="say what is on pictures")
    c.add_argument("paths", nargs="+", metavar="PATH", help="a picture, a directory of them, or - for names on standard input")
    _model(c)
    c.add_argument("--top", type=_positive, default=5, metavar="N", help="classes for each picture (5)")
    c.add_argument("--batch", type=_positive, default=8, metavar="N", help="pictures that go through the network together (8)")
    _device(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line for each picture")
    form.add_argument("--csv", metavar="FILE", help="write a table, a row for each picture; - is standard output")
    c.add_argument("--force", action="store_true", help="write over the table if it exists")

    c = commands.add_parser("convert", help="turn a checkpoint into a model file")
    c.add_argument("src", metavar="SRC", help="a .pth file of PyTorch, with torchvision's or timm's names")
    c.add_argument("dst", nargs="?", metavar="DST.h5", help="by default beside SRC, ending in .h5")
    c.add_argument("--arch", metavar="NAME", help="what the network is, where the tensors do not tell")
    c.add_argument("--ema", action="store_true", help="take the averaged weights of a training checkpoint")
    c.add_argument("--labels", metavar="FILE", help="a text file with the name of one class a line")
    c.add_argument("--licence", default="", metavar="TEXT", help="of the weights, to be kept with them")
    c.add_argument("--resize", type=_positive, metavar="N", help="shorter side of a picture before the crop (256, CIFAR 32)")
    c.add_argument("--crop", type=_positive, metavar="N", help="side of the square that the network sees (224, CIFAR 32)")
    c.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="how pictures are resized (bilinear)")
    c.add_argument("--mean", type=_numbers, metavar="R,G,B", help="mean of the channels, from 0 to 1")
    c.add_argument("--std", type=_numbers, metavar="R,G,B", help="standard deviation of the channels")
    c.add_argument("--half", action="store_true", help="keep the weights in half precision: half the size, slightly rounded")
    c.add_argument("--force", action="store_true", help="write over DST if it exists")

    c = commands.add_parser("evaluate", help="how often a model is right about pictures whose classes are known")
    c.add_argument(
        "data", metavar="DATA", help="a directory or zip with a folder for each class, or an archive of CIFAR or MNIST"
    )
    _model(c)
    c.add_argument("--split", default="test", metavar="NAME", help="which part of the data (test)")
    c.add_argument(
        "--on-broken", choices=("refuse", "skip"), default="refuse", help="what to do about broken pictures (refuse)"
    )
    c.add_argument("--labels-by-number", action="store_true", help="match the classes by their order and not by their names")
    c.add_argument(
        "--batch", type=_positive, default=64, metavar="N", help="pictures that go through the network together (64)"
    )
    _device(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    form.add_argument(
        "--csv", metavar="FILE", help="write a row for each class, with the confusion matrix; - is standard output"
    )
    c.add_argument("--picture", metavar="FILE.png", help="draw the confusion matrix")
    c.add_argument("--force", action="store_true", help="write over files that exist")

    c = commands.add_parser("export", help="turn a model file back into a checkpoint")
    c.add_argument("src", nargs="?", metavar="FILE.h5", help="a model file (the one that comes along)")
    c.add_argument("dst", metavar="DST", help="ending in .pth, .safetensors or .npz")
    c.add_argument("--force", action="store_true", help="write over DST if it exists")

    c = commands.add_parser("info", help="architecture, cost, preprocessing, labels and provenance")
    c.add_argument("name", nargs="?", metavar="NAME|FILE", help="an architecture, or a model file (the one that comes along)")
    c.add_argument("--layers", action="store_true", help="every layer with its parameters and multiply-adds")
    c.add_argument("--size", type=_positive, metavar="N", help="side of the picture that the counts are for")

    c = commands.add_parser("verify", help="check a model file, and its logits against a reference")
    c.add_argument("file", nargs="?", metavar="FILE", help="a model file (the one that comes along)")
    c.add_argument("--reference", metavar="R.npz", help="arrays x [n, h, w, c] and logits [n, classes]")
    _device(c)

    c = commands.add_parser("models", help="the architectures that have names")
    c.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="such as 'resnext50*'")

    c = commands.add_parser("cache", help="the compiled kernels on this computer")
    c.add_argument("action", choices=("info", "clear", "warm"), help="show what is kept, remove it, or compile it now")
    c.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="with warm: for which architectures (all)")

    c = commands.add_parser("bench", help="how fast the network runs here, as a part of what this machine can do")
    c.add_argument("--model", nargs="+", default=["resnext50_32x4d", "resnext101_32x8d"], metavar="NAME", help="architectures")
    c.add_argument("--batch", type=_positive, nargs="+", default=[1, 8], metavar="N", help="pictures at a time (1 8)")
    c.add_argument("--size", type=_positive, nargs="+", default=[160, 224, 288], metavar="N", help="their sides (160 224 288)")
    c.add_argument("--threads", type=_positive, metavar="N", help="threads to compute on (all)")
    c.add_argument("--repeats", type=_positive, default=10, metavar="N", help="how often everything is run (10)")
    c.add_argument("--layers", action="store_true", help="every distinct layer too, in its place and alone")
    c.add_argument("--json", metavar="FILE", help="write the figures there too")
    return made


def _model(command: argparse.ArgumentParser) -> None:
    """The option of every command that predicts."""
    command.add_argument("--model", metavar="FILE", help="a model file (the one that comes along)")


def _device(command: argparse.ArgumentParser) -> None:
    """The options of every command that computes."""
    command.add_argument("--device", default="cpu", help="cpu, auto, or reference for plain NumPy (cpu)")
    command.add_argument("--threads", type=_positive, metavar="N", help="threads to compute on (as many as it may use cores)")


def _positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers from 0 to 1 with commas between them, for argparse."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 0 to 1, such as 0.485,0.456,0.406")
    return values
