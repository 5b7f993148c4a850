"""Load and save models, and list their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..data.dataset import to_stderr
from ..errors import DeviceError, UsageError
from ..hub import catalogue
from ..hub.bundled import shipped_model
from ..images.preprocess import Preprocess
from ..network.spec import VARIANTS, Spec
from ..ops import backend, backend_of, integer
from ..store import store
from ..store.contents import documents_of
from ..store.digest import model_digest
from ..store.weights import Weights, sha256_of
from ..system.files import shown
from ..system.words import matching
from ..system.writing import NewName, present
from .model import Model


def load(
    name: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
) -> Model:
    """Read a model file.

    Parameters
    ----------
    name : str or path, optional
        A file that `save` or ``tinyresnext convert`` wrote, or the name of a model that
        ``tinyresnext pull`` fetched, such as ``resnext50_32x4d.a1h_in1k``; by default the bundled
        model, whose name is ``tinyresnext_cifar10``.
    device : {"cpu", "cuda", "cuda:N", "auto", "reference"}
        ``reference`` computes with plain NumPy.
    threads : int, optional
        The number of threads to compute on; by default, one for each core that this process may
        use (affinity and quota).
    precision : {"float32", "float16", "bfloat16", "int8"}
        What activations and weights are stored in while the network computes; sums are float32.
        ``float16`` needs an NVIDIA GPU, and ``bfloat16`` on one compute capability 8.0.
        The file stays as it is. A quantised model computes with integers of 8 bits, on all devices,
        whether ``int8`` is given or nothing, and is for no other precision.

    Raises
    ------
    WeightsError
        The file does not exist or cannot be used.
    UsageError
        The named model is not on this computer, the backend cannot use that many threads, there is
        no such precision, or it is ``int8`` and the file is not quantised.
    DeviceError
        There is no such device, or it does not compute in this precision.
    """
    ops = backend_of(device, precision)
    if name is None:
        name = shipped_model()
    count = ops.thread_count(threads)
    file = catalogue.model_file(name)
    stored, quantisation = store.read_any(file)
    if quantisation is not None:
        if precision not in ("float32", "int8"):
            raise DeviceError(
                f"{shown(file)} is quantised and computes with integers of 8 bits, and {precision} "
                "is asked for; leave out the precision, or use the model that it was made of"
            )
        integer(ops)
    elif precision == "int8":
        raise UsageError(
            f"{shown(file)} is not quantised, and int8 is asked for; `tinyresnext quantise` makes "
            "of it a file that is"
        )
    return Model(*stored, ops, count, quantisation)


def load_checkpoint(
    path: str | os.PathLike[str],
    arch: str | Spec | None = None,
    device: str = "cpu",
    *,
    threads: int | None = None,
    precision: str = "float32",
    stem: str | None = None,
    head: str | None = None,
    blur_pool: str | None = None,
    output_stride: int | None = None,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    ema: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    warn: Callable[[str], None] = to_stderr,
) -> Model:
    """Read a checkpoint of any supported format as a model, without writing a file.

    What is assumed of the network, and which weights of the file are not taken, is said by
    ``warn``.

    Parameters
    ----------
    path : str or path
    arch : str or Spec, optional
        The architecture; by default it is inferred from the tensors.
    device, threads, precision
        As for `load`; no checkpoint is ``int8``.
    stem, head : str, optional
        The stem, where the tensors leave it open, and what the outputs mean; `opened_checkpoint`
        describes both.
    blur_pool : {"none", "binomial", "average"}, optional
    output_stride : int, optional
        What no tensor tells: the blur pooling, and the output stride of a dilated network.
    preprocess : Preprocess, optional
    labels : sequence of str, optional
        How images are prepared, and the names of the classes, where the file does not say them or
        says others; `opened_checkpoint` describes both.
    ema : bool
        Take the averaged weights of a training checkpoint that has them beside the plain ones.
    key, prefix : str, optional
        The key under which the file has the state dict, and what stands before the names of its
        tensors; both are found by default.
    warn : callable
        Takes one line for each of these; by default it prints the line to stderr.

    Raises
    ------
    WeightsError
        The file cannot be used.
    UsageError
        ``arch``, ``stem``, ``labels`` or ``preprocess`` does not fit the network; nothing lies
        under ``key`` or behind ``prefix``; there are no averaged weights; or as for `load`.
    DeviceError
        There is no such device, or it does not compute in this precision.
    """
    from ..checkpoints.convert import opened_checkpoint  # it has many readers
    from ..checkpoints.notes import Doubt, prepared

    ops = backend(device, precision)
    count = ops.thread_count(threads)
    opened = opened_checkpoint(
        path, arch=arch, stem=stem, head=head, blur_pool=blur_pool, output_stride=output_stride,
        preprocess=preprocess, labels=labels, ema=ema, key=key, prefix=prefix,
    )  # fmt: skip
    with opened as (stored, told):
        stored = stored._replace(params=Weights(stored.params))
    for note in (*told, prepared(told, stored, whole=preprocess is not None)):
        if isinstance(note, Doubt):
            warn(f"{shown(path)}: {note}")
    return Model(*stored, ops, count)


def check_model(model: object) -> Model:
    """Return a model.

    Raises
    ------
    UsageError
        It is something else, such as the name of one.
    """
    if not isinstance(model, Model):
        raise UsageError(
            f"a model was expected, found {type(model).__name__}; tinyresnext.load reads one"
        )
    return model


def save(model: Model, path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write one HDF5 file with weights, architecture, labels, preprocessing and provenance.

    Parameters
    ----------
    model : Model
    path : path
        Its name ends in ``.h5`` or ``.hdf5``; `export` writes the files of other programs. A file
        of this name is written over, in one step.
    half : bool
        Store the weights of convolutions and of the classifier in half precision: the file is half
        as large, and its predictions are those of the rounded weights.

    Raises
    ------
    WeightsError
        `load` would refuse the file: a tensor or the number of labels does not fit the
        architecture, or a weight is not finite.
    UsageError
        The file cannot be written, its name ends otherwise, or ``model`` is none.
    """
    contents = contents_of(model)
    store.check_name(path)
    store.write(path, contents, half=half, quantisation=model.quantisation)


def export(
    model: Model,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    opset: int | None = None,
    fold: bool | None = None,
    batch: int | None = None,
    precision: str | None = None,
) -> list[str]:
    """Write a model for other programs: ``.pth``, ``.safetensors``, ``.npz`` or ``.onnx``.

    Parameters
    ----------
    model : Model
        A quantised one is written as ``.onnx`` only.
    path : path
        The ending of its name says what is written.
    force : bool
        Whether an existing file may be replaced.
    opset : int, optional
        Only for ``.onnx``: the version of ONNX's operators, 9 to 20; by default 17.
    fold : bool, optional
        Only for ``.onnx``: fold batch norms into the convolutions, which rounds their weights.
    batch : int, optional
        Only for ``.onnx``: images in a mini-batch; by default any number.
    precision : {"float32", "float16"}, optional
        Only for ``.onnx``: of weights and computation; input and output stay float32.

    Returns
    -------
    list of str
        What the users of the file should know, such as what the tensors do not record.

    Raises
    ------
    WeightsError
        `save` would refuse the model.
    UsageError
        The file exists or cannot be written, its name ends otherwise, an option is for other files
        or out of range, or ``model`` is none.
    """
    from ..checkpoints.export import check_options
    from ..checkpoints.export import export as write

    contents = contents_of(model)
    given = {"opset": opset, "fold": fold, "batch": batch, "precision": precision}
    check_options(path, **given)
    remedy = "give another name, or force=True"
    if present(path) and not force:
        raise UsageError(f"{os.fspath(path)!r} exists; {remedy}")
    store.check_tensors(contents)
    name = path if force else NewName(os.fsdecode(path), remedy)
    return write(name, contents, model.quantisation, **given)


def contents_of(model: Model) -> store.Stored:
    """Return what the file of a model holds.

    Raises
    ------
    UsageError
        It is no model.
    """
    return store.Stored(
        check_model(model).spec, model.params, model.preprocess, model.labels, model.provenance
    )


def digest_of(model: Model) -> str:
    """Return the digest of everything that decides a model's predictions, as its file has it."""
    found = contents_of(model)
    sha256 = {name: sha256_of(model.params, name) for name in model.params}
    return model_digest(documents_of(found, model.quantisation), model.spec, sha256)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the architectures, then of the models, that match a pattern.

    The first model is the bundled one; the others are published.

    Parameters
    ----------
    pattern : str
        Part of a name, such as ``resnext50``, or a pattern as in a shell, such as ``*_in1k``.

    Raises
    ------
    UsageError
        ``pattern`` is no text.
    """
    return matching(pattern, VARIANTS) + catalogue.names(pattern)
