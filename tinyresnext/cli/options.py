"""What several commands share: how values are read from what was typed, and whole options."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypedDict

from ..system.words import one_of

# What `add_parser` is a method of; argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EIGHT_BITS = ", or int8 of a quantised model"  # for `add_device`

# --- commands -------------------------------------------------------------------------------------


class Explained(TypedDict):
    """What the help of a parser begins and ends with, as arguments of the parser."""

    description: str
    epilog: str
    formatter_class: type[argparse.HelpFormatter]


def explained(sentence: str, example: str) -> Explained:
    """Return the arguments of a parser whose help has a sentence, and a line that can be copied."""
    raw = argparse.RawDescriptionHelpFormatter  # others break a line at the - in a name
    return {"description": sentence, "epilog": f"example:\n  {example}", "formatter_class": raw}


def add_command(
    commands: Commands,
    name: str,
    sentence: str,
    example: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add the parser of a command, still without its options.

    Parameters
    ----------
    commands : Commands
    name, sentence, example : str
        What is typed, what it does, and a line to type; the help shows all three.
    add_options : callable
        Adds the options to the parser; called only for the command that was typed.
    run : callable
        Runs the command, and returns the exit code.
    """
    command = commands.add_parser(name, help=sentence, **explained(sentence, example))
    command.set_defaults(add_options=add_options, run=run)


def parsed(
    command: argparse.ArgumentParser, words: list[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of a command, and the words that are none.

    Files may stand before options and behind them, also in two places. Where ``--`` says that names
    begin with ``-``, files stand together: Python's versions differ in how they read it otherwise.
    """
    found, unknown = command.parse_known_args(words)
    if unknown and "--" not in words:
        return command.parse_known_intermixed_args(words)
    return found, unknown


# --- values ---------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Return a whole number from 1.

    Raises
    ------
    argparse.ArgumentTypeError
        The text is not such a number. The functions below raise it too, if a text is not what they
        read.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """Return whole numbers from 1 that have commas between them."""
    return tuple(positive(part) for part in text.split(","))


def channels(text: str) -> tuple[float, ...]:
    """Return numbers, one for each channel, for pixels from 0 to 1, that have commas between."""
    from ..images.preprocess import MOST

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(abs(value) <= MOST for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers for pixels from 0 to 1, such as 0.485,0.456,0.406"
        )
    return values


def word(known: Iterable[str], file: str = "") -> Callable[[str], str]:
    """Return a function that returns a known word, and whose error names the nearest one.

    The ``choices`` of argparse would only list them all. An option that needs no word takes a file
    behind it for one: ``file`` is what the help calls such a file, which the error then names.
    """
    words = tuple(known)
    before = f"; if it is {file}, give it before the option" if file else ""

    def read(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is unknown: {one_of(text, words)}{before}")
        return text

    return read


def braces(known: Iterable[str]) -> str:
    """Return ``{refuse,skip}``, which stands for one of these words in the help."""
    return "{" + ",".join(known) + "}"


# --- options --------------------------------------------------------------------------------------


class Once(argparse.Action):
    """Store a value; refuse a second one, with which argparse would replace it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value, or end the program with the error."""
        if getattr(namespace, self.dest) is not None:
            parser.error(
                f"{option_string} is given twice, and this command takes one; leave one out"
            )
        setattr(namespace, self.dest, values)


def add_model(command: argparse.ArgumentParser) -> None:
    """Add ``--model``, for commands that take one."""
    command.add_argument(
        "--model",
        action=Once,
        metavar="NAME|FILE",
        help="a model that was pulled, or a model file (the bundled model)",
    )


def add_ensemble(command: argparse.ArgumentParser) -> None:
    """Add ``--model``, which may be given several times, ``--crops`` and ``--mirror``."""
    command.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help="a model that was pulled, or a model file (the bundled model); of several, each with "
        "its own --model, the mean of the probabilities counts",
    )
    known = ("1", "5", "10")
    command.add_argument(
        "--crops",
        type=word(known),
        default="1",
        metavar=braces(known),
        help="views of an image: the middle; the corners too; all of these of the mirrored image "
        "too (1)",
    )
    command.add_argument(
        "--mirror", action="store_true", help="let each of 1 or 5 views be mirrored too"
    )


def add_device(command: argparse.ArgumentParser, precision: bool = False, more: str = "") -> None:
    """Add ``--device``, ``--threads`` and perhaps ``--precision``, for commands that compute."""
    command.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="cpu, cuda (or cuda:1 ...) for an NVIDIA GPU, auto for the GPU if it can be used, or "
        "reference for plain NumPy (cpu)",
    )
    if precision:
        command.add_argument(
            "--precision",
            default="float32",
            metavar="PRECISION",
            help="what activations and weights are stored in while computing: float32, bfloat16, "
            f"or float16 on an NVIDIA GPU{more} (float32)",
        )
    add_threads(command)


def choose_device(a: argparse.Namespace) -> None:
    """Put the name of a device in the place of ``auto``, and say on standard error which it is."""
    if getattr(a, "device", None) == "auto":
        from ..ops import automatic
        from .output.progress import say

        chosen, why = automatic()
        a.device = chosen.__name__.rpartition(".")[2]
        say(f"--device auto is {a.device}: {why}")


def add_threads(command: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    command.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads to compute on (one for each available core)",
    )


def add_data(command: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add the positional ``DATA``, for commands that read a data set."""
    command.add_argument(
        "data",
        nargs=nargs,
        metavar="DATA",
        help="a directory, zip or tar with a folder for each class, a table (.csv, .tsv) of images "
        "and labels, an archive of CIFAR, or the directory with the files of MNIST",
    )


def add_broken(command: argparse.ArgumentParser) -> None:
    """Add ``--broken``, for commands that read a data set."""
    known = ("refuse", "skip")
    command.add_argument(
        "--broken",
        type=word(known),
        default="refuse",
        metavar=braces(known),
        help="what to do about images that cannot be read (refuse)",
    )


def add_stem(command: argparse.ArgumentParser, help: str) -> None:
    """Add ``--stem``."""
    from ..network.spec import STEMS

    command.add_argument("--stem", type=word(STEMS), metavar=braces(STEMS), help=help)


def add_head(command: argparse.ArgumentParser, help: str, *others: str) -> None:
    """Add ``--head``, perhaps with other names."""
    from ..network.spec import HEADS

    command.add_argument("--head", *others, type=word(HEADS), metavar=braces(HEADS), help=help)


def add_untold(command: argparse.ArgumentParser) -> None:
    """Add ``--blur-pool`` and ``--output-stride``, of which tensors have no trace."""
    from ..network.spec import BLUR_POOLS

    command.add_argument(
        "--blur-pool",
        nargs="?",
        const="binomial",
        type=word(BLUR_POOLS, "SRC or DST.h5"),
        metavar=braces(BLUR_POOLS),
        help="what strides in place of convolutions: a binomial filter (resnetblur), which the "
        "option alone means too, or the mean of 2x2 values (timm's names with aa) (none)",
    )
    command.add_argument(
        "--output-stride",
        type=positive,
        metavar="N",
        help="of a network whose last stages dilate: 16 or 8 (32)",
    )


def add_normalisation(command: argparse.ArgumentParser) -> None:
    """Add ``--mean`` and ``--std``, for commands that make a model."""
    command.add_argument(
        "--mean", type=channels, metavar="R,G,B", help="mean of the channels, of pixels from 0 to 1"
    )
    command.add_argument(
        "--std", type=channels, metavar="R,G,B", help="standard deviation of the channels"
    )


def add_force(command: argparse.ArgumentParser, what: str) -> None:
    """Add ``--force``, for commands that write a file whose name is typed."""
    command.add_argument("--force", action="store_true", help=f"write over {what} if it exists")
