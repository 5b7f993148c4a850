"""Broken and malicious files of the other containers: S (safetensors), N (npz), T (Torch7) and H (Keras' HDF5)."""

from __future__ import annotations

import json
import struct
import zlib

import foreign_files as ff
import numpy as np
from foreign_files import Lua, again, deflated, integer, longs, lua_text, npy, number, safetensors, text
from torch_files import Entry, Zip, numbers

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


def safetensors_cases():
    good = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    w = json.loads(good)
    return {
        "S-length_only": (struct.pack("<Q", 2) + b"{", FormatError),
        "S-length_0": (safetensors(b"", b"{}", length=0), FormatError),
        "S-length_1": (safetensors(b"{", b"}" * 20, length=1), FormatError),
        "S-length_beyond_file": (safetensors({"w": w}, b"", length=1000), FormatError),
        "S-length_1_too_long": (safetensors({"w": w}, b"", length=len(json.dumps({"w": w})) + 1), FormatError),
        "S-length_2_40": (safetensors({"w": w}, bytes(16), length=1 << 39), FormatError),
        "S-length_2_63": (safetensors({"w": w}, bytes(16), length=1 << 63), FormatError),
        "S-length_minus_1": (safetensors({"w": w}, bytes(16), length=(1 << 64) - 1), FormatError),
        "S-header_of_3_MB": (safetensors(b'{"w":' + good.encode() + b" " * (3 << 20) + b"}", bytes(16)), UnsafeError),
        "S-header_fills_memory": (safetensors(b'{"w":[' + b"[]," * 690_000 + b"0]}", b""), WeightsError),
        "S-header_of_dicts": (safetensors(b'{"w":[' + b"{}," * 690_000 + b"0]}", b""), WeightsError),
        "S-not_utf8": (safetensors(b'{"\xff":1}', b""), FormatError),
        "S-utf16": (safetensors("{}".encode("utf-16-le"), b""), FormatError),
        "S-overlong_utf8": (safetensors(b'{"\xc0\xaf":1}', b""), FormatError),
        "S-array": (safetensors(b"{}]", b""), FormatError),
        "S-two_objects": (safetensors(b"{}{}", b""), FormatError),
        "S-cut_json": (safetensors(b'{"w":' + good.encode(), bytes(16)), FormatError),
        "S-trailing_comma": (safetensors(b'{"w":' + good.encode() + b",}", bytes(16)), FormatError),
        "S-comment": (safetensors(b'{"w":' + good.encode() + b"/**/}", bytes(16)), FormatError),
        "S-single_quotes": (safetensors(b"{'w':1}", b""), FormatError),
        "S-deep": (safetensors(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), FormatError),
        "S-deep_objects": (safetensors(b'{"w":' * 50_000 + b"1" + b"}" * 50_000, b""), FormatError),
        "S-key_twice": (safetensors(b'{"w":' + good.encode() + b',"w":' + good.encode() + b"}", bytes(16)), UnsafeError),
        "S-key_twice_escaped": (safetensors(b'{"w":' + good.encode() + b',"\\u0077":1}', bytes(16)), UnsafeError),
        "S-dtype_twice": (entry(good[:-1] + ',"dtype":"F16"}'), UnsafeError),
        "S-metadata_twice": (safetensors(b'{"__metadata__":{},"__metadata__":{}}', b""), UnsafeError),
        "S-metadata_number": (safetensors({"__metadata__": {"a": 1}, "w": w}, bytes(16)), FormatError),
        "S-metadata_nested": (safetensors({"__metadata__": {"a": {}}, "w": w}, bytes(16)), FormatError),
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
        "S-entry_missing_shape": (safetensors({"w": {"dtype": "F32", "data_offsets": [0, 16]}}, bytes(16)), FormatError),
        "S-entry_with_more": (safe(code="import os"), FormatError),
        "S-name_path": (safetensors({"../w": w}, bytes(16)), FormatError),
        "S-name_dunder": (safetensors({"__class__": w}, bytes(16)), FormatError),
        "S-name_empty": (safetensors({"": w}, bytes(16)), FormatError),
        "S-name_long": (safetensors({"w" * 1000: w}, bytes(16)), FormatError),
        "S-name_newline": (safetensors({"w\n": w}, bytes(16)), FormatError),
        "S-name_surrogate": (safetensors(b'{"\\ud800":' + good.encode() + b"}", bytes(16)), FormatError),
        "S-name_nul": (safetensors({"w\0": w}, bytes(16)), FormatError),
        "S-25000_tensors": (
            safetensors({f"w{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(25_000)}, b""),
            UnsafeError,
        ),
        "S-truth_of_2": (safe("BOOL", [2], [0, 2], b"\1\2"), IntegrityError),
        "S-double_beyond": (safe("F64", [2], [0, 16], np.array([1, 1e300]).tobytes()), IntegrityError),
    }


def npz(*members):
    """An archive of these members: name and bytes, or an entry."""
    entries = [m if isinstance(m, Entry) else Entry(f"{m[0]}.npy", m[1], flags=0) for m in members]
    return Zip(entries, zip64=False).build()


def literal(text, **lies):
    return npz(("w", npy(FOUR, text, **lies)))


def described(descr="<f4", order="False", shape="(4,)"):
    return literal(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")


def npz_cases():
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
        "N-header_length_4G": (npz(("w", npy(FOUR, version=b"\2\0", length=(1 << 32) - 1))), UnsafeError),
        "N-header_of_1_MB": (npz(("w", npy(FOUR, version=b"\2\0", pad=b" " * 20_000))), UnsafeError),
        "N-call_in_header": (literal("__import__('os').system('x')"), FormatError),
        "N-call_in_shape": (described(shape="(exit(),)"), FormatError),
        "N-comprehension": (literal("{'descr': [0 for x in 'ab'], 'fortran_order': False, 'shape': (4,), }"), FormatError),
        "N-deep_header": (literal("{'descr': " + "(" * 1500 + ")" * 1500 + "}"), FormatError),
        "N-key_twice": (literal("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (4,), }"), FormatError),
        "N-key_missing": (literal("{'descr': '<f4', 'shape': (4,), }"), FormatError),
        "N-key_more": (literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': 1, }"), FormatError),
        "N-list_for_dict": (literal("['<f4', False, (4,)]"), FormatError),
        "N-nul_in_header": (literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\0"), FormatError),
        "N-after_header": (literal("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }; import os"), FormatError),
        "N-padding_of_zeros": (npz(("w", npy(FOUR, pad=b"\0"))), FormatError),
        "N-objects": (described("|O"), UnsafeError),
        "N-objects_8": (described("|O8"), UnsafeError),
        "N-record": (literal("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }"), FormatError),
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
        "N-member_hidden_pickle": (npz(plain, Entry("x.pkl", b"cos\nsystem\n", flags=0)), FormatError),
        "N-member_path": (npz(("../w", good)), UnsafeError),
        "N-member_absolute": (npz(("/w", good)), UnsafeError),
        "N-member_dunder": (npz(("__class__", good)), FormatError),
        "N-member_spaces": (npz(("a b", good)), FormatError),
        "N-member_no_name": (npz(("", good)), FormatError),
        "N-crc": (npz(Entry("w.npy", good, flags=0, crc=1)), IntegrityError),
        "N-crc_deflated": (liar(crc=1), IntegrityError),
        "N-bomb": (npz(deflated("w.npy", zeros)), UnsafeError),
        "N-bomb_of_half": (npz(deflated("w.npy", npy(np.zeros(1 << 24, np.float16)))), UnsafeError),
        "N-bomb_declared_small": (npz(Entry("w.npy", ff.deflate(zeros), flags=0, method=8, size=len(good))), WeightsError),
        "N-bomb_behind_the_end": (
            npz(Entry("w.npy", ff.deflate(good + bytes(1 << 24)), flags=0, method=8, size=len(good))),
            UnsafeError,
        ),
        "N-bombs_many": (npz(*(deflated(f"w{i}.npy", npy(np.zeros(1 << 20, np.float32))) for i in range(20))), UnsafeError),
        "N-declared_longer": (liar(size=len(good) + 4), FormatError),
        "N-declared_shorter": (liar(size=len(good) - 4), UnsafeError),
        "N-declared_4_GB": (liar(size=0xFFFFFFF0), FormatError),
        "N-deflate_cut": (
            npz(Entry("w.npy", squeezed[:-3], flags=0, method=8, size=len(good), crc=zlib.crc32(good))),
            FormatError,
        ),
        "N-deflate_noise": (npz(Entry("w.npy", b"\xff" * 50, flags=0, method=8, size=len(good))), FormatError),
        "N-deflate_trailing": (
            npz(Entry("w.npy", squeezed + b"hidden", flags=0, method=8, size=len(good), crc=zlib.crc32(good))),
            UnsafeError,
        ),
        "N-deflate_two_streams": (
            npz(Entry("w.npy", squeezed * 2, flags=0, method=8, size=len(good), crc=zlib.crc32(good))),
            UnsafeError,
        ),
        "N-zlib_header": (npz(Entry("w.npy", zlib.compress(good), flags=0, method=8, size=len(good))), FormatError),
        "N-bzip2": (npz(Entry("w.npy", good, flags=0, method=12)), FormatError),
        "N-encrypted": (npz(Entry("w.npy", good, flags=1)), FormatError),
        "N-overlap": (npz(plain, Entry("v.npy", good, flags=0, header=0)), UnsafeError),
        "N-hidden_bytes": (npz(Entry("w.npy", good, flags=0, after=b"hidden"), ("v", good)), UnsafeError),
        "N-symlink": (npz(Entry("w.npy", good, flags=0, made_by=0x031E, attributes=0o120777 << 16)), UnsafeError),
        "N-suffix": (npz(plain) + b"\0", FormatError),
        "N-comment": (Zip([plain], zip64=False, comment=b"x").build(), FormatError),
        "N-cut": (npz(plain)[:-10], FormatError),
        "N-double_beyond": (npz(("w", npy(np.array([1e300])))), IntegrityError),
        "N-truth_of_2": (described("|b1", shape="(16,)"), IntegrityError),
        "N-last_of_many_damaged": (
            npz(*((f"w{i}", npy(small)) for i in range(50)), Entry("z.npy", npy(small), flags=0, crc=5)),
            IntegrityError,
        ),
    }
    return found


def lua(build):
    """What a function writes with a new writer."""
    return build(Lua())


def linear(weight):
    """A module with one field, given as a function of the writer."""
    return lua(lambda w: w.module("nn.Linear", {"weight": weight(w)}))


def view(**lies):
    """A module whose tensor lies about itself."""
    return linear(lambda w: w.tensor(FOUR, **lies))


def deep(levels):
    data, w = b"", Lua()
    for _ in range(levels):
        data += integer(3) + w.index() + integer(1) + number(1)
    return data + integer(0)


def looping():
    """A container that contains itself."""
    w = Lua()
    head = integer(4) + w.index() + lua_text("V 1") + lua_text("nn.Sequential")
    return head + w.table((text("modules"), w.table((number(1), again(4, 1)))))


def laughing(levels):
    """Each module contains the next ten times: ten to the number of levels in all."""
    w = Lua()
    child = w.module("nn.Linear", {"weight": w.tensor(FOUR)})
    index = w.last - 1  # the module's; the table of its fields comes after
    for _ in range(levels):
        head, index_now = integer(4) + w.index(), w.last
        children = [(number(1), child)] + [(number(i), again(4, index)) for i in range(2, 11)]
        child = head + lua_text("V 1") + lua_text("nn.Sequential") + w.table((text("modules"), w.table(*children)))
        index = index_now
    return child


def torch7_cases():
    good = ff.torch7_file()
    w1 = b"".join([integer(4), integer(1), lua_text("V 1"), lua_text("nn.Linear"), integer(3), integer(2)])
    many = integer(3) + integer(1) + integer(1_000_000)
    child = lambda w, **k: w.module("nn.Linear", {"weight": w.tensor(FOUR)}, **k)  # noqa: E731
    parent = lambda table: lua(lambda w: w.module("nn.Sequential", {"modules": table(w)}))  # noqa: E731
    return {
        "T-cut_in_tag": (good[:2], FormatError),
        "T-only_tag": (integer(4) + integer(1), FormatError),
        "T-only_table_tag": (integer(3) + integer(1), FormatError),
        "T-cut_in_the_middle": (good[: len(good) // 2], FormatError),
        "T-cut_by_1": (good[:-1], FormatError),
        "T-trailing": (good + b"\0", UnsafeError),
        "T-trailing_object": (good + good, UnsafeError),
        "T-tag_9": (w1 + integer(1) + integer(9), FormatError),
        "T-tag_negative": (w1 + integer(1) + integer(-1), FormatError),
        "T-string_negative": (integer(4) + integer(1) + integer(-5) + b"V 1", FormatError),
        "T-string_2_GB": (integer(4) + integer(1) + integer((1 << 31) - 1) + b"V 1", FormatError),
        "T-string_beyond": (w1 + integer(1) + integer(2) + integer(100) + b"short", FormatError),
        "T-table_negative": (integer(3) + integer(1) + integer(-1), FormatError),
        "T-table_2_G": (integer(3) + integer(1) + integer((1 << 31) - 1) + bytes(100), FormatError),
        "T-table_more_than_there_is": (lua(lambda w: w.table((text("a"), number(1)), size=2)), FormatError),
        "T-table_less_than_there_is": (lua(lambda w: w.table((text("a"), number(1)), size=0)), UnsafeError),
        "T-nil_key": (lua(lambda w: w.table((integer(0), number(1)))), UnsafeError),
        "T-nan_key": (lua(lambda w: w.table((number(float("nan")), number(1)))), UnsafeError),
        "T-key_twice": (
            lua(lambda w: w.module("nn.Linear", {}) * 0 + w.table(*[(text("weight"), number(1))] * 2)),
            UnsafeError,
        ),
        "T-truth_of_2": (lua(lambda w: w.table((text("a"), integer(5) + integer(2)))), FormatError),
        "T-index_0": (integer(3) + integer(0) + integer(0) + bytes(4), WeightsError),
        "T-index_negative": (integer(3) + integer(-7) + integer(0), WeightsError),
        "T-index_0_inside": (w1 + integer(1) + text("a") + integer(3) + integer(0) + integer(0), UnsafeError),
        "T-index_twice_nested": (integer(4) + integer(1) + lua_text("nn.X") + again(4, 1), FormatError),
        "T-reference_to_a_number": (linear(lambda w: again(4, 77)), FormatError),
        "T-reference_to_table": (linear(lambda w: again(4, 2)), FormatError),
        "T-empty_table": (lua(lambda w: w.table()), FormatError),
        "T-table_of_numbers": (lua(lambda w: w.table((number(1), number(2)))), FormatError),
        "T-table_of_tensors": (lua(lambda w: w.table((text("weight"), w.tensor(FOUR)))), FormatError),
        "T-tensor_alone": (lua(lambda w: w.tensor(FOUR)), FormatError),
        "T-storage_alone": (lua(lambda w: w.storage(FOUR)), FormatError),
        "T-module_without_tensors": (lua(lambda w: w.module("nn.ReLU", {"p": number(1)})), FormatError),
        "T-module_of_a_number": (lua(lambda w: w.torch("nn.X", number(3))), FormatError),
        "T-module_of_nil": (lua(lambda w: w.torch("nn.X", integer(0))), FormatError),
        "T-module_of_a_tensor": (lua(lambda w: w.torch("nn.X", w.tensor(FOUR))), FormatError),
        "T-unknown_payload": (lua(lambda w: w.torch("tds.Hash", integer(1) + number(1))), WeightsError),
        "T-class_of_os": (lua(lambda w: w.torch("os.execute", text("rm -rf x"))), FormatError),
        "T-class_unprintable": (lua(lambda w: w.torch("\x1b[2J" * 50, integer(0))), FormatError),
        "T-deep_tables": (deep(5000), UnsafeError),
        "T-deep_functions": (w1 + integer(1) + text("a") + (integer(6) + lua_text(b"x")) * 3000, UnsafeError),
        "T-function_alone": (
            integer(4) + integer(1) + lua_text("nn.X") + integer(8) + integer(2) + lua_text(b"\x1bLua") + integer(0),
            FormatError,
        ),
        "T-function_as_weight": (linear(lambda w: w.start(integer(8)) + lua_text(b"\x1bLua") + integer(0)), FormatError),
        "T-function_2_GB": (linear(lambda w: w.start(integer(8)) + integer((1 << 31) - 1)), FormatError),
        "T-function_negative": (linear(lambda w: w.start(integer(8)) + integer(-1)), FormatError),
        "T-module_in_itself": (looping(), UnsafeError),
        "T-ten_to_the_9": (laughing(9), UnsafeError),
        "T-million_nils": (many + integer(0) * 2_000_000, UnsafeError),
        "T-million_numbers": (many + b"".join(number(i) for i in range(400_000)) + number(1) * 1_600_000, WeightsError),
        "T-million_empty_tables": (
            many + b"".join(number(i) + integer(3) + integer(i + 2) + integer(0) for i in range(300_000)),
            UnsafeError,
        ),
        "T-9_MB_of_text": (
            lua(lambda w: w.table(*((text("a" * 60_000 + str(i)), number(1)) for i in range(150)))),
            UnsafeError,
        ),
        "T-weight_is_number": (linear(lambda w: number(1)), FormatError),
        "T-weight_is_text": (linear(lambda w: text("w")), FormatError),
        "T-weight_is_table": (linear(lambda w: w.table()), FormatError),
        "T-weight_is_storage": (linear(lambda w: w.storage(FOUR)), FormatError),
        "T-weight_is_module": (linear(lambda w: w.module("nn.X", {})), FormatError),
        "T-weight_twice": (
            lua(lambda w: w.torch("nn.X", w.table(*((text("weight"), w.tensor(FOUR)) for _ in "ab")))),
            UnsafeError,
        ),
        "T-children_not_from_1": (parent(lambda w: w.table((number(2), child(w)))), FormatError),
        "T-children_with_gap": (parent(lambda w: w.table((number(1), child(w)), (number(3), child(w)))), FormatError),
        "T-children_named": (parent(lambda w: w.table((text("a"), child(w)))), FormatError),
        "T-child_is_tensor": (parent(lambda w: w.table((number(1), w.tensor(FOUR)))), FormatError),
        "T-children_are_module": (parent(child), FormatError),
        "T-replicas_without_network": (lua(lambda w: w.module("nn.DataParallelTable", {}, [])), FormatError),
        "T-replicas_in_themselves": (
            looping().replace(lua_text("nn.Sequential"), lua_text("nn.DataParallelTable")),
            UnsafeError,
        ),
        "T-rank_negative": (view(rank=-1), FormatError),
        "T-rank_9": (view(size=(1,) * 9, stride=(1,) * 9), FormatError),
        "T-rank_2_31": (view(rank=(1 << 31) - 1), FormatError),
        "T-size_0": (view(size=(0,)), UnsafeError),
        "T-size_negative": (view(size=(-4,)), UnsafeError),
        "T-size_5": (view(size=(5,)), UnsafeError),
        "T-size_2_62": (view(size=(1 << 62,)), UnsafeError),
        "T-sizes_wrap": (view(size=(1 << 32, 1 << 32), stride=(1 << 32, 1)), UnsafeError),
        "T-stride_negative": (view(stride=(-1,), offset=4), UnsafeError),
        "T-stride_2": (view(stride=(2,)), UnsafeError),
        "T-stride_0_bomb": (view(size=(1 << 40,), stride=(0,)), UnsafeError),
        "T-stride_0_bombs": (view(size=(1 << 20, 1 << 10), stride=(0, 0)), UnsafeError),
        "T-offset_0": (view(offset=0), UnsafeError),
        "T-offset_2": (view(offset=2), UnsafeError),
        "T-offset_negative": (view(offset=-(1 << 62)), UnsafeError),
        "T-no_storage": (view(storage=integer(0)), FormatError),
        "T-storage_is_number": (view(storage=number(4)), FormatError),
        "T-storage_is_tensor": (linear(lambda w: w.tensor(FOUR, storage=w.tensor(FOUR))), FormatError),
        "T-storage_of_other_type": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, "torch.IntStorage"))),
            FormatError,
        ),
        "T-storage_negative": (linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=-4))), FormatError),
        "T-storage_too_long": (linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=5))), FormatError),
        "T-storage_too_short": (linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=3))), WeightsError),
        "T-storage_1_TB": (linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=1 << 38))), FormatError),
        "T-storage_2_63": (linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=(1 << 63) - 1))), FormatError),
        "T-unknown_tensor": (linear(lambda w: w.tensor(FOUR, kind="torch.ComplexTensor")), FormatError),
        "T-running_std": (
            lua(lambda w: w.module("nn.SpatialBatchNormalization", {"running_std": w.tensor(FOUR)})),
            FormatError,
        ),
        "T-double_beyond": (linear(lambda w: w.tensor(np.array([1.0, -1e300]))), IntegrityError),
        "T-longs_of_4_bytes": (good.replace(longs(4, 3, 3, 3), struct.pack("<4i", 4, 3, 3, 3)), WeightsError),
        "T-ascii": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n3\n2\n", FormatError),
        "T-big_endian": (struct.pack(">2i", 4, 1) + bytes(100), FormatError),
    }


def keras(change=None, **options):
    """A file that h5py changes before it is closed."""
    return ff.keras_file(change=change, **options)


def swap(old, new, count=1, data=None):
    """A file in which some bytes are others."""
    good = ff.keras_file() if data is None else data
    assert len(old) == len(new)
    assert old in good
    return good.replace(old, new, count)


def at(offset, new):
    """A file with other bytes at a place."""
    good = bytearray(ff.keras_file())
    good[offset : offset + len(new)] = new
    return bytes(good)


def dataset(name="conv1_conv/conv1_conv/bias:0", **options):
    """A file in which one dataset is made in another way."""

    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return keras(change)


def attribute(where, name, value):
    """A file with another attribute."""
    return keras(lambda file: file[where].attrs.__setitem__(name, value))


def removed(where, name=None):
    def change(file):
        if name is None:
            del file[where]
        else:
            del file[where].attrs[name]

    return keras(change)


def linked(make):
    """A file with a link in the place of a dataset or group."""

    def change(file):
        import h5py

        name, link = make(h5py)
        del file[name]
        file[name] = link

    return keras(change)


def keras_cases():
    import h5py

    good, name = ff.keras_file(), "conv1_conv/conv1_conv/bias:0"
    space = h5py.h5s.create_simple((4,))
    bias = ff.keras_state()["conv1_conv"]["conv1_conv/bias:0"].tobytes()
    where = good.index(bias)
    layout = b"\3\1" + struct.pack("<QQ", where, 16)
    first = good.index(b"SNOD")
    tree, heap = good.index(b"TREE"), good.index(b"HEAP")
    shared = ff.keras_file(fixed=False)
    store = shared.index(b"GCOL")
    float32 = bytes.fromhex("11201f00040000000000200017080017")

    def external(file):
        del file[name]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_external(b"/etc/passwd", 0, 16)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist)

    def virtual(file):
        del file[name]
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset(name, layout)

    def cycle(file):
        del file["conv1_conv/conv1_conv"]
        file["conv1_conv/conv1_conv"] = file["conv1_conv"]

    names = lambda values: attribute("/", "layer_names", values)  # noqa: E731
    weights = lambda values: attribute("conv1_conv", "weight_names", values)  # noqa: E731
    text = lambda *values: np.array([v.encode() for v in values], "S")  # noqa: E731
    return {
        "H-only_signature": (good[:8], FormatError),
        "H-cut_in_superblock": (good[:90], FormatError),
        "H-cut_by_1": (good[:-1], FormatError),
        "H-cut_in_half": (good[: len(good) // 2], FormatError),
        "H-appended": (good + b"\0", FormatError),
        "H-superblock_version": (at(8, b"\1"), FormatError),
        "H-superblock_latest": (keras(libver="latest"), FormatError),
        "H-superblock_v110": (keras(libver="v110"), FormatError),
        "H-user_block": (keras(userblock_size=512), FormatError),
        "H-offsets_of_4_bytes": (at(13, b"\4"), FormatError),
        "H-leaf_size": (at(16, b"\xff\xff"), FormatError),
        "H-node_size": (at(18, b"\xff\xff"), FormatError),
        "H-flags": (at(20, b"\1"), FormatError),
        "H-base_address": (at(24, b"\1"), FormatError),
        "H-end_of_file": (at(40, struct.pack("<Q", 1 << 62)), FormatError),
        "H-driver": (at(48, bytes(8)), FormatError),
        "H-root_beyond": (at(64, struct.pack("<Q", 1 << 62)), UnsafeError),
        "H-root_undefined": (at(64, b"\xff" * 8), UnsafeError),
        "H-root_at_superblock": (at(64, bytes(8)), UnsafeError),
        "H-root_is_link": (at(72, b"\2"), FormatError),
        "H-external_storage": (keras(external), UnsafeError),
        "H-virtual": (keras(virtual), WeightsError),
        "H-soft_link": (linked(lambda h: (name, h.SoftLink("/probs/probs/bias:0"))), UnsafeError),
        "H-soft_link_to_itself": (linked(lambda h: (name, h.SoftLink("/" + name))), UnsafeError),
        "H-soft_link_group": (linked(lambda h: ("conv1_conv", h.SoftLink("/probs"))), UnsafeError),
        "H-external_link": (linked(lambda h: (name, h.ExternalLink("/etc/passwd", "/x"))), WeightsError),
        "H-external_link_group": (linked(lambda h: ("conv1_conv/conv1_conv", h.ExternalLink("x.h5", "/"))), WeightsError),
        "H-external_link_layer": (linked(lambda h: ("conv1_conv", h.ExternalLink("x.h5", "/"))), WeightsError),
        "H-hard_link": (keras(lambda f: (f.__delitem__(name), f.__setitem__(name, f["probs/probs/bias:0"]))), UnsafeError),
        "H-hard_link_cycle": (keras(cycle), UnsafeError),
        "H-gzip": (dataset(shape=(4,), dtype="f4", compression="gzip", chunks=(2,)), UnsafeError),
        "H-gzip_bomb": (dataset(shape=(1 << 24,), dtype="f4", compression="gzip", data=np.zeros(1 << 24, "f4")), UnsafeError),
        "H-chunked": (dataset(data=FOUR, chunks=(2,)), FormatError),
        "H-shuffle": (dataset(data=FOUR, chunks=(2,), shuffle=True), UnsafeError),
        "H-fletcher": (dataset(data=FOUR, chunks=(2,), fletcher32=True), UnsafeError),
        "H-scaleoffset": (dataset(data=np.arange(4), chunks=(2,), scaleoffset=4), UnsafeError),
        "H-growing": (dataset(data=FOUR, maxshape=(None,)), FormatError),
        "H-shape_bomb": (dataset(shape=(1 << 40,), dtype="f4"), UnsafeError),
        "H-never_written": (dataset(shape=(4,), dtype="f4"), UnsafeError),
        "H-compact": (
            keras(lambda f: (f.__delitem__(name), _compact(h5py, f, name, space))),
            FormatError,
        ),
        "H-integers": (dataset(data=np.arange(4)), FormatError),
        "H-big_endian": (dataset(data=FOUR.astype(">f4")), FormatError),
        "H-long_double": (dataset(data=FOUR.astype(np.longdouble)), FormatError),
        "H-complex": (dataset(data=FOUR.astype("c8")), FormatError),
        "H-compound": (dataset(data=np.zeros(4, [("a", "f4")])), FormatError),
        "H-text": (dataset(data=text("abcd")), FormatError),
        "H-varying_text": (dataset(data=["a", "b"], dtype=h5py.string_dtype()), FormatError),
        "H-references": (
            keras(lambda f: (f.__delitem__(name), f.create_dataset(name, data=f.ref, dtype=h5py.ref_dtype))),
            FormatError,
        ),
        "H-enumerated": (dataset(data=np.array([True, False])), FormatError),
        "H-opaque": (dataset(data=np.void(b"abcd")), FormatError),
        "H-array_type": (dataset(shape=(2,), dtype=np.dtype(("f4", (2,)))), FormatError),
        "H-null_space": (dataset(data=h5py.Empty("f4")), FormatError),
        "H-nine_sides": (dataset(data=FOUR.reshape((1,) * 8 + (4,))), FormatError),
        "H-group_for_dataset": (keras(lambda f: (f.__delitem__(name), f.create_group(name))), FormatError),
        "H-dataset_for_group": (
            keras(lambda f: (f.__delitem__("conv1_conv"), f.create_dataset("conv1_conv", data=1.0))),
            FormatError,
        ),
        "H-dataset_for_inner_group": (
            keras(lambda f: (f.__delitem__("conv1_conv/conv1_conv"), f.create_dataset("conv1_conv/conv1_conv", data=1.0))),
            FormatError,
        ),
        "H-layer_missing": (removed("conv1_conv"), FormatError),
        "H-weight_missing": (removed(name), FormatError),
        "H-no_layer_names": (removed("/", "layer_names"), FormatError),
        "H-no_weight_names": (removed("conv1_conv", "weight_names"), FormatError),
        "H-layers_twice": (names(text("probs", "probs")), FormatError),
        "H-weights_twice": (weights(text("conv1_conv/bias:0", "conv1_conv/bias:0")), FormatError),
        "H-layers_none": (names(np.zeros(0, "f8")), FormatError),
        "H-layers_scalar": (names(np.bytes_(b"probs")), FormatError),
        "H-layers_square": (names(np.array([[b"probs"], [b"act"]])), FormatError),
        "H-layers_numbers": (names(np.arange(3)), FormatError),
        "H-layers_empty_text": (names(text("probs", "")), FormatError),
        "H-layer_of_path": (names(text("../probs")), FormatError),
        "H-layer_of_slash": (names(text("/")), FormatError),
        "H-layer_dot": (names(text(".")), FormatError),
        "H-layer_not_ascii": (names(np.array(["é".encode()], "S")), FormatError),
        "H-weight_of_path": (weights(text("../../probs/probs/bias:0")), FormatError),
        "H-weight_absolute": (weights(text("/probs/probs/bias:0")), FormatError),
        "H-weight_dunder": (weights(text("__class__")), FormatError),
        "H-weight_long": (weights(text("a" * 300)), FormatError),
        "H-weight_deep": (weights(text("/".join("abcdefghijkl"))), FormatError),
        "H-weight_newline": (weights(text("a\nb")), FormatError),
        "H-layout_beyond": (swap(layout, b"\3\1" + struct.pack("<QQ", 1 << 62, 16)), UnsafeError),
        "H-layout_undefined": (swap(layout, b"\3\1" + b"\xff" * 8 + struct.pack("<Q", 16)), UnsafeError),
        "H-layout_over_superblock": (swap(layout, b"\3\1" + struct.pack("<QQ", 0, 16)), UnsafeError),
        "H-layout_over_heap": (swap(layout, b"\3\1" + struct.pack("<QQ", heap, 16)), UnsafeError),
        "H-layout_over_another": (swap(layout, b"\3\1" + struct.pack("<QQ", where + 4, 16)), UnsafeError),
        "H-layout_too_small": (swap(layout, b"\3\1" + struct.pack("<QQ", where, 12)), FormatError),
        "H-layout_too_large": (swap(layout, b"\3\1" + struct.pack("<QQ", where, 20)), FormatError),
        "H-layout_version": (swap(layout, b"\4\1" + struct.pack("<QQ", where, 16)), FormatError),
        "H-layout_class": (swap(layout, b"\3\0" + struct.pack("<QQ", where, 16)), FormatError),
        "H-float_with_other_bias": (swap(float32 + b"\x7f", float32 + b"\x80", -1), FormatError),
        "H-tree_mark": (at(tree, b"TREF"), FormatError),
        "H-tree_level": (at(tree + 5, b"\7"), FormatError),
        "H-tree_count": (at(tree + 6, b"\xff\xff"), FormatError),
        "H-tree_of_itself": (at(tree + 32, struct.pack("<Q", tree)), UnsafeError),
        "H-node_mark": (at(first, b"SNOE"), FormatError),
        "H-node_count": (at(first + 6, b"\xff"), FormatError),
        "H-heap_mark": (at(heap, b"HEAQ"), FormatError),
        "H-heap_beyond": (at(heap + 24, struct.pack("<Q", 1 << 50)), UnsafeError),
        "H-heap_size": (at(heap + 8, struct.pack("<Q", 1 << 50)), FormatError),
        "H-texts_mark": (swap(b"GCOL", b"GCOM", data=shared), FormatError),
        "H-texts_version": (swap(b"GCOL\1", b"GCOL\2", data=shared), FormatError),
        "H-texts_size": (shared[: store + 8] + struct.pack("<Q", 1 << 50) + shared[store + 16 :], UnsafeError),
        "H-texts_size_0": (shared[: store + 8] + bytes(8) + shared[store + 16 :], FormatError),
        "H-texts_first_too_long": (shared[: store + 24] + struct.pack("<Q", 1 << 50) + shared[store + 32 :], FormatError),
        "H-keras_3": (keras(lambda f: (f.attrs.__delitem__("layer_names"), f.create_group("layers"))), FormatError),
        "H-double_beyond": (dataset(data=np.array([1, 1e300, 1, 1])), IntegrityError),
    }


def _compact(h5py, file, name, space):
    """A dataset whose values are in its header."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist)


def cases():
    """Every case: (id, bytes, error)."""
    for group in (safetensors_cases, npz_cases, torch7_cases, keras_cases):
        for name, (data, error) in group().items():
            yield name, data, error
