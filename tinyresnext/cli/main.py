"""The command line: parse, run one command, turn errors into exit codes.

Results go to standard output, everything else to standard error. Exit codes: 0 success; 1 some
images failed (`classify`, `features`, `evaluate` and `quantise` name each and go on), training
diverged, or standard output could not be written; 2 usage, a file could not be written, or the
machine failed: its storage, its memory; 3 weights or data cannot be used or fetched; 4 device; 130
interrupted. A reader of standard output that ends early, as `head` does, changes no exit code.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from ..errors import (
    DeviceError,
    ImageError,
    MachineError,
    TinyResNeXtError,
    UsageError,
    WeightsError,
)
from ..system.console import plain
from ..system.version import __version__
from ..system.words import nearest, one_of
from . import hub, inside, machine, predict, train
from .options import choose_device, explained, parsed
from .output.interrupt import INTERRUPTED, interruptible
from .output.progress import say
from .weights import commands as weights

EXAMPLE = "tinyresnext classify photo.jpg"
_READ = frozenset({"model", "init", "data", "images", "image", "checkpoint", "file", "input", "i"})
_FILES = _READ | {"out", "output", "o"}  # options that say elsewhere what is read and written
_GROUPS = (predict, inside, train, weights, hub, machine)
_EXIT_CODES = {
    UsageError: 2,
    MachineError: 2,
    WeightsError: 3,
    DeviceError: 4,
    ImageError: 1,
    TinyResNeXtError: 1,
}


def command() -> int:
    """Run the command that was typed, after which the process ends.

    Before a process ends, Python looks for garbage among all objects, for a fifth of a second once
    Numba is imported. Frozen objects are passed over.
    """
    try:
        return main()
    finally:
        gc.freeze()


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
    with _streams():
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(words: list[str]) -> int:
    """Run one command, and return the exit code for what it raises."""
    arguments, code = parse(words), 0
    try:
        choose_device(arguments)
        # These two say themselves what they wait for.
        with interruptible(speaks=arguments.command not in ("train", "finetune")):
            code = arguments.run(arguments)
        sys.stdout.flush()  # a full disk is noticed here, not when the interpreter ends
        return code
    except TinyResNeXtError as error:
        say(error)
        return next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    except KeyboardInterrupt as stop:  # training explains here how to resume
        say(str(stop) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the program that reads our output has ended, as `head` does
        _drop_output()
        return code
    except MemoryError:
        say("there is not enough memory; try a smaller --batch")
        return 2
    except OSError as error:
        say(f"the results cannot be written: {error.strerror or error}")
        _drop_output()
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and those of its commands by name, without options."""
    about = explained("Use, train and convert ResNeXts, in NumPy and Numba.", EXAMPLE)
    made = _Parser("tinyresnext", **about)
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
    if not words:  # who types only the name asks what there is
        made.print_help(sys.stderr)
        made.exit(2)
    # The options before a command take no values, so the first other word is the command.
    name = next((word for word in words if not word.startswith("-")), "")
    if name in commands:
        add_options(commands[name])
    elif words[:1] == [name]:
        made.error(f"there is no command {name!r}: {one_of(name, commands)}")
    if words[0] == name:
        arguments, unknown = parsed(commands[name], words[1:])
        arguments.command = name
    else:
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
    if near:
        return f"; did you mean {', '.join(near)}?"
    plain = [str(one.metavar or one.dest) for one in command._actions if not one.option_strings]
    if not (plain and _FILES.intersection(words)):
        return ""
    return f"; files are typed without an option here: {command.prog} {' '.join(plain)}"


@contextmanager
def _streams() -> Iterator[None]:
    """Make streams of what stands in their place, and escape characters that a terminal lacks.

    In the ``with`` block, a stream that is missing or closed is the null device.
    """
    with ExitStack() as before:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name, None)
            if stream is None or getattr(stream, "closed", False):
                before.callback(setattr, sys, name, stream)
                nowhere = before.enter_context(open(os.devnull, "w", errors="backslashreplace"))
                setattr(sys, name, nowhere)
            elif not all(hasattr(stream, method) for method in ("fileno", "flush", "isatty")):
                before.callback(setattr, sys, name, stream)
                setattr(sys, name, _TextOnly(stream))
            elif hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        yield


class _TextOnly(io.TextIOBase):
    """A stream around an object that has little more than `write`, such as a field in a window."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def write(self, text: str) -> int:
        self._call("write", text)
        return len(text)

    def flush(self) -> None:
        if hasattr(self._target, "flush"):
            self._call("flush")

    def close(self) -> None:
        """Close nothing: the object is the program's. Python would flush it once more."""

    def _call(self, method: str, *args: str) -> None:
        """Call a method of the object; every error of it means that it cannot be written to."""
        try:
            getattr(self._target, method)(*args)
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error


def _drop_output() -> None:
    """Send what is still buffered to the null device, so that ending the interpreter succeeds."""
    with suppress(OSError, ValueError):  # a stream that is no file has nothing buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
