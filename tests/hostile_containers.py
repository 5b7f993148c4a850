"""Checkpoints whose container lies: the L (legacy), Z (zip) and K (files of another kind) cases."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
from hostile_pickles import FOUR, MARKER, ints, pid
from torch_files import (
    SYSTEM,
    Entry,
    Legacy,
    Raw,
    Zip,
    call,
    glob,
    integer,
    legacy_file,
    marked,
    numbers,
    pickled,
    small_state,
    tampered,
    tensor,
    text,
    zip_entries,
    zip_file,
)

from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError


def view(*ids, tail=b"N", length=4):
    """Return a legacy file with a tensor of four elements for each persistent id, in storage 9."""
    tensors = {
        f"w{i}": Raw(
            call("torch._utils", "_rebuild_tensor", pid(*parts, tail), b"K\0", ints(4), ints(1))
        )
        for i, parts in enumerate(ids)
    }
    return Legacy(tensors, keys=["9"], tail=struct.pack("<q", length) + bytes(16)).build()


def legacy_cases():
    """The legacy container."""
    state = small_state()
    good = legacy_file(state)
    return {
        "L-magic_wrong": (Legacy(state, magic=0x1950A86A20F9469CFC6D).build(), FormatError),
        "L-magic_text": (Legacy(state, magic="torch").build(), FormatError),
        "L-magic_dict": (Legacy(state, magic={}).build(), UnsafeError),
        "L-plain_pickle": (pickled({"a": 1}), WeightsError),
        "L-version_1002": (Legacy(state, version=1002).build(), FormatError),
        "L-version_text": (Legacy(state, version="1001").build(), FormatError),
        "L-big_endian": (
            Legacy(state, system={**SYSTEM, "little_endian": False}).build(),
            FormatError,
        ),
        "L-endianness_missing": (
            Legacy(state, system={"protocol_version": 1001}).build(),
            FormatError,
        ),
        "L-endianness_1": (
            Legacy(state, system={**SYSTEM, "little_endian": 1}).build(),
            FormatError,
        ),
        "L-system_list": (Legacy(state, system=[1, 2]).build(), FormatError),
        "L-system_none": (Legacy(state, system=None).build(), FormatError),
        "L-system_protocol": (
            Legacy(state, system={**SYSTEM, "protocol_version": 7}).build(),
            FormatError,
        ),
        "L-system_runs_code": (
            Legacy(state, system=Raw(call("os", "system", text(MARKER)))).build(),
            UnsafeError,
        ),
        "L-system_tensor": (Legacy(state, system=tensor(numbers(3))).build(), WeightsError),
        "L-magic_bomb": (Legacy(state, magic=Raw(b"]" * 1_000_000)).build(), UnsafeError),
        "L-keys_missing_one": (
            Legacy(state, keys=["0", "1", "2", "3", "4", "5"]).build(),
            FormatError,
        ),
        "L-keys_one_more": (Legacy(state, keys=[*"0123456", "7"]).build(), FormatError),
        "L-keys_twice": (Legacy(state, keys=[*"0123456", "6"]).build(), FormatError),
        "L-keys_replaced": (Legacy(state, keys=[*"012345", "9"]).build(), FormatError),
        "L-keys_integers": (Legacy(state, keys=[0, 1, 2, 3, 4, 5, 6]).build(), FormatError),
        "L-keys_tuple": (Legacy(state, keys=tuple("0123456")).build(), FormatError),
        "L-keys_none": (Legacy(state, keys=Raw(b"N")).build(), FormatError),
        "L-keys_million": (
            Legacy(state, keys=Raw(b"](" + text("0") * 1_000_000 + b"e")).build(),
            UnsafeError,
        ),
        "L-keys_run_code": (
            Legacy(state, keys=Raw(call("os", "system", text(MARKER)))).build(),
            UnsafeError,
        ),
        "L-length_smaller": (Legacy(state, lengths={0: 107}).build(), FormatError),
        "L-length_larger": (Legacy(state, lengths={0: 109}).build(), FormatError),
        "L-length_negative": (Legacy(state, lengths={0: -1}).build(), FormatError),
        "L-length_2e62": (Legacy(state, lengths={0: 1 << 62}).build(), FormatError),
        "L-length_min": (Legacy(state, lengths={6: -(1 << 63)}).build(), FormatError),
        "L-data_missing": (good[:-20], FormatError),
        "L-last_byte_missing": (good[:-1], FormatError),
        "L-trailing_byte": (good + b"\0", UnsafeError),
        "L-trailing_zip": (good + zip_file(state), UnsafeError),
        "L-twice": (good + good, UnsafeError),
        "L-prefix": (b"\0" + good, FormatError),
        "L-view_metadata": (view(FOUR, tail=marked(text("1"), b"K\1", b"K\4")), UnsafeError),
        "L-view_metadata_beyond": (view(FOUR, tail=ints(1 << 40, 4)), UnsafeError),
        "L-id_of_the_zip_format": (view(FOUR, tail=b""), UnsafeError),
        "L-two_lengths_for_one_storage": (view(FOUR, [*FOUR[:4], integer(5)]), UnsafeError),
        "L-two_types_for_one_storage": (
            view(FOUR, [FOUR[0], glob("torch", "IntStorage"), *FOUR[2:]]),
            UnsafeError,
        ),
        "L-storage_of_1_TB": (view([*FOUR[:4], integer(1 << 38)], length=1 << 38), FormatError),
        "L-length_negated": (Legacy(state, lengths={0: -108}).build(), FormatError),
        "L-double_beyond_float32": (
            legacy_file({"w": tensor(np.array([1.0, 1e300]))}),
            IntegrityError,
        ),
    }


def zip_cases():
    """The zip container."""
    state = small_state()
    good = zip_file(state)
    entries = zip_entries(state)
    body = entries[0]
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = bomb.compress(bytes(8 << 20)) + bomb.flush()
    root = lambda *more: Zip([*entries, *more]).build()  # noqa: E731
    wide = struct.pack("<2H3Q", 1, 24, 1 << 40, 1 << 40, 0)
    end = good[-22:]
    return {
        "Z-data.pkl_twice": (root(body), UnsafeError),
        "Z-data.pkl_twice_first_hostile": (
            Zip([replace(body, data=pickled(Raw(call("os", "system")))), *entries]).build(),
            UnsafeError,
        ),
        "Z-two_roots": (root(Entry("other/data.pkl", body.data)), UnsafeError),
        "Z-file_beside_root": (root(Entry("readme", b"x")), UnsafeError),
        "Z-parent_path": (root(Entry("../data.pkl", body.data)), UnsafeError),
        "Z-parent_path_inside": (root(Entry("model/../../x", b"")), UnsafeError),
        "Z-absolute_path": (root(Entry("/etc/passwd", b"")), UnsafeError),
        "Z-drive_path": (root(Entry("C:/x", b"")), UnsafeError),
        "Z-backslash_path": (root(Entry("model\\..\\x", b"")), UnsafeError),
        "Z-nul_in_name": (root(Entry("model/data.pkl\0.txt", b"")), UnsafeError),
        "Z-newline_in_name": (root(Entry("model/a\nb", b"")), UnsafeError),
        "Z-folder_with_content": (root(Entry("model/data/", b"hidden")), UnsafeError),
        "Z-empty_name": (root(Entry("", b"")), UnsafeError),
        "Z-name_not_utf8": (root(Entry(b"model/\xff\xfe", b"")), FormatError),
        "Z-local_name": (tampered(state, "data/0", local_name=b"model/data/1"), UnsafeError),
        "Z-local_name_longer": (
            tampered(state, "data/0", local_name=b"model/data/00"),
            UnsafeError,
        ),
        "Z-local_flags": (tampered(state, "data/0", local_flags=0), UnsafeError),
        "Z-local_size": (tampered(state, "data/0", flags=0, local_size=8), UnsafeError),
        "Z-local_crc": (tampered(state, "data/0", flags=0, local_crc=8), UnsafeError),
        "Z-hidden_in_directory": (Zip(entries, in_directory=b"hidden").build(), UnsafeError),
        "Z-descriptor_size": (tampered(state, "data/0", local_size=8), UnsafeError),
        "Z-encrypted": (tampered(state, "data/0", flags=0x0809), FormatError),
        "Z-patched": (tampered(state, "data/0", flags=0x0828), FormatError),
        "Z-strong_encryption": (tampered(state, "data/0", flags=0x0848), FormatError),
        "Z-crc_of_weights": (tampered(state, "data/0", crc=1), IntegrityError),
        "Z-crc_of_pickle": (tampered(state, "data.pkl", crc=1), IntegrityError),
        "Z-crc_of_byteorder": (tampered(state, "byteorder", crc=1), IntegrityError),
        "Z-deflated": (tampered(state, "data/0", method=8), FormatError),
        "Z-deflate_bomb": (
            tampered(state, "data/0", method=8, data=squeezed, size=8 << 20),
            FormatError,
        ),
        "Z-deflated_pickle": (tampered(state, "data.pkl", method=8), FormatError),
        "Z-bzip2": (tampered(state, "data/0", method=12), FormatError),
        "Z-declared_4_GB": (
            tampered(state, "data/0", size=0xFFFFFFFE, packed=0xFFFFFFFE),
            WeightsError,
        ),
        "Z-declared_size_differs": (tampered(state, "data/0", size=4), FormatError),
        "Z-declared_smaller": (tampered(state, "data/0", size=4, packed=4), WeightsError),
        "Z-declared_larger": (tampered(state, "data/0", size=500, packed=500), WeightsError),
        "Z-wide_size_without_field": (
            tampered(state, "data/0", size=0xFFFFFFFF, packed=0xFFFFFFFF),
            FormatError,
        ),
        "Z-wide_size_lies": (
            tampered(
                state, "data/0", size=0xFFFFFFFF, packed=0xFFFFFFFF, header=0xFFFFFFFF, extra=wide
            ),
            WeightsError,
        ),
        "Z-wide_size_cut": (
            tampered(state, "data/0", size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=wide[:10]),
            FormatError,
        ),
        "Z-overlap_same_header": (tampered(state, "data/1", header=0), UnsafeError),
        "Z-overlap_inside": (tampered(state, "data/1", header=1100), UnsafeError),
        "Z-header_beyond_end": (tampered(state, "data/1", header=1 << 30), UnsafeError),
        "Z-first_header_moved": (tampered(state, "data.pkl", header=1), UnsafeError),
        "Z-hidden_bytes": (tampered(state, "data/0", after=b"hidden"), UnsafeError),
        "Z-hidden_before_directory": (
            Zip(entries, before_directory=b"hidden").build(),
            UnsafeError,
        ),
        "Z-prefix": (b"#!/bin/sh\n" + good, FormatError),
        "Z-prefix_adjusted": (Zip(entries, prefix=b"#!/bin/sh\n").build(), FormatError),
        "Z-prefix_zip_magic": (Zip(entries, prefix=b"PK\3\4junk").build(), UnsafeError),
        "Z-prefix_unadjusted": (b"PK\3\4" + good, FormatError),
        "Z-suffix": (good + b"\0", FormatError),
        "Z-suffix_script": (good + b"<script>alert(1)</script>", FormatError),
        "Z-two_archives": (good + good, FormatError),
        "Z-legacy_appended": (good + legacy_file(state), FormatError),
        "Z-comment": (Zip(entries, comment=b"hello").build(), FormatError),
        "Z-comment_64_KB": (Zip(entries, comment=b"x" * 65535).build(), FormatError),
        "Z-comment_holds_end_record": (Zip(entries, comment=end).build(), FormatError),
        "Z-member_comment": (tampered(state, "data/0", comment=b"hello"), FormatError),
        "Z-several_disks": (Zip(entries, disk=1).build(), FormatError),
        "Z-count_too_small": (Zip(entries, count=3).build(), UnsafeError),
        "Z-count_too_large": (Zip(entries, count=99).build(), FormatError),
        "Z-count_million": (Zip(entries, count=1_000_000).build(), UnsafeError),
        "Z-million_entries_declared": (
            Zip(entries, end64={6: 1 << 40, 7: 1 << 40}).build(),
            UnsafeError,
        ),
        "Z-25000_entries": (
            Zip([*entries, *(Entry(f"model/data/{i}", b"") for i in range(100, 25_100))]).build(),
            UnsafeError,
        ),
        "Z-end_offset": (Zip(entries, zip64=False, end_offset=0).build(), FormatError),
        "Z-zip64_count": (Zip(entries, end64={6: 2, 7: 2}).build(), UnsafeError),
        "Z-zip64_length": (Zip(entries, end64={8: 1}).build(), UnsafeError),
        "Z-zip64_offset": (Zip(entries, end64={9: 1 << 40}).build(), UnsafeError),
        "Z-zip64_magic": (Zip(entries, end64={0: b"PK\6\5"}).build(), FormatError),
        "Z-zip64_record_size": (Zip(entries, end64={1: 1 << 40}).build(), FormatError),
        "Z-zip64_locator": (Zip(entries, locator=0).build(), FormatError),
        "Z-zip64_locator_beyond": (Zip(entries, locator=1 << 62).build(), FormatError),
        "Z-no_pickle": (Zip(entries[1:]).build(), FormatError),
        "Z-no_weights": (
            Zip([e for e in entries if e.name != "model/data/0"]).build(),
            FormatError,
        ),
        "Z-weights_nobody_uses": (root(Entry("model/data/77", b"hidden")), FormatError),
        "Z-weights_too_short": (tampered(state, "data/0", data=bytes(428)), FormatError),
        "Z-weights_too_long": (tampered(state, "data/0", data=bytes(436)), FormatError),
        "Z-symlink": (
            tampered(state, "data/0", made_by=0x031E, attributes=0o120777 << 16),
            UnsafeError,
        ),
        "Z-device": (
            tampered(state, "data/0", made_by=0x031E, attributes=0o060666 << 16),
            UnsafeError,
        ),
        "Z-torchscript_constants": (root(Entry("model/constants.pkl", pickled(()))), FormatError),
        "Z-torchscript_code": (root(Entry("model/code/__torch__.py", b"import os")), FormatError),
        "Z-torch_package": (root(Entry("model/extern_modules", b"os")), FormatError),
        "Z-big_endian": (zip_file(state, byteorder=b"big"), FormatError),
        "Z-byteorder_unknown": (zip_file(state, byteorder=b"middle"), FormatError),
        "Z-byteorder_long": (zip_file(state, byteorder=b"little" * 100), UnsafeError),
        "Z-nested_zip": (root(Entry("model/inner.zip", good)), FormatError),
        "Z-pickle_is_zip": (zip_file(state, pickle=good), FormatError),
        "Z-pickle_is_legacy": (zip_file(state, pickle=legacy_file(state)), WeightsError),
        "Z-pickle_of_9_MB": (zip_file(state, pickle=bytes(9 << 20)), FormatError),
        "Z-only_end_record": (end, FormatError),
        "Z-npz": (Zip([Entry("weight.npy", b"\x93NUMPY")]).build(), FormatError),
        "Z-double_beyond_float32": (
            zip_file({"w": tensor(np.array([1.0, -1e39]))}),
            IntegrityError,
        ),
    }


def other_kinds():
    """Files that are something else."""
    tar = bytearray(1024)
    tar[:8], tar[257:265] = b"sys_info", b"ustar  \0"
    return {
        "K-empty": b"",
        "K-one_byte": b"\x80",
        "K-zeros": bytes(5000),
        "L-tar_0.1.1": bytes(tar),
        "K-web_page": b"<!DOCTYPE html><html>404</html>",
        "K-gzip": b"\x1f\x8b\x08" + bytes(50),
        "K-hdf5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "K-git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "K-npy": b"\x93NUMPY\x01\x00" + bytes(100),
        "K-safetensors": struct.pack("<Q", 2) + b"{}",
        "K-torch7": struct.pack("<ii", 4, 1) + bytes(100),
        "K-text": b"weights go here\n",
        "Z-empty_archive": b"PK\5\6" + bytes(18),
    }


def cases():
    """Every case: (id, bytes, error)."""
    for name, (data, error) in {**legacy_cases(), **zip_cases()}.items():
        yield name, data, error
    for name, data in other_kinds().items():
        yield name, data, FormatError
