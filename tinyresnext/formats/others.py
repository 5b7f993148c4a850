"""Files that people mistake for checkpoints or images: what each is, and what to do instead.

A file is known by its first bytes, an archive by the names of its members.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .hdf5.form import SIGNATURE as HDF5
from .stored_zip.records import END_MAGIC

__all__ = ["RUN_STATE", "archive_kind", "file_kind", "packed_kind"]

RUN_STATE = (
    "the state of a training run; `tinyresnext train --resume FOLDER` (finetune, if that began it) "
    "goes on with the run, and its models lie beside the state: model.h5, best.h5, or stopped.h5 "
    "after a stop"
)
"""What a file is in which only a run finds its weights."""

_FLOAT = "use the checkpoint that it was made from (.pth or .safetensors)"
_IMAGE = "an image, not a checkpoint; give it to classify, and the file with the weights here"
_PACKED = {  # first bytes -> what it is and what to do
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with git lfs "
    "pull",
}
_BEGINNINGS = {
    HDF5: "an HDF5 file; open it as a model instead",
    **_PACKED,
    b"<": "a web page, not a checkpoint; check the address that it was downloaded from",
    b"\x93NUMPY": "a NumPy array; a checkpoint was expected",
    b"GGUF": f"a GGUF file, whose weights are quantised; {_FLOAT}",
    b"\xff\xd8\xff": _IMAGE,
    b"\x89PNG": _IMAGE,
    b"RIFF": _IMAGE,
    b"%PDF": "a PDF document; a checkpoint was expected",
    b"MATLAB 5.0": "a file of MATLAB, which is not read; save its arrays with numpy.savez",
    b"PAR1": "a Parquet table; a checkpoint was expected",
    END_MAGIC: "an empty zip archive",
}
_SCRIPT = re.compile(r"[^/]+/(?:constants\.pkl|code/.*)")
_EXPORTED = ("/archive_format", "/serialized_exported_program.json")
_CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")


def packed_kind(head: bytes) -> str:
    """Return how a file that begins so is packed and what to do, "" if it is not."""
    return next((what for start, what in _PACKED.items() if head.startswith(start)), "")


def file_kind(head: bytes) -> str:
    """Return what a file that begins so is and what to do, "" if it may be a checkpoint."""
    for start, what in _BEGINNINGS.items():
        if head.startswith(start):
            return what
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {_FLOAT}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return _BEGINNINGS[b"<"]
    if text.startswith(b"{") and b'"' in text[:64]:
        return "a JSON text without weights; name the file with the tensors"
    return ""


def archive_kind(names: Iterable[str]) -> str:
    """Return what a zip archive with these members is and what to do, "" if not known."""
    names = {*names}
    if any(_SCRIPT.fullmatch(name) for name in names):
        return (
            "a TorchScript archive, which is a program; save model.state_dict() instead of "
            "torch.jit.save"
        )
    if {"config.json", "model.weights.h5"} <= names:
        return (
            "a .keras file of Keras 3, which is not read; load it in Keras and save the model as "
            ".h5 (model.save('model.h5'))"
        )
    if any(name.endswith(_EXPORTED) for name in names):
        return (
            "a program that torch.export wrote; save model.state_dict() instead of "
            "torch.export.save"
        )
    inner = [name for name in sorted(names) if name.endswith(_CHECKPOINTS)]
    if inner and not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive with the file {ascii(inner[0])[:80]} in it; unpack it first"
    return ""
