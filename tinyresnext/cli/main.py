"""The command line: parse, run one command, turn errors into exit codes.

Results go to standard output, everything else to standard error. Exit codes: 0 success; 1 some
images failed (`classify` names each and goes on), training diverged, or results could not be
written; 2 usage; 3 weights or data cannot be used or fetched; 4 device; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence

from ..errors import DeviceError, ImageError, TinyResNeXtError, UsageError, WeightsError
from ..system.version import __version__
from ..system.words import nearest, one_of
from . import hub, machine, predict, train, weights
from .output.progress import say

_GROUPS = (predict, train, weights, hub, machine)
_EXIT_CODES = {UsageError: 2, WeightsError: 3, DeviceError: 4, ImageError: 1, TinyResNeXtError: 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default those that were typed.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version``, and with code 2 if the words are no command.
    """
    _prepare_streams()
    arguments = parse(list(sys.argv[1:] if argv is None else argv))
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()  # a full disk is noticed here, not when the interpreter ends
        return code
    except TinyResNeXtError as error:
        say(error)
        return next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    except KeyboardInterrupt as stop:  # training explains here how to resume
        say(str(stop) or "interrupted")
        return 130
    except BrokenPipeError:  # the program that reads our output has ended
        _drop_output()
        return 0
    except MemoryError:
        say("there is not enough memory; try a smaller --batch")
        return 1
    except OSError as error:
        say(f"the results cannot be written: {error.strerror or error}")
        _drop_output()
        return 1


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and those of its commands by name, without options."""
    made = argparse.ArgumentParser("tinyresnext", description="ResNeXt in NumPy and Numba.")
    made.add_argument("--version", action="version", version=f"tinyresnext {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add_commands(commands)
    return made, commands.choices


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of a command. Adding those of every command would slow down every start."""
    command.get_default("add_options")(command)


def parse(words: list[str]) -> argparse.Namespace:
    """Return the options of a command; `run` is the function that runs it, `typed` the words.

    Raises
    ------
    SystemExit
        The words are no command; an unknown one is named with the nearest that is known.
    """
    made, commands = parsers()
    # The options before a command take no values, so the first other word is the command.
    name = next((word for word in words if not word.startswith("-")), "")
    if name in commands:
        add_options(commands[name])
    elif words[:1] == [name]:
        made.error(f"there is no command {name!r}: {one_of(name, commands)}")
    arguments, unknown = made.parse_known_args(words)
    arguments.typed = words
    if unknown:
        command = commands[arguments.command]
        command.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown, command)}")
    return arguments


def _hint(unknown: list[str], command: argparse.ArgumentParser) -> str:
    """Return which options of a command were probably meant, or an empty text."""
    known = re.findall(r"--([\w-]+)", command.format_usage())  # the usage names every option
    words = [word.lstrip("-").split("=")[0] for word in unknown if word.startswith("-")]
    near = [f"--{name}" for word in words if (name := nearest(word, known))]
    return f"; did you mean {', '.join(near)}?" if near else ""


def _prepare_streams() -> None:
    """Open the null device for a closed stream, and escape characters that a terminal lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still buffered to the null device, so that ending the interpreter succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
