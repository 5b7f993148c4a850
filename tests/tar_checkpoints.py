"""Checkpoints in PyTorch's first format, a tar archive, written byte by byte."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import dataclass, field

import numpy as np
from torch_files import SYSTEM, glob, integer, marked, pickled, text


def stop(code):
    return b"\x80\x02" + code + b"."


@dataclass
class Tar:
    """The parts of an archive, to be changed before ``build``."""

    storages: list = field(default_factory=lambda: [(100, "Float", np.arange(20, dtype="<f4"))])
    views: list = field(default_factory=lambda: [(101, 100, 4, 10)])
    tensors: list = field(
        default_factory=lambda: [(200, 100, 0, (2, 3), (3, 1)), (201, 101, 1, (3, 2), (1, 3))]
    )
    top: bytes = b"}(" + text("a.w") + text("200") + b"Q" + text("b.w") + text("201") + b"Qu"
    system: dict = field(default_factory=lambda: {**SYSTEM, "protocol_version": 1000})
    extra: dict = field(default_factory=dict)  # further members, or others in their place
    count: int | None = None

    def members(self):
        data = stop(integer(len(self.storages) if self.count is None else self.count))
        for key, kind, numbers in self.storages:
            entry = marked(integer(key), text("cpu"), glob("torch", f"{kind}Storage"))
            data += stop(entry) + struct.pack("<q", numbers.size) + numbers.tobytes()
        views = b"](" + b"".join(marked(*map(integer, one)) for one in self.views) + b"e"
        tensors = stop(integer(len(self.tensors)))
        for key, of, offset, size, stride in self.tensors:
            entry = marked(integer(key), integer(of), glob("torch", "FloatTensor"))
            # PyTorch wrote eight bytes of which four were the number
            numbers = struct.pack("<iI", len(size), 0xDEADBEEF)
            tensors += stop(entry) + numbers + struct.pack(f"<{len(size)}q", *size)
            tensors += struct.pack(f"<{len(stride)}q", *stride) + struct.pack("<q", offset)
        return {
            "sys_info": pickled(self.system),
            "pickle": stop(self.top),
            "tensors": tensors,
            "storages": data + stop(views),
        } | self.extra

    def build(self):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
            for name, data in self.members().items():
                if data is not None:
                    member = tarfile.TarInfo(name)
                    # a fraction of a second makes an extended header, as it did then
                    member.size, member.mtime = len(data), 1480000000.25
                    archive.addfile(member, io.BytesIO(data))
        return file.getvalue()
