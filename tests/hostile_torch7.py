"""T: broken and malicious Torch7 files."""

from __future__ import annotations

import struct

import foreign_files as ff
import numpy as np
from foreign_files import Lua, again, integer, longs, lua_text, number, text
from torch_files import numbers

from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

FOUR = numbers(4)


def lua(build):
    """What a function writes with a new writer."""
    return build(Lua())


def linear(weight):
    """A module with one field, given as a function of the writer."""
    return lua(lambda w: w.module("nn.Linear", {"weight": weight(w)}))


def view(**lies):
    """A module whose tensor lies about itself."""
    return linear(lambda w: w.tensor(FOUR, **lies))


def many_numbers(values):
    """Each of many values, as `number` writes it."""
    made = np.empty(len(values), [("kind", "<i4"), ("value", "<f8")])
    made["kind"], made["value"] = 1, values
    return made.tobytes()


def empty_tables(count):
    """So many numbers from 0 on, each with an empty table whose index is larger by 2."""
    made = np.zeros(count, [("kind", "<i4"), ("key", "<f8"), ("table", "<i4", 3)])
    made["kind"], made["key"] = 1, np.arange(count)
    made["table"][:, 0], made["table"][:, 1] = 3, np.arange(count) + 2
    return made.tobytes()


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
        child = (
            head
            + lua_text("V 1")
            + lua_text("nn.Sequential")
            + w.table((text("modules"), w.table(*children)))
        )
        index = index_now
    return child


def cases():
    """Names, and for each the file and the error."""
    good = ff.torch7_file()
    w1 = b"".join(
        [integer(4), integer(1), lua_text("V 1"), lua_text("nn.Linear"), integer(3), integer(2)]
    )
    many = integer(3) + integer(1) + integer(1_000_000)
    child = lambda w, **k: w.module("nn.Linear", {"weight": w.tensor(FOUR)}, **k)  # noqa: E731

    def parent(table):
        return lua(lambda w: w.module("nn.Sequential", {"modules": table(w)}))

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
        "T-table_more_than_there_is": (
            lua(lambda w: w.table((text("a"), number(1)), size=2)),
            FormatError,
        ),
        "T-table_less_than_there_is": (
            lua(lambda w: w.table((text("a"), number(1)), size=0)),
            UnsafeError,
        ),
        "T-nil_key": (lua(lambda w: w.table((integer(0), number(1)))), UnsafeError),
        "T-nan_key": (lua(lambda w: w.table((number(float("nan")), number(1)))), UnsafeError),
        "T-key_twice": (
            lua(
                lambda w: (
                    w.module("nn.Linear", {}) * 0 + w.table(*[(text("weight"), number(1))] * 2)
                )
            ),
            UnsafeError,
        ),
        "T-truth_of_2": (lua(lambda w: w.table((text("a"), integer(5) + integer(2)))), FormatError),
        "T-index_0": (integer(3) + integer(0) + integer(0) + bytes(4), WeightsError),
        "T-index_negative": (integer(3) + integer(-7) + integer(0), WeightsError),
        "T-index_0_inside": (
            w1 + integer(1) + text("a") + integer(3) + integer(0) + integer(0),
            UnsafeError,
        ),
        "T-index_twice_nested": (
            integer(4) + integer(1) + lua_text("nn.Linear") + again(4, 1),
            FormatError,
        ),
        "T-reference_to_a_number": (linear(lambda w: again(4, 77)), FormatError),
        "T-reference_to_table": (linear(lambda w: again(4, 2)), FormatError),
        "T-empty_table": (lua(lambda w: w.table()), FormatError),
        "T-table_of_numbers": (lua(lambda w: w.table((number(1), number(2)))), FormatError),
        "T-table_of_tensors": (
            lua(lambda w: w.table((text("weight"), w.tensor(FOUR)))),
            FormatError,
        ),
        "T-tensor_alone": (lua(lambda w: w.tensor(FOUR)), FormatError),
        "T-storage_alone": (lua(lambda w: w.storage(FOUR)), FormatError),
        "T-module_without_tensors": (
            lua(lambda w: w.module("nn.ReLU", {"p": number(1)})),
            FormatError,
        ),
        "T-module_of_a_number": (lua(lambda w: w.torch("nn.Linear", number(3))), FormatError),
        "T-module_of_nil": (lua(lambda w: w.torch("nn.Linear", integer(0))), FormatError),
        "T-module_of_a_tensor": (lua(lambda w: w.torch("nn.Linear", w.tensor(FOUR))), FormatError),
        "T-unknown_payload": (
            lua(lambda w: w.torch("tds.Hash", integer(1) + number(1))),
            WeightsError,
        ),
        "T-class_of_os": (lua(lambda w: w.torch("os.execute", text("rm -rf x"))), FormatError),
        "T-class_unprintable": (lua(lambda w: w.torch("\x1b[2J" * 50, integer(0))), FormatError),
        "T-deep_tables": (deep(5000), UnsafeError),
        "T-deep_functions": (
            w1 + integer(1) + text("a") + (integer(6) + lua_text(b"x")) * 3000,
            UnsafeError,
        ),
        "T-function_alone": (
            integer(4)
            + integer(1)
            + lua_text("nn.Linear")
            + integer(8)
            + integer(2)
            + lua_text(b"\x1bLua")
            + integer(0),
            FormatError,
        ),
        "T-function_as_weight": (
            linear(lambda w: w.start(integer(8)) + lua_text(b"\x1bLua") + integer(0)),
            FormatError,
        ),
        "T-function_2_GB": (
            linear(lambda w: w.start(integer(8)) + integer((1 << 31) - 1)),
            FormatError,
        ),
        "T-function_negative": (linear(lambda w: w.start(integer(8)) + integer(-1)), FormatError),
        "T-module_in_itself": (looping(), UnsafeError),
        "T-ten_to_the_9": (laughing(9), UnsafeError),
        "T-million_nils": (many + integer(0) * 2_000_000, UnsafeError),
        "T-million_numbers": (
            many + many_numbers(np.arange(400_000)) + number(1) * 1_600_000,
            WeightsError,
        ),
        "T-million_empty_tables": (
            many + empty_tables(300_000),
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
        "T-weight_is_module": (linear(lambda w: w.module("nn.Linear", {})), FormatError),
        "T-weight_twice": (
            lua(
                lambda w: w.torch(
                    "nn.Linear", w.table(*((text("weight"), w.tensor(FOUR)) for _ in "ab"))
                )
            ),
            UnsafeError,
        ),
        "T-children_not_from_1": (parent(lambda w: w.table((number(2), child(w)))), FormatError),
        "T-children_with_gap": (
            parent(lambda w: w.table((number(1), child(w)), (number(3), child(w)))),
            FormatError,
        ),
        "T-children_named": (parent(lambda w: w.table((text("a"), child(w)))), FormatError),
        "T-child_is_tensor": (parent(lambda w: w.table((number(1), w.tensor(FOUR)))), FormatError),
        "T-children_are_module": (parent(child), FormatError),
        "T-replicas_without_network": (
            lua(lambda w: w.module("nn.DataParallelTable", {}, [])),
            FormatError,
        ),
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
        "T-storage_is_tensor": (
            linear(lambda w: w.tensor(FOUR, storage=w.tensor(FOUR))),
            FormatError,
        ),
        "T-storage_of_other_type": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, "torch.IntStorage"))),
            FormatError,
        ),
        "T-storage_negative": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=-4))),
            FormatError,
        ),
        "T-storage_too_long": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=5))),
            FormatError,
        ),
        "T-storage_too_short": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=3))),
            WeightsError,
        ),
        "T-storage_1_TB": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=1 << 38))),
            FormatError,
        ),
        "T-storage_2_63": (
            linear(lambda w: w.tensor(FOUR, storage=w.storage(FOUR, numel=(1 << 63) - 1))),
            FormatError,
        ),
        "T-unknown_tensor": (
            linear(lambda w: w.tensor(FOUR, kind="torch.ComplexTensor")),
            FormatError,
        ),
        "T-running_std": (
            lua(
                lambda w: w.module("nn.SpatialBatchNormalization", {"running_std": w.tensor(FOUR)})
            ),
            FormatError,
        ),
        "T-double_beyond": (linear(lambda w: w.tensor(np.array([1.0, -1e300]))), IntegrityError),
        "T-longs_of_4_bytes": (
            good.replace(longs(4, 3, 3, 3), struct.pack("<4i", 4, 3, 3, 3)),
            WeightsError,
        ),
        "T-ascii": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n3\n2\n", FormatError),
        "T-big_endian": (struct.pack(">2i", 4, 1) + bytes(100), FormatError),
    }
