"""The commands `convert`, `export` and `verify`: files of weights in, out, and checked."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from ...errors import UsageError
from ...system.checks import check_ending
from ...system.console import plain, tell
from ...system.files import shown
from ..options import (
    Commands,
    add_command,
    add_device,
    add_force,
    add_head,
    add_normalisation,
    add_stem,
    add_untold,
    braces,
    positive,
    word,
)
from ..output.progress import announce_compiling
from ..output.tables import target
from . import export, quantise
from .labels import read_labels

INTERPOLATIONS = ("bilinear", "bicubic", "torch7", "keras")


def add_commands(commands: Commands) -> None:
    """Add the parsers of `convert`, `export`, `quantise` and `verify`."""
    sentence = "Turn a checkpoint of another system into a model file."
    example = "tinyresnext convert resnext50_32x4d-7cdf4587.pth"
    add_command(commands, "convert", sentence, example, _add_convert, _convert)
    sentence = "Turn a model file back into a checkpoint, or into an ONNX graph."
    example = "tinyresnext export best.h5 best.safetensors"
    add_command(commands, "export", sentence, example, export.add_options, _export)
    sentence = "Round a model to 8 bits, with scales that are found on images."
    example = "tinyresnext quantise best.h5 --images photos/ -o best.int8.h5"
    add_command(commands, "quantise", sentence, example, quantise.add_options, quantise.run)
    sentence = "Check a model file, and compare its logits with a reference."
    example = "tinyresnext verify best.h5"
    add_command(commands, "verify", sentence, example, _add_verify, _verify)


# --- convert --------------------------------------------------------------------------------------


def _add_convert(c: argparse.ArgumentParser) -> None:
    """Add the options of `convert`."""
    c.add_argument(
        "src",
        metavar="SRC",
        help="a checkpoint: .pth, .safetensors, .npz, .t7 or Keras' .h5, with the names of any "
        "known system; or an .onnx graph, a folder as the Hugging Face Hub has them, its "
        "config.json or index",
    )
    c.add_argument(
        "dst",
        nargs="?",
        metavar="DST.h5",
        help="by default beside SRC: its name with .h5, or .tinyresnext.h5",
    )
    c.add_argument(
        "--arch", metavar="NAME", help="the architecture, where the tensors leave it open"
    )
    add_stem(c, "the first layers, where they leave it open: pooled for a 3x3 with a pooling")
    add_head(c, "what the outputs mean (a softmax; for a single output, a sigmoid)")
    add_untold(c)
    c.add_argument(
        "--ema", action="store_true", help="take the averaged weights of a training checkpoint"
    )
    c.add_argument(
        "--key",
        metavar="NAME",
        help="where a .pth file has the weights, such as model or ema.model (found by default)",
    )
    c.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what stands before the names of the network, such as encoder. (found by default)",
    )
    c.add_argument(
        "--labels",
        metavar="FILE",
        help="a text file with the name of one class a line, or a JSON list or object of names",
    )
    c.add_argument(
        "--licence",
        default="",
        metavar="TEXT",
        help="licence of the weights, which is kept with them",
    )
    _add_preprocessing(c)
    c.add_argument(
        "--half",
        action="store_true",
        help="keep the weights in half precision: half the size, slightly rounded",
    )
    add_force(c, "DST")


def _add_preprocessing(c: argparse.ArgumentParser) -> None:
    """Add the options that say how the model prepares images."""
    c.add_argument(
        "--resize",
        type=positive,
        metavar="N",
        help="shorter side of an image before the crop (as the system of SRC: mostly 256, "
        "Keras 224, CIFAR 32)",
    )
    c.add_argument(
        "--crop",
        type=positive,
        metavar="N",
        help="side of the square that the network sees (as that system: mostly 224, CIFAR 32)",
    )
    c.add_argument(
        "--interpolation",
        type=word(INTERPOLATIONS),
        metavar=braces(INTERPOLATIONS),
        help="how images are resized (as that system: mostly bilinear)",
    )
    add_normalisation(c)


def _convert(a: argparse.Namespace) -> int:
    """Convert a checkpoint, and say what was understood of it."""
    from dataclasses import replace

    from ...checkpoints.convert import opened_checkpoint
    from ...checkpoints.notes import prepared
    from ...store import store

    dst = target(_model_name(a.src, a.dst), a.force, not_over=a.src)
    labels = None if a.labels is None else read_labels(a.labels)
    asked = {name: getattr(a, name) for name in ("resize", "crop", "interpolation", "mean", "std")}
    given = {name: value for name, value in asked.items() if value is not None}
    opened = opened_checkpoint(
        a.src,
        arch=a.arch,
        stem=a.stem,
        head=a.head,
        blur_pool=a.blur_pool,
        output_stride=a.output_stride,
        labels=labels,
        ema=a.ema,
        licence=a.licence,
        key=a.key,
        prefix=a.prefix,
    )
    with opened as (stored, notes):
        stored = stored._replace(preprocess=replace(stored.preprocess, **given))
        store.write(dst, stored, half=a.half)
    options, whole = [f"--{name}" for name in given], len(given) == len(asked)
    for note in (*notes, prepared(notes, stored, options, whole)):
        tell(plain(f"{shown(a.src)}: {note}"))
    print(shown(dst))
    return 0


def _model_name(src: str, dst: str | None) -> str:
    """Return the name of the model file to write; raise `UsageError` if it is no such name."""
    from ...store.store import check_name

    stem, suffix = os.path.splitext(src)
    if os.path.isdir(src):
        stem = os.path.abspath(src) if Path(src).name in ("", "..") else os.path.normpath(src)
    elif suffix == ".json":  # the config or the index of a folder of a hub
        stem = os.path.join(os.path.dirname(src), "model")
    if not dst:
        # Keras' files end in .h5 too.
        dst = f"{stem}.tinyresnext.h5" if suffix == ".h5" else f"{stem}.h5"
    check_name(dst)
    return dst


def _export(a: argparse.Namespace) -> int:
    """Export a model."""
    return export.run(a, _model_file)


def _model_file(name: str | None) -> str | os.PathLike[str]:
    """Return the file of a model by its name or path, or of the bundled model if there is none."""
    from ...hub.bundled import shipped_model
    from ...hub.catalogue import model_file

    return model_file(name) if name is not None else shipped_model()


# --- verify ---------------------------------------------------------------------------------------


def _add_verify(c: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    c.add_argument("file", nargs="?", metavar="NAME|FILE", help="a model (the bundled model)")
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
    add_force(c, "the reference")
    add_device(c, precision=True)


def _verify(a: argparse.Namespace) -> int:
    """Check a model; return 3 if it is not what it should be."""
    from ...inference.verify import verify
    from ...ops import backend

    compares = a.reference is not None
    with announce_compiling(backend(a.device, a.precision)) if compares else nullcontext():
        file = _model_file(a.file)
        if a.make_reference is not None:
            return _make_reference(file, a)
        if a.with_torch or a.force:
            raise UsageError("--with-torch and --force are for --make-reference")
        if not compares and _computes(a):
            raise UsageError(
                "--device, --precision and --threads are for --reference: without it, nothing is "
                "computed"
            )
        found = verify(file, a.reference, a.device, a.threads, a.precision)
    print(found)
    return 0 if found.passed else 3


def _computes(a: argparse.Namespace) -> bool:
    """Return whether it is said on what to compute, and how."""
    return a.threads is not None or (a.device, a.precision) != ("cpu", "float32")


def _make_reference(file: str | os.PathLike[str], a: argparse.Namespace) -> int:
    """Write a reference file for `verify`."""
    from ...inference.verify import make_reference

    if _computes(a):
        raise UsageError(
            "--device, --precision and --threads are for --reference; a reference is made by plain "
            "NumPy, or with --with-torch"
        )
    check_ending(a.make_reference, (".npz",), "a reference (NumPy)")
    to = target(a.make_reference, a.force, not_over=file)
    error = make_reference(file, to, with_torch=a.with_torch)
    print(
        f"{shown(to)}: float64; float32 may be off by {error:.1e} of the largest logit",
        file=sys.stderr,
    )
    print(shown(to))
    return 0
