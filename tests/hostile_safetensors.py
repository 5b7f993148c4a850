"""S: broken and malicious safetensors files."""

from __future__ import annotations

import json
import struct

import numpy as np
from foreign_files import safetensors
from torch_files import numbers

from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

FOUR = numbers(4)
DATA = FOUR.tobytes()


def safe(dtype="F32", shape=(4,), offsets=(0, 16), data=DATA, **more):
    """One tensor, described in any way."""
    head = {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | more}
    return safetensors(head, data)


def two(first, second, size=32):
    """Two tensors of four floats at any offsets."""
    entries = [{"dtype": "F32", "shape": [4], "data_offsets": list(at)} for at in (first, second)]
    return safetensors(dict(zip(("a", "b"), entries, strict=True)), bytes(size))


def entry(text, data=bytes(16)):
    """One tensor whose description is given as JSON."""
    return safetensors(b'{"w":' + text.encode() + b"}", data)


def cases():
    """Names, and for each the file and the error."""
    good = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    w = json.loads(good)
    return {
        "S-length_only": (struct.pack("<Q", 2) + b"{", FormatError),
        "S-length_0": (safetensors(b"", b"{}", length=0), FormatError),
        "S-length_1": (safetensors(b"{", b"}" * 20, length=1), FormatError),
        "S-length_beyond_file": (safetensors({"w": w}, b"", length=1000), FormatError),
        "S-length_1_too_long": (
            safetensors({"w": w}, b"", length=len(json.dumps({"w": w})) + 1),
            FormatError,
        ),
        "S-length_2_40": (safetensors({"w": w}, bytes(16), length=1 << 39), FormatError),
        "S-length_2_63": (safetensors({"w": w}, bytes(16), length=1 << 63), FormatError),
        "S-length_minus_1": (safetensors({"w": w}, bytes(16), length=(1 << 64) - 1), FormatError),
        "S-header_of_3_MB": (
            safetensors(b'{"w":' + good.encode() + b" " * (3 << 20) + b"}", bytes(16)),
            UnsafeError,
        ),
        "S-header_fills_memory": (
            safetensors(b'{"w":[' + b"[]," * 690_000 + b"0]}", b""),
            WeightsError,
        ),
        "S-header_of_dicts": (
            safetensors(b'{"w":[' + b"{}," * 690_000 + b"0]}", b""),
            WeightsError,
        ),
        "S-not_utf8": (safetensors(b'{"\xff":1}', b""), FormatError),
        "S-utf16": (safetensors("{}".encode("utf-16-le"), b""), FormatError),
        "S-overlong_utf8": (safetensors(b'{"\xc0\xaf":1}', b""), FormatError),
        "S-array": (safetensors(b"{}]", b""), FormatError),
        "S-two_objects": (safetensors(b"{}{}", b""), FormatError),
        "S-cut_json": (safetensors(b'{"w":' + good.encode(), bytes(16)), FormatError),
        "S-trailing_comma": (safetensors(b'{"w":' + good.encode() + b",}", bytes(16)), FormatError),
        "S-comment": (safetensors(b'{"w":' + good.encode() + b"/**/}", bytes(16)), FormatError),
        "S-single_quotes": (safetensors(b"{'w':1}", b""), FormatError),
        "S-deep": (
            safetensors(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
            FormatError,
        ),
        "S-deep_objects": (safetensors(b'{"w":' * 50_000 + b"1" + b"}" * 50_000, b""), FormatError),
        "S-key_twice": (
            safetensors(b'{"w":' + good.encode() + b',"w":' + good.encode() + b"}", bytes(16)),
            UnsafeError,
        ),
        "S-key_twice_escaped": (
            safetensors(b'{"w":' + good.encode() + b',"\\u0077":1}', bytes(16)),
            UnsafeError,
        ),
        "S-dtype_twice": (entry(good[:-1] + ',"dtype":"F16"}'), UnsafeError),
        "S-metadata_twice": (
            safetensors(b'{"__metadata__":{},"__metadata__":{}}', b""),
            UnsafeError,
        ),
        "S-metadata_number": (
            safetensors({"__metadata__": {"a": 1}, "w": w}, bytes(16)),
            FormatError,
        ),
        "S-metadata_nested": (
            safetensors({"__metadata__": {"a": {}}, "w": w}, bytes(16)),
            FormatError,
        ),
        "S-metadata_list": (safetensors({"__metadata__": [], "w": w}, bytes(16)), FormatError),
        "S-metadata_null": (safetensors({"__metadata__": None, "w": w}, bytes(16)), FormatError),
        "S-nan": (entry(good.replace("[4]", "[NaN]")), FormatError),
        "S-infinity": (entry(good.replace("[4]", "[Infinity]")), FormatError),
        "S-fraction": (entry(good.replace("[4]", "[4.0]")), FormatError),
        "S-exponent": (entry(good.replace("[4]", "[4e0]")), FormatError),
        "S-5000_digits": (entry(good.replace("[4]", "[" + "9" * 5000 + "]")), FormatError),
        "S-true_for_1": (safe("F32", [True, 4]), FormatError),
        "S-text_for_number": (safe("F32", ["4"]), FormatError),
        "S-shape_null": (entry(good.replace("[4]", "null")), FormatError),
        "S-shape_object": (entry(good.replace("[4]", "{}")), FormatError),
        "S-negative_side": (safe(shape=[-4]), FormatError),
        "S-negative_sides": (safe(shape=[-2, -2]), FormatError),
        "S-side_2_63": (safe(shape=[1 << 63]), FormatError),
        "S-product_wraps_64_bits": (safe(shape=[1 << 32, 1 << 32, 4]), FormatError),
        "S-product_wraps_to_0": (safe(shape=[1 << 62, 4], offsets=[0, 0], data=b""), FormatError),
        "S-million_sides": (safe(shape=[1] * 100_000), FormatError),
        "S-nine_sides": (safe(shape=[1] * 8 + [4]), FormatError),
        "S-shape_too_small": (safe(shape=[3]), FormatError),
        "S-shape_too_large": (safe(shape=[5]), FormatError),
        "S-scalar_of_16_bytes": (safe(shape=[]), FormatError),
        "S-type_too_narrow": (safe("F16"), FormatError),
        "S-type_unknown": (safe("F33"), FormatError),
        "S-type_lower_case": (safe("f32"), FormatError),
        "S-type_number": (safe(32), FormatError),
        "S-type_list": (safe(["F32"]), FormatError),
        "S-type_null": (safe(None), FormatError),
        "S-type_8_bits": (safe("F8_E4M3", [16]), FormatError),
        "S-type_4_bits": (safe("F4", [32]), FormatError),
        "S-type_complex": (safe("C64", [2]), FormatError),
        "S-offsets_reversed": (safe(offsets=[16, 0]), FormatError),
        "S-offsets_negative": (safe(offsets=[-16, 0]), FormatError),
        "S-offsets_three": (safe(offsets=[0, 16, 16]), FormatError),
        "S-offsets_one": (safe(offsets=[16]), FormatError),
        "S-offsets_none": (safe(offsets=[]), FormatError),
        "S-offsets_beyond": (safe(offsets=[16, 32]), FormatError),
        "S-offsets_2_62": (safe(offsets=[1 << 62, (1 << 62) + 16]), FormatError),
        "S-overlap_whole": (two((0, 16), (0, 16)), UnsafeError),
        "S-overlap_part": (two((0, 16), (8, 24)), UnsafeError),
        "S-overlap_whole_to_the_end": (two((0, 16), (0, 16), 16), UnsafeError),
        "S-overlap_part_to_the_end": (two((0, 16), (8, 24), 24), UnsafeError),
        "S-hole_at_the_front": (two((4, 20), (20, 36), 36), UnsafeError),
        "S-hole_between": (two((0, 16), (20, 36), 36), UnsafeError),
        "S-hole_at_the_end": (two((0, 16), (16, 32), 33), UnsafeError),
        "S-polyglot": (safe(data=FOUR.tobytes() + b"PK\3\4" + bytes(100)), UnsafeError),
        "S-cut_by_1": (safe(data=FOUR.tobytes()[:-1]), FormatError),
        "S-no_numbers": (safe(data=b""), FormatError),
        "S-no_tensors": (safetensors(b"{}", b""), FormatError),
        "S-only_metadata": (safetensors({"__metadata__": {"format": "pt"}}, b""), FormatError),
        "S-entry_text": (safetensors({"w": "F32"}, b""), FormatError),
        "S-entry_missing_shape": (
            safetensors({"w": {"dtype": "F32", "data_offsets": [0, 16]}}, bytes(16)),
            FormatError,
        ),
        "S-entry_with_more": (safe(code="import os"), FormatError),
        "S-name_path": (safetensors({"../w": w}, bytes(16)), FormatError),
        "S-name_dunder": (safetensors({"__class__": w}, bytes(16)), FormatError),
        "S-name_empty": (safetensors({"": w}, bytes(16)), FormatError),
        "S-name_long": (safetensors({"w" * 1000: w}, bytes(16)), FormatError),
        "S-name_newline": (safetensors({"w\n": w}, bytes(16)), FormatError),
        "S-name_surrogate": (
            safetensors(b'{"\\ud800":' + good.encode() + b"}", bytes(16)),
            FormatError,
        ),
        "S-name_nul": (safetensors({"w\0": w}, bytes(16)), FormatError),
        "S-25000_tensors": (
            safetensors(
                {
                    f"w{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
                    for i in range(25_000)
                },
                b"",
            ),
            UnsafeError,
        ),
        "S-truth_of_2": (safe("BOOL", [2], [0, 2], b"\1\2"), IntegrityError),
        "S-double_beyond": (
            safe("F64", [2], [0, 16], np.array([1, 1e300]).tobytes()),
            IntegrityError,
        ),
    }
