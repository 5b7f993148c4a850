"""N: broken and malicious NumPy archives."""

from __future__ import annotations

import zlib

import foreign_files as ff
import numpy as np
from foreign_files import deflated, npy
from torch_files import Entry, Zip, numbers

from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

FOUR = numbers(4)


def npz(*members):
    """An archive of these members: name and bytes, or an entry."""
    entries = [m if isinstance(m, Entry) else Entry(f"{m[0]}.npy", m[1], flags=0) for m in members]
    return Zip(entries, zip64=False).build()


def literal(text, **lies):
    return npz(("w", npy(FOUR, text, **lies)))


def described(descr="<f4", order="False", shape="(4,)"):
    return literal(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")


def cases():
    """Names, and for each the file and the error."""
    good = npy(FOUR)
    plain = Entry("w.npy", good, flags=0)
    zeros = npy(np.zeros(1 << 24, np.float32))
    squeezed = ff.deflate(good)
    small = np.zeros(1000, np.float32)
    liar = lambda **lies: npz(deflated("w.npy", good, **lies))  # noqa: E731
    found = {
        "N-magic": (npz(("w", npy(FOUR, magic=b"\x94NUMPY"))), FormatError),
        "N-version_0": (npz(("w", npy(FOUR, version=b"\0\0"))), FormatError),
        "N-version_1.1": (npz(("w", npy(FOUR, version=b"\1\1"))), FormatError),
        "N-version_4": (npz(("w", npy(FOUR, version=b"\4\0"))), FormatError),
        "N-empty_member": (npz(("w", b"")), FormatError),
        "N-five_bytes": (npz(("w", b"\x93NUMP")), FormatError),
        "N-cut_in_length": (npz(("w", good[:9])), FormatError),
        "N-cut_in_header": (npz(("w", good[:40])), FormatError),
        "N-header_length_0": (npz(("w", npy(FOUR, length=0))), FormatError),
        "N-header_length_short": (npz(("w", npy(FOUR, length=50))), FormatError),
        "N-header_length_64K": (npz(("w", npy(FOUR, length=65535))), UnsafeError),
        "N-header_length_4G": (
            npz(("w", npy(FOUR, version=b"\2\0", length=(1 << 32) - 1))),
            UnsafeError,
        ),
        "N-header_of_1_MB": (
            npz(("w", npy(FOUR, version=b"\2\0", pad=b" " * 20_000))),
            UnsafeError,
        ),
        "N-call_in_header": (literal("__import__('os').system('x')"), FormatError),
        "N-call_in_shape": (described(shape="(exit(),)"), FormatError),
        "N-comprehension": (
            literal("{'descr': [0 for x in 'ab'], 'fortran_order': False, 'shape': (4,), }"),
            FormatError,
        ),
        "N-deep_header": (literal("{'descr': " + "(" * 1500 + ")" * 1500 + "}"), FormatError),
        "N-key_twice": (
            literal("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (4,), }"),
            FormatError,
        ),
        "N-key_missing": (literal("{'descr': '<f4', 'shape': (4,), }"), FormatError),
        "N-key_more": (
            literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': 1, }"),
            FormatError,
        ),
        "N-list_for_dict": (literal("['<f4', False, (4,)]"), FormatError),
        "N-nul_in_header": (
            literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\0"),
            FormatError,
        ),
        "N-after_header": (
            literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }; import os"),
            FormatError,
        ),
        "N-padding_of_zeros": (npz(("w", npy(FOUR, pad=b"\0"))), FormatError),
        "N-objects": (described("|O"), UnsafeError),
        "N-objects_8": (described("|O8"), UnsafeError),
        "N-record": (
            literal("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }"),
            FormatError,
        ),
        "N-big_endian": (described(">f4"), FormatError),
        "N-long_double": (described("<f16", shape="(1,)"), FormatError),
        "N-complex": (described("<c8", shape="(2,)"), FormatError),
        "N-text": (described("<U4", shape="(1,)"), FormatError),
        "N-bytes": (described("|S16", shape="(1,)"), FormatError),
        "N-void": (described("|V4"), FormatError),
        "N-date": (described("<M8", shape="(2,)"), FormatError),
        "N-type_of_9_digits": (described("<f999999999"), FormatError),
        "N-order_1": (described(order="1"), FormatError),
        "N-order_none": (described(order="None"), FormatError),
        "N-shape_list": (described(shape="[4]"), FormatError),
        "N-shape_number": (described(shape="4"), FormatError),
        "N-shape_int_in_brackets": (described(shape="(4)"), FormatError),
        "N-shape_negative": (described(shape="(-4,)"), FormatError),
        "N-shape_fraction": (described(shape="(4.0,)"), FormatError),
        "N-shape_long": (described(shape="(4L,)"), FormatError),
        "N-shape_octal": (described(shape="(04,)"), FormatError),
        "N-shape_underscore": (described(shape="(0_4,)"), FormatError),
        "N-shape_wraps": (described(shape="(4294967296, 4294967296, 4)"), FormatError),
        "N-shape_huge": (described(shape="(999999999999999999, 999999999999999999)"), FormatError),
        "N-shape_19_digits": (described(shape="(9999999999999999999,)"), FormatError),
        "N-nine_sides": (described(shape="(1, 1, 1, 1, 1, 1, 1, 1, 4)"), FormatError),
        "N-shape_too_small": (described(shape="(3,)"), FormatError),
        "N-shape_too_large": (described(shape="(5,)"), FormatError),
        "N-shape_scalar": (described(shape="()"), FormatError),
        "N-double_comma": (described(shape="(4,,)"), FormatError),
        "N-numbers_cut": (npz(("w", good[:-1])), FormatError),
        "N-numbers_more": (npz(("w", good + b"\0")), FormatError),
        "N-member_twice": (npz(plain, plain), UnsafeError),
        "N-member_hidden_pickle": (
            npz(plain, Entry("x.pkl", b"cos\nsystem\n", flags=0)),
            FormatError,
        ),
        "N-member_path": (npz(("../w", good)), UnsafeError),
        "N-member_absolute": (npz(("/w", good)), UnsafeError),
        "N-member_dunder": (npz(("__class__", good)), FormatError),
        "N-member_spaces": (npz(("a b", good)), FormatError),
        "N-member_no_name": (npz(("", good)), FormatError),
        "N-crc": (npz(Entry("w.npy", good, flags=0, crc=1)), IntegrityError),
        "N-crc_deflated": (liar(crc=1), IntegrityError),
        "N-bomb": (npz(deflated("w.npy", zeros)), UnsafeError),
        "N-bomb_of_half": (npz(deflated("w.npy", npy(np.zeros(1 << 24, np.float16)))), UnsafeError),
        "N-bomb_declared_small": (
            npz(Entry("w.npy", ff.deflate(zeros), flags=0, method=8, size=len(good))),
            WeightsError,
        ),
        "N-bomb_behind_the_end": (
            npz(
                Entry("w.npy", ff.deflate(good + bytes(1 << 24)), flags=0, method=8, size=len(good))
            ),
            UnsafeError,
        ),
        "N-bombs_many": (
            npz(*(deflated(f"w{i}.npy", npy(np.zeros(1 << 20, np.float32))) for i in range(20))),
            UnsafeError,
        ),
        "N-declared_longer": (liar(size=len(good) + 4), FormatError),
        "N-declared_shorter": (liar(size=len(good) - 4), UnsafeError),
        "N-declared_4_GB": (liar(size=0xFFFFFFF0), FormatError),
        "N-deflate_cut": (
            npz(
                Entry(
                    "w.npy", squeezed[:-3], flags=0, method=8, size=len(good), crc=zlib.crc32(good)
                )
            ),
            FormatError,
        ),
        "N-deflate_noise": (
            npz(Entry("w.npy", b"\xff" * 50, flags=0, method=8, size=len(good))),
            FormatError,
        ),
        "N-deflate_trailing": (
            npz(
                Entry(
                    "w.npy",
                    squeezed + b"hidden",
                    flags=0,
                    method=8,
                    size=len(good),
                    crc=zlib.crc32(good),
                )
            ),
            UnsafeError,
        ),
        "N-deflate_two_streams": (
            npz(
                Entry(
                    "w.npy", squeezed * 2, flags=0, method=8, size=len(good), crc=zlib.crc32(good)
                )
            ),
            UnsafeError,
        ),
        "N-zlib_header": (
            npz(Entry("w.npy", zlib.compress(good), flags=0, method=8, size=len(good))),
            FormatError,
        ),
        "N-bzip2": (npz(Entry("w.npy", good, flags=0, method=12)), FormatError),
        "N-encrypted": (npz(Entry("w.npy", good, flags=1)), FormatError),
        "N-overlap": (npz(plain, Entry("v.npy", good, flags=0, header=0)), UnsafeError),
        "N-hidden_bytes": (
            npz(Entry("w.npy", good, flags=0, after=b"hidden"), ("v", good)),
            UnsafeError,
        ),
        "N-symlink": (
            npz(Entry("w.npy", good, flags=0, made_by=0x031E, attributes=0o120777 << 16)),
            UnsafeError,
        ),
        "N-suffix": (npz(plain) + b"\0", FormatError),
        "N-comment": (Zip([plain], zip64=False, comment=b"x").build(), FormatError),
        "N-cut": (npz(plain)[:-10], FormatError),
        "N-double_beyond": (npz(("w", npy(np.array([1e300])))), IntegrityError),
        "N-truth_of_2": (described("|b1", shape="(16,)"), IntegrityError),
        "N-last_of_many_damaged": (
            npz(
                *((f"w{i}", npy(small)) for i in range(50)),
                Entry("z.npy", npy(small), flags=0, crc=5),
            ),
            IntegrityError,
        ),
    }
    return found
