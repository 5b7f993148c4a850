"""The command line: parse (see `arguments`), call one function, print. Nothing else is decided here.

Results go to standard output, everything else to standard error. Exit codes: 0 fine; 1 some
pictures failed (`classify` names each and does the rest), training diverged, or results could not
be written; 2 usage; 3 weights or data cannot be used or fetched; 4 device; 130 interrupted. Imports
wait until a command needs them, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, ImageError, TinyResNeXtError, UsageError, WeightsError
from ..system.files import regular, shown
from .options import parser

if TYPE_CHECKING:
    from ..inference.classify import Row

MOST_LABELS = 64 << 20  # bytes of a file of labels
SCHEMA = 1  # of the JSON lines; a change that breaks a reader raises it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _prepare_streams()
    arguments = parser().parse_args(argv)
    arguments.typed = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()  # a full disk is noticed here and not on the way out
        return code
    except TinyResNeXtError as error:
        print(f"tinyresnext: {error}", file=sys.stderr)
        return next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    except KeyboardInterrupt as stop:  # training says how to go on
        print(f"tinyresnext: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        _drop_output()
        return 0
    except MemoryError:
        print("tinyresnext: there is not enough memory; try a smaller --batch", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"tinyresnext: the results cannot be written: {error.strerror or error}",
            file=sys.stderr,
        )
        _drop_output()
        return 1


def _prepare_streams() -> None:
    """Output that is closed goes nowhere, and a character that the terminal does not know is written as its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Nothing that is still waiting to be written can be; the interpreter must not try it again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_EXIT_CODES = {UsageError: 2, WeightsError: 3, DeviceError: 4, ImageError: 1, TinyResNeXtError: 1}


def _classify(a: argparse.Namespace) -> int:
    from ..hub.bundled import shipped_model
    from ..inference.classify import classify, expand
    from ..inference.model import Prediction, load

    table_path = a.csv if a.csv in (None, "-") else _target(a.csv, a.force)
    paths = expand(a.paths, _names_on_stdin() if "-" in a.paths else ())
    if not paths:
        raise UsageError(
            f"there is no picture in {', '.join(a.paths)}; expected files such as photo.jpg or directories of them"
        )
    file = a.model if a.model is not None else shipped_model()
    model = load(file, a.device, a.threads)
    rows = _progress(classify(model, paths, top=a.top, batch=a.batch), len(paths))
    failed = 0
    guesses = [
        f"{what}{rank + 1}"
        for rank in range(min(a.top, model.spec.classes))
        for what in Prediction._fields
    ]
    with _table(table_path) as table, _word_on_compiling(model.ops):
        if table is not None:
            table.writerow(["path", "error", *guesses])
        for row in rows:
            failed += row.error is not None
            if row.error is not None:
                print(f"tinyresnext: {row.error}", file=sys.stderr)
            if table is not None:
                table.writerow(_csv_row(row))
            elif a.json:
                print(json.dumps(_json_row(row, Path(file).name), ensure_ascii=False), flush=True)
            elif row.error is None:
                lines = [f"  {p.probability:6.1%}  {p.label}" for p in row.predictions]
                print("\n".join([shown(row.path), *lines]), flush=True)
    return 1 if failed else 0


def _evaluate(a: argparse.Namespace) -> int:
    from ..data.open import open_dataset
    from ..hub.bundled import shipped_model
    from ..inference import confusion
    from ..inference.evaluate import evaluate
    from ..inference.model import load

    table_path = a.csv if a.csv in (None, "-") else _target(a.csv, a.force)
    picture = a.picture and confusion.named(_target(a.picture, a.force))
    file = a.model if a.model is not None else shipped_model()
    model = load(file, a.device, a.threads)
    data = open_dataset(a.data, a.split, a.broken, threads=model.ops.thread_count(a.threads))
    with _word_on_compiling(model.ops):
        count = _counter(len(data))
        found = evaluate(model, data, batch=a.batch, by_number=a.labels_by_number, progress=count)
        if count is not None and found.pictures < len(
            data
        ):  # some were skipped, so the count did not come to its end
            print(file=sys.stderr)
    if a.json:
        head = {"schema": SCHEMA, "data": a.data, "split": a.split, "model": Path(file).name}
        print(json.dumps(head | found.to_json(), ensure_ascii=False), flush=True)
    elif a.csv != "-":
        print(found, flush=True)  # before anything can go wrong with the files
    with _table(table_path) as table:
        if table is not None:
            table.writerows(found.table())
    if picture:
        title = f"{Path(file).name} on {Path(a.data).name}, {a.split}: {found.top1:.2%} of {found.pictures:,} right"
        confusion.write(picture, found.confusion, found.classes, title)
    return 0


def _convert(a: argparse.Namespace) -> int:
    from dataclasses import replace

    from ..checkpoints.convert import opened_checkpoint
    from ..store import store
    from .report import pictures

    stem, suffix = os.path.splitext(a.src)
    dst = a.dst or (
        f"{stem}.tinyresnext.h5" if suffix == ".h5" else f"{stem}.h5"
    )  # Keras' files end in .h5 too
    if Path(dst).suffix not in (".h5", ".hdf5"):
        raise UsageError(f"{dst!r} ends in {Path(dst).suffix!r}; a model file ends in .h5")
    dst = _target(dst, a.force, not_over=a.src)
    labels = _lines(a.labels) if a.labels else None
    asked = {name: getattr(a, name) for name in ("resize", "crop", "interpolation", "mean", "std")}
    given = {name: value for name, value in asked.items() if value is not None}
    opened = opened_checkpoint(
        a.src, arch=a.arch, stem=a.stem, labels=labels, ema=a.ema, licence=a.licence
    )
    with opened as (stored, notes):
        stored = stored._replace(preprocess=replace(stored.preprocess, **given))
        store.write(dst, stored, half=a.half)
    for note in notes:
        print(f"{shown(a.src)}: {note}", file=sys.stderr)
    print(
        f"{shown(a.src)}: {'given' if given else 'assumed'}: {pictures(stored.preprocess)}",
        file=sys.stderr,
    )
    print(dst)
    return 0


def _export(a: argparse.Namespace) -> int:
    from ..checkpoints import export, infer
    from ..hub.bundled import shipped_model
    from ..hub.catalogue import model_file
    from ..store import store

    writers = {
        ".pth": export.write_pth,
        ".safetensors": export.write_safetensors,
        ".npz": export.write_npz,
    }
    suffix = Path(a.dst).suffix
    if suffix not in writers:
        raise UsageError(f"{a.dst!r} ends in {suffix!r}; expected {', '.join(writers)}")
    src = model_file(a.src) if a.src is not None else shipped_model()
    stored = store.read(src)
    writers[suffix](_target(a.dst, a.force, not_over=src), stored.params)
    for word in infer.untold(stored.spec):
        print(
            f"{shown(a.dst)}: nothing in it tells that {word}; who reads it has to be told",
            file=sys.stderr,
        )
    print(a.dst)
    return 0


def _info(a: argparse.Namespace) -> int:
    from .weights import info

    print(info(a), end="")
    return 0


def _verify(a: argparse.Namespace) -> int:
    from ..ops import backend
    from .weights import verify

    with _word_on_compiling(backend(a.device)) if a.reference else nullcontext():
        passed, text = verify(a)
    print(text)
    return 0 if passed else 3


def _models(a: argparse.Namespace) -> int:
    from .weights import models

    print(models(a), end="")
    return 0


def _pull(a: argparse.Namespace) -> int:
    from .weights import pull

    print(pull(a))
    return 0


def _cache(a: argparse.Namespace) -> int:
    from ..ops import cpu
    from ..ops.cpu.runtime import cache

    if a.action != "warm" and a.pattern != "*":
        raise UsageError(
            f"{a.action} is of all kernels; leave out {a.pattern!r}, which is for warm"
        )
    if a.action == "clear":
        print(f"removed {cache.clear() / 2**20:.1f} MiB")
        return 0
    if a.action == "warm":
        from ..bench.warm import warm
        from ..inference.model import list_models
        from ..network.spec import VARIANTS

        names = [name for name in list_models(a.pattern) if name in VARIANTS]
        if not names:
            raise UsageError(
                f"no architecture matches {a.pattern!r}; `tinyresnext models` lists them all"
            )
        if problem := cache.problem():
            raise UsageError(
                f"compiled kernels cannot be kept: {problem}; TINYRESNEXT_HOME names another folder"
            )
        with _word_on_compiling(cpu):
            warm(cpu, names)
    for entry in cache.kept():
        what = "in use" if entry.current else "of another version or processor"
        print(f"{entry.folder}  {entry.files} kernels, {entry.bytes / 2**20:.1f} MiB, {what}")
    if problem := cache.problem():
        print(f"tinyresnext: nothing is kept: {problem}", file=sys.stderr)
    return 0


def _bench(a: argparse.Namespace) -> int:
    from ..bench.bench import bench, on_terminal, write
    from ..bench.tables import text

    report = bench(a.model, a.batch, a.size, a.threads, a.repeats, a.layers, on_terminal)
    on_terminal("")
    print(text(report), end="", flush=True)  # before anything can go wrong with the file
    if a.json:
        write(a.json, report)
    return 0


def _train(a: argparse.Namespace) -> int:
    from ..ops import backend
    from .train import train

    with _word_on_compiling(backend(a.device)):
        print(train(a))
    return 0


def _finetune(a: argparse.Namespace) -> int:
    from ..ops import backend
    from .train import finetune

    with _word_on_compiling(backend(a.device)):
        print(finetune(a))
    return 0


def _word_on_compiling(ops: Any) -> AbstractContextManager[None]:
    """On a terminal, say what takes so long."""
    if not sys.stderr.isatty():
        return nullcontext()
    text = "compiling kernels for this processor, once: it takes some seconds, and later runs start at once"
    return ops.when_compiling(lambda: print(f"tinyresnext: {text}", file=sys.stderr, flush=True))


def _target(path: str, force: bool, not_over: str | os.PathLike[str] | None = None) -> str:
    """Where to write: nothing that exists is lost unasked, and what is being read never."""
    if (
        not_over is not None
        and os.path.exists(path)
        and os.path.exists(not_over)
        and os.path.samefile(path, not_over)
    ):
        raise UsageError(f"{path!r} is the file to read; give another name to write to")
    if os.path.exists(path) and not force:
        raise UsageError(f"{path!r} exists; give another name, or --force to write over it")
    return path


def _lines(path: str) -> list[str]:
    """The lines of a text file."""
    with regular(path, error=UsageError) as file:
        text = file.read(MOST_LABELS)
    try:
        return text.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path!r} is not text in UTF-8; expected the name of one class a line"
        ) from error


@contextmanager
def _table(path: str | None) -> Iterator[Any]:
    """A CSV writer, or nothing when no table is wanted."""
    if path is None:
        yield None
        return
    try:
        # A file's name that is not UTF-8 is written as the bytes that it is.
        file = (
            None
            if path == "-"
            else open(path, "w", newline="", encoding="utf-8", errors="surrogateescape")
        )
    except OSError as error:
        raise UsageError(f"{path!r} cannot be written: {error.strerror}") from error
    with file or nullcontext(sys.stdout) as table:
        yield csv.writer(table)


def _csv_row(row: Row) -> list[Any]:
    """Path, error, and then label, index and probability of each guess."""
    return [row.path, row.error or "", *(value for guess in row.predictions for value in guess)]


def _json_row(row: Row, model: str) -> dict[str, Any]:
    """One picture as a JSON object."""
    head = {"schema": SCHEMA, "path": row.path, "model": model}
    if row.error is not None:
        return head | {"error": row.error}
    return head | {"predictions": [guess._asdict() for guess in row.predictions]}


def _progress(rows: Iterable[Row], total: int) -> Iterator[Row]:
    """Pass rows on, and count them on a terminal when there are many."""
    count = _counter(total)
    for done, row in enumerate(rows, 1):
        yield row
        if count is not None:
            count(done)


def _counter(total: int) -> Callable[[int], None] | None:
    """On a terminal, and when there are many: show how many are done."""
    if not sys.stderr.isatty() or total <= 16:
        return None
    return lambda done: print(
        f"\r{done} of {total}", end="" if done < total else "\n", file=sys.stderr, flush=True
    )


def _names_on_stdin() -> list[str]:
    """The lines of standard input."""
    try:
        text = sys.stdin.read() if sys.stdin is not None else ""
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            "standard input is not text; - expects the names of pictures there, one a line"
        )
    return text.splitlines()


_COMMANDS = {
    "classify": _classify,
    "evaluate": _evaluate,
    "convert": _convert,
    "export": _export,
    "info": _info,
    "verify": _verify,
    "models": _models,
    "pull": _pull,
    "cache": _cache,
    "bench": _bench,
    "train": _train,
    "finetune": _finetune,
}
