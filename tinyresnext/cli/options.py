"""What can be typed: every command and its options. What they do is `cli`'s business."""

from __future__ import annotations

import argparse

from ..network.spec import STEMS
from ..system.version import __version__
from ..training.recipes import CROPS, FILLS, FILTERS, INITS, RECIPES, SCHEDULES


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    made = argparse.ArgumentParser("tinyresnext", description="ResNeXt in NumPy and Numba.")
    made.add_argument("--version", action="version", version=f"tinyresnext {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    c = commands.add_parser("classify", help="say what is on pictures")
    c.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a picture, a directory of them, or - for names on standard input",
    )
    _model(c)
    c.add_argument(
        "--top", type=_positive, default=5, metavar="N", help="classes for each picture (5)"
    )
    c.add_argument(
        "--batch",
        type=_positive,
        default=8,
        metavar="N",
        help="pictures that go through the network together (8)",
    )
    _device(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line for each picture")
    form.add_argument(
        "--csv", metavar="FILE", help="write a table, a row for each picture; - is standard output"
    )
    c.add_argument("--force", action="store_true", help="write over the table if it exists")

    c = commands.add_parser("convert", help="turn a checkpoint into a model file")
    c.add_argument(
        "src",
        metavar="SRC",
        help="a checkpoint: .pth, .safetensors, .npz, .t7 or Keras' .h5, with any known system's names",
    )
    c.add_argument(
        "dst",
        nargs="?",
        metavar="DST.h5",
        help="by default beside SRC: its name with .h5, or .tinyresnext.h5",
    )
    c.add_argument(
        "--arch", metavar="NAME", help="what the network is, where the tensors do not tell"
    )
    c.add_argument(
        "--stem",
        choices=STEMS,
        help="how it begins, where they do not tell: pooled for a 3x3 with a pooling",
    )
    c.add_argument(
        "--ema", action="store_true", help="take the averaged weights of a training checkpoint"
    )
    c.add_argument("--labels", metavar="FILE", help="a text file with the name of one class a line")
    c.add_argument(
        "--licence", default="", metavar="TEXT", help="of the weights, to be kept with them"
    )
    c.add_argument(
        "--resize",
        type=_positive,
        metavar="N",
        help="shorter side of a picture before the crop (256, CIFAR 32)",
    )
    c.add_argument(
        "--crop",
        type=_positive,
        metavar="N",
        help="side of the square that the network sees (224, CIFAR 32)",
    )
    c.add_argument(
        "--interpolation",
        choices=("bilinear", "bicubic", "torch7", "keras"),
        help="how pictures are resized (bilinear)",
    )
    c.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="mean of the channels, from 0 to 1"
    )
    c.add_argument(
        "--std", type=_numbers, metavar="R,G,B", help="standard deviation of the channels"
    )
    c.add_argument(
        "--half",
        action="store_true",
        help="keep the weights in half precision: half the size, slightly rounded",
    )
    c.add_argument("--force", action="store_true", help="write over DST if it exists")

    c = commands.add_parser(
        "evaluate", help="how often a model is right about pictures whose classes are known"
    )
    c.add_argument(
        "data",
        metavar="DATA",
        help="a directory or zip with a folder for each class, or an archive of CIFAR or MNIST",
    )
    _model(c)
    c.add_argument("--split", default="test", metavar="NAME", help="which part of the data (test)")
    c.add_argument(
        "--broken",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do about broken pictures (refuse)",
    )
    c.add_argument(
        "--labels-by-number",
        action="store_true",
        help="match the classes by their order and not by their names",
    )
    c.add_argument(
        "--batch",
        type=_positive,
        default=64,
        metavar="N",
        help="pictures that go through the network together (64)",
    )
    _device(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    form.add_argument(
        "--csv",
        metavar="FILE",
        help="write a row for each class, with the confusion matrix; - is standard output",
    )
    c.add_argument("--picture", metavar="FILE.png", help="draw the confusion matrix")
    c.add_argument("--force", action="store_true", help="write over files that exist")

    c = commands.add_parser("export", help="turn a model file back into a checkpoint")
    c.add_argument(
        "src", nargs="?", metavar="NAME|FILE.h5", help="a model (the one that comes along)"
    )
    c.add_argument("dst", metavar="DST", help="ending in .pth, .safetensors or .npz")
    c.add_argument("--force", action="store_true", help="write over DST if it exists")

    c = commands.add_parser("info", help="architecture, cost, preprocessing, labels and provenance")
    c.add_argument(
        "name",
        nargs="?",
        metavar="NAME|FILE",
        help="an architecture or a model (the one that comes along)",
    )
    c.add_argument(
        "--layers", action="store_true", help="every layer with its parameters and multiply-adds"
    )
    c.add_argument(
        "--size", type=_positive, metavar="N", help="side of the picture that the counts are for"
    )

    c = commands.add_parser("verify", help="check a model file, and its logits against a reference")
    c.add_argument(
        "file", nargs="?", metavar="NAME|FILE", help="a model (the one that comes along)"
    )
    r = c.add_mutually_exclusive_group()
    r.add_argument(
        "--reference", metavar="R.npz", help="arrays x [n, h, w, c] and logits [n, classes]"
    )
    r.add_argument(
        "--make-reference", metavar="R.npz", help="compute such a file from the model, in float64"
    )
    c.add_argument(
        "--with-torch",
        action="store_true",
        help="compute the reference with PyTorch, not with plain NumPy",
    )
    c.add_argument("--force", action="store_true", help="write over the reference if it exists")
    _device(c)

    c = commands.add_parser(
        "models", help="the architectures that have names, and the published models"
    )
    c.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="such as 'resnext50*'"
    )

    c = commands.add_parser(
        "pull", help="fetch a published model, check it, convert it, and keep it"
    )
    c.add_argument(
        "name",
        metavar="NAME",
        help="one of `tinyresnext models`; an architecture means its best with a free licence",
    )
    c.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept a licence that does not allow every use",
    )
    where = c.add_mutually_exclusive_group()
    where.add_argument(
        "--offline",
        action="store_true",
        help="use what is on this computer, and never ask the network",
    )
    where.add_argument(
        "--from", dest="source", metavar="FILE", help="the published file, fetched by other means"
    )

    c = commands.add_parser("cache", help="the compiled kernels on this computer")
    c.add_argument(
        "action",
        choices=("info", "clear", "warm"),
        help="show what is kept, remove it, or compile it now",
    )
    c.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="with warm: for which architectures (all)",
    )

    c = commands.add_parser(
        "bench", help="how fast the network runs here, as a part of what this machine can do"
    )
    c.add_argument(
        "--model",
        nargs="+",
        default=["resnext50_32x4d", "resnext101_32x8d"],
        metavar="NAME",
        help="architectures",
    )
    c.add_argument(
        "--batch",
        type=_positive,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="pictures at a time (1 8)",
    )
    c.add_argument(
        "--size",
        type=_positive,
        nargs="+",
        default=[160, 224, 288],
        metavar="N",
        help="their sides (160 224 288)",
    )
    c.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads to compute on (as many as it may use cores)",
    )
    c.add_argument(
        "--repeats",
        type=_positive,
        default=10,
        metavar="N",
        help="how often everything is run (10)",
    )
    c.add_argument(
        "--layers", action="store_true", help="every distinct layer too, in its place and alone"
    )
    c.add_argument("--json", metavar="FILE", help="write the figures there too")
    _train(commands.add_parser("train", help="train a network on pictures"))
    _finetune(commands.add_parser("finetune", help="train a model on, for other classes"))
    return made


def _train(c: argparse.ArgumentParser) -> None:
    """A network from its first weights."""
    c.add_argument(
        "data",
        metavar="DATA",
        help="a folder, zip archive or published archive of pictures in classes",
    )
    which = c.add_mutually_exclusive_group(required=True)
    which.add_argument("--arch", metavar="NAME", help="one of `tinyresnext models`")
    which.add_argument(
        "--depth", type=_positive, metavar="N", help="a CIFAR network of 9 n + 2 layers, such as 29"
    )
    which.add_argument(
        "--blocks",
        type=_counts,
        metavar="N,N...",
        help="a network with so many blocks in each stage, such as 3,4,6,3",
    )
    c.add_argument(
        "--cardinality",
        type=_positive,
        metavar="N",
        help="with --depth or --blocks: paths of a block (32)",
    )
    c.add_argument(
        "--width",
        type=_positive,
        metavar="N",
        help="with --depth or --blocks: channels of a path (4)",
    )
    c.add_argument(
        "--widen",
        type=_positive,
        metavar="N",
        help="with --depth or --blocks: expansion of a block (4)",
    )
    c.add_argument("--stem", choices=STEMS, help="with --blocks: how the network begins (imagenet)")
    down = "with --depth or --blocks: shortcuts that stride average, as ResNet-D's"
    c.add_argument("--avg-down", action="store_const", const=True, help=down)
    c.add_argument(
        "--recipe", default="fast-cifar", metavar="NAME", help=_recipe_help("fast-cifar")
    )
    c.add_argument(
        "--size", type=_positive, metavar="N", help="side of the pictures (224, CIFAR 32)"
    )
    c.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="mean of the channels, from 0 to 1"
    )
    c.add_argument(
        "--std", type=_numbers, metavar="R,G,B", help="standard deviation of the channels"
    )
    c.add_argument(
        "--initialisation", dest="init", choices=INITS, help="how the first weights are drawn"
    )
    c.add_argument("--device", default="cpu", help="cpu, auto, or reference for plain NumPy (cpu)")
    r = _training(c)
    r.add_argument(
        "--zero-gamma",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="blocks begin as their shortcuts",
    )
    filters = "the first filters are made from the pictures' patches"
    r.add_argument("--whiten", action=argparse.BooleanOptionalAction, default=None, help=filters)
    r.add_argument("--interpolation", choices=FILTERS, help="how pictures are resized")


def _finetune(c: argparse.ArgumentParser) -> None:
    """A model that knows something already."""
    c.add_argument(
        "data",
        metavar="DATA",
        help="a folder, zip archive or published archive of pictures in classes",
    )
    c.add_argument(
        "--init",
        dest="model",
        metavar="FILE",
        help="the model file to begin with (the one that comes along)",
    )
    stays = c.add_mutually_exclusive_group()
    stays.add_argument(
        "--frozen-to", metavar="STAGE", help="the last stage that stays as it is: stem, layer1 ..."
    )
    stays.add_argument(
        "--all",
        action="store_true",
        help="train all layers (this is what is done without --frozen-to)",
    )
    c.add_argument("--recipe", default="finetune", metavar="NAME", help=_recipe_help("finetune"))
    c.add_argument("--device", default="cpu", help="cpu, auto, or reference for plain NumPy (cpu)")
    _training(c)


def _recipe_help(usual: str) -> str:
    """The recipes by name."""
    return f"what the options below do not say: {', '.join(RECIPES)} ({usual})"


def _training(c: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What all training has; returns the group of what a recipe says too."""
    c.add_argument("--out", required=True, metavar="FOLDER", help="where state, log and model go")
    c.add_argument("--resume", action="store_true", help="go on with the run in FOLDER")
    c.add_argument(
        "--split", default="train", metavar="NAME", help="which part of DATA to train on (train)"
    )
    c.add_argument("--val", metavar="DATA", help="pictures to try the network on after each epoch")
    c.add_argument("--val-split", default="test", metavar="NAME", help="which part of them (test)")
    c.add_argument(
        "--broken",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do about broken pictures (refuse)",
    )
    c.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads to compute on (as many as it may use cores)",
    )
    c.add_argument(
        "--log-every",
        type=_positive,
        default=0,
        metavar="N",
        help="a line in the log after so many steps too",
    )
    c.add_argument("--licence", default="", metavar="TEXT", help="of the model, to be kept with it")
    c.add_argument(
        "--half",
        action="store_true",
        help="keep its weights in half precision, in a file half as large",
    )
    r = c.add_argument_group("in place of what the recipe says")
    r.add_argument("--epochs", type=_positive, metavar="N", help="how often all pictures are seen")
    r.add_argument("--batch", type=_positive, metavar="N", help="pictures in a step")
    r.add_argument("--lr", type=float, metavar="X", help="the highest learning rate")
    r.add_argument("--schedule", choices=SCHEDULES, help="how it falls")
    r.add_argument(
        "--milestones",
        type=_numbers,
        metavar="X,X...",
        help="for step: at which parts of the run, such as 0.5,0.75",
    )
    r.add_argument(
        "--gamma", type=float, metavar="X", help="for step: what it is multiplied by there"
    )
    r.add_argument(
        "--warmup",
        type=float,
        metavar="X",
        help="the part of the run in which it rises, such as 0.2",
    )
    r.add_argument(
        "--momentum",
        type=float,
        metavar="X",
        help="how much of the steps before goes on in the next, such as 0.9",
    )
    r.add_argument(
        "--nesterov",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Nesterov's form of it",
    )
    r.add_argument(
        "--muon",
        type=float,
        metavar="X",
        help="Muon for the convolutions in the blocks, at this rate, such as 0.1",
    )
    r.add_argument(
        "--weight-decay",
        type=float,
        metavar="X",
        help="added to the gradient, times the weight, such as 5e-4",
    )
    r.add_argument(
        "--decay-all",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="batch norms and biases decay too",
    )
    r.add_argument(
        "--smoothing",
        type=float,
        metavar="X",
        help="of the labels: the part that goes to all classes alike, such as 0.1",
    )
    r.add_argument(
        "--mixup",
        type=float,
        metavar="ALPHA",
        help="mix neighbours in a batch, by Beta(ALPHA, ALPHA), such as 0.2",
    )
    r.add_argument(
        "--ema",
        type=float,
        metavar="X",
        help="decay of the average of the weights, such as 0.999; 0 is none",
    )
    crop = "with a rim around it, a random part by torchvision's or by the authors' rule, or the middle"
    r.add_argument("--crop", choices=CROPS, help=crop)
    r.add_argument(
        "--padding",
        type=int,
        metavar="N",
        help="for pad: pixels around a picture of the network's size",
    )
    r.add_argument("--fill", choices=FILLS, help="for pad: what is there")
    sides = "sides of the pictures, in equal shares of the run, such as 20,24,28,32"
    r.add_argument("--sides", type=_counts, metavar="N,N...", help=sides)
    r.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mirror every second picture",
    )
    alternate = "mirror each picture in every other epoch instead"
    r.add_argument(
        "--alternate", action=argparse.BooleanOptionalAction, default=None, help=alternate
    )
    r.add_argument(
        "--jitter", type=float, metavar="X", help="of brightness, contrast and saturation"
    )
    r.add_argument("--lighting", type=float, metavar="X", help="of the colour, such as 0.1")
    r.add_argument(
        "--cutout", type=int, metavar="N", help="side of a square that is wiped out of each picture"
    )
    r.add_argument("--seed", type=int, metavar="N", help="of first weights, order and augmentation")
    return r


def _model(command: argparse.ArgumentParser) -> None:
    """The option of every command that predicts."""
    command.add_argument(
        "--model", metavar="NAME|FILE", help="a pulled model, or a file (the one that comes along)"
    )


def _device(command: argparse.ArgumentParser) -> None:
    """The options of every command that computes."""
    command.add_argument(
        "--device", default="cpu", help="cpu, auto, or reference for plain NumPy (cpu)"
    )
    command.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads to compute on (as many as it may use cores)",
    )


def _positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, for argparse."""
    return tuple(_positive(part) for part in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers from 0 to 1 with commas between them, for argparse."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers from 0 to 1, such as 0.485,0.456,0.406"
        )
    return values
