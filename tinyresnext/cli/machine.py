"""The commands `cache` and `bench`: compiled kernels on this computer, and how fast they are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..system.checks import check_ending
from .options import Commands, add_command, add_device, add_force, braces, positive, word
from .output.progress import announce_compiling, say
from .output.tables import target

if TYPE_CHECKING:
    from ..ops import Backend

ACTIONS = ("info", "clear", "warm")


def add_commands(commands: Commands) -> None:
    """Add the parsers of `cache` and `bench`."""
    sentence = "Show, remove or make the compiled kernels on this computer."
    add_command(commands, "cache", sentence, "tinyresnext cache info", _add_cache, _cache)
    sentence = "Measure how fast the network runs, and what part of this machine's limits it is."
    example = "tinyresnext bench --model resnext50_32x4d --batch 1 --size 224"
    add_command(commands, "bench", sentence, example, _add_bench, _bench)


# --- cache ----------------------------------------------------------------------------------------


def _add_cache(c: argparse.ArgumentParser) -> None:
    """Add the options of `cache`."""
    c.add_argument(
        "action",
        type=word(ACTIONS),
        metavar=braces(ACTIONS),
        help="show which kernels are kept, remove them, or compile them now",
    )
    c.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="with warm: for which architectures (all)",
    )
    c.add_argument("--device", metavar="DEVICE", help="with warm: the device (cpu)")
    c.add_argument(
        "--precision",
        metavar="PRECISION",
        help="with warm: the precision that the kernels compute in, or int8 (float32)",
    )
    c.add_argument(
        "--others",
        action="store_true",
        help="with clear: keep the kernels of this version on this processor",
    )


def _cache(a: argparse.Namespace) -> int:
    """Show, remove or make the compiled kernels."""
    from ..ops import backend_of

    if a.action != "warm" and a.pattern != "*":
        raise UsageError(
            f"`cache {a.action}` takes no pattern; leave out {a.pattern!r}: it is for `cache warm`"
        )
    if a.action != "warm" and (a.device is not None or a.precision is not None):
        raise UsageError(
            f"`cache {a.action}` is about all kernels, of every device and precision; --device and "
            "--precision are for `cache warm`"
        )
    if a.others and a.action != "clear":
        raise UsageError(f"`cache {a.action}` removes nothing; --others is for `cache clear`")
    device = "cpu" if a.device is None else a.device
    ops = backend_of(device, "float32" if a.precision is None else a.precision)
    if a.action == "clear":
        print(f"removed {ops.clear_kernels(a.others) / 2**20:.1f} MiB")
        return 0
    if a.action == "warm":
        _warm(ops, a.pattern, a.precision == "int8")
    for entry in ops.kernels_kept():
        what = "in use" if entry.current else "of another version or processor"
        print(f"{entry.folder}  {entry.files} kernels, {entry.bytes / 2**20:.1f} MiB, {what}")
    if problem := ops.kernels_problem():
        say(f"nothing is kept: {problem}")
    return 0


def _warm(ops: Backend, pattern: str, rounds: bool) -> None:
    """Compile the kernels of the architectures whose names match, quantised to 8 bits or not."""
    from ..bench.warm import warm
    from ..inference.files import list_models
    from ..network.spec import VARIANTS

    names = [name for name in list_models(pattern) if name in VARIANTS]
    if pattern in names:
        names = [pattern]
    if not names:
        raise UsageError(
            f"no architecture matches {pattern!r}; `tinyresnext models` lists them all"
        )
    if problem := ops.kernels_problem():
        raise UsageError(
            f"compiled kernels cannot be kept: {problem}; TINYRESNEXT_HOME names another folder"
        )
    with announce_compiling(ops):
        warm(ops, names, rounds=rounds)


# --- bench ----------------------------------------------------------------------------------------


def _add_bench(c: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    c.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="architectures (resnext50_32x4d resnext101_32x8d)",
    )
    c.add_argument(
        "--batch",
        type=positive,
        nargs="+",
        action="extend",
        metavar="N",
        help="images at a time (1 8)",
    )
    c.add_argument(
        "--size",
        type=positive,
        nargs="+",
        action="extend",
        metavar="N",
        help="sides of the images (160 224 288)",
    )
    add_device(c, precision=True, more=", or int8")
    c.add_argument(
        "--repeats",
        type=positive,
        default=10,
        metavar="N",
        help="how often everything is run (10)",
    )
    c.add_argument(
        "--layers",
        action="store_true",
        help="also time every distinct layer, in its place and alone",
    )
    c.add_argument("--json", metavar="FILE", help="also write the results to FILE")
    add_force(c, "FILE")


def _bench(a: argparse.Namespace) -> int:
    """Measure, and print the tables."""
    from ..bench.bench import bench, on_terminal, write
    from ..bench.tables import text
    from ..ops import backend_of

    file = a.json
    if file is not None:
        check_ending(file, (".json", ".jsonl", ".txt", ""), "a report (JSON)")
        file = target(file, a.force)
    with announce_compiling(backend_of(a.device, a.precision)):
        given = {"models": a.model, "batches": a.batch, "sizes": a.size}
        report = bench(
            **{name: values for name, values in given.items() if values is not None},
            threads=a.threads, repeats=a.repeats, every_layer=a.layers, tell=on_terminal,
            device=a.device, precision=a.precision,
        )  # fmt: skip
    on_terminal("")
    print(text(report), end="", flush=True)  # before anything can go wrong with the file
    if file is not None:
        write(file, report)
    return 0
