"""The pickle interpreter by itself: what Python writes it reads, and nothing else happens."""

from __future__ import annotations

import io
import pickle as python_pickle
import pickletools
import struct
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from audit import watching
from torch_files import call, glob, integer, marked, pickled, text

from tinyresnext.errors import FormatError, UnsafeError, WeightsError
from tinyresnext.formats.pickle import machine as pickle
from tinyresnext.formats.pickle import names as pickle_names
from tinyresnext.formats.pickle import stack as pickle_stack
from tinyresnext.formats.pickle.arrays import uint8_arrays
from tinyresnext.formats.pickle.names import CHECKPOINT
from tinyresnext.formats.pickle.tensors import Storage, Tensor
from tinyresnext.formats.pickle.vocabulary import Global, Placeholder

STORE = Storage("0", "Float", 12)


def load(data, vocabulary=CHECKPOINT, **options):
    return pickle.load(io.BytesIO(data), vocabulary, **options)


def load_value(code, **options):
    """The object that these opcodes leave."""
    return load(b"\x80\x02" + code + b".", persistent_load=lambda pid: STORE, **options)


PLAIN = [
    None,
    [True, False, None],
    {"a": 1, "b": [1, 2, {"c": ()}]},
    [0, 1, 255, 256, 65535, 65536, -1, -128, -(2**31), 2**31, 2**62, -(2**63), 10**30],
    [0.0, -1.5, 1e300, float("inf")],
    ["", "weight", "caf\u00e9", "\U0001f600", "x" * 300],
    ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    OrderedDict([("z", 1), ("a", OrderedDict())]),
    [{"deep": [[[[[{}]]]]]}] * 3,
    {i: str(i) for i in range(3000)},
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", PLAIN, ids=lambda v: ascii(v)[:30])
def test_what_python_writes(value, protocol):
    found = load(python_pickle.dumps(value, protocol))
    assert found == value
    assert type(found) is type(value)


def test_bytes():
    assert load(python_pickle.dumps([b"", b"abc", b"x" * 300], 4)) == [b"", b"abc", b"x" * 300]


def test_python_2_strings_and_ordered_dict():
    """Read byte strings of Python 2, and its OrderedDict, a call with a list of pairs."""
    pairs = b"](](U\x01aK\x01e](T\x01\0\0\0bK\x02ee"
    state = b"}U\x09_metadata}sb"
    assert load_value(glob("collections", "OrderedDict") + pairs + b"\x85R" + state) == OrderedDict(
        a=1, b=2
    )


def test_stops_behind_each_pickle():
    stream = io.BytesIO(pickled(1) + pickled({"a": 2}) + b"rest")
    assert [pickle.load(stream, CHECKPOINT), pickle.load(stream, CHECKPOINT), stream.read()] == [
        1,
        {"a": 2},
        b"rest",
    ]


def test_sharing_is_kept():
    shared: list = [1]
    found = load(python_pickle.dumps([shared, shared], 2))
    assert found[0] is found[1]


def test_metadata_is_dropped():
    value = load_value(glob("collections", "OrderedDict") + b")R}" + text("_metadata") + b"}sb")
    assert value == OrderedDict()
    assert not vars(value)


INERT = ["argparse.Namespace", "numpy.ndarray", "torch.device", "pathlib.PosixPath", "builtins.set"]


@pytest.mark.parametrize("module_name", INERT)
def test_placeholders_hold_nothing(module_name):
    module, _, name = module_name.rpartition(".")
    expected = Placeholder(Global(module, name))
    attributes = b"}" + text("path") + text("/etc/passwd") + b"sb"
    assert load_value(glob(module, name) + marked(text("x")) + b"R" + attributes) == expected
    assert load_value(glob(module, name) + b")\x81" + attributes) == expected


STRANGE = glob("mmengine.logging.history_buffer", "HistoryBuffer")
EMPTY = Placeholder(Global("mmengine.logging.history_buffer", "HistoryBuffer"))


@pytest.mark.parametrize(
    "code",
    {
        "called": STRANGE + marked(text("x"), b"]") + b"R",
        "new": STRANGE + b")\x81",
        "built": STRANGE + b")\x81}" + text("__class__") + b"Nsb",
        "slots": STRANGE + b")\x81N}\x86b",
        "items": STRANGE + b")\x81(N]}]u",
        "one_item": STRANGE + b")\x81]Ns",
        "appended": STRANGE + b")\x81(NNe]a",
        "old": b"(" + text("x") + b"immengine.logging.history_buffer\nHistoryBuffer\n",
        "older": b"(" + STRANGE + text("x") + b"o",
        "base": call("copy_reg", "_reconstructor", STRANGE, glob("__builtin__", "object"), b"N"),
        "keywords": STRANGE + b")}\x92",
    }.items(),
    ids=lambda item: item[0],
)
def test_strangers_are_empty_and_forget_all(code):
    with watching() as events:
        found = load_value(code[1])
    assert events == []
    assert found == EMPTY


def test_a_strange_name_is_only_a_name():
    assert load_value(STRANGE) == EMPTY.cls


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os.path", "join"),
        ("nt", "system"),
        ("commands", "getoutput"),
        ("numpy.core", "load"),
        ("torch.hub", "load"),
        ("pip._internal", "main"),
        ("mmengine", "__import__"),
        ("mmengine", "a.__globals__"),
        ("mmengine.utils", "os.system"),
        ("mmengine.utils", "_sys.modules"),
        ("pathlib", "os.system"),
        ("random", "_os.urandom"),
        ("builtins", "eval"),
        ("builtins", "__import__"),
        ("collections", "namedtuple"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "save"),
        ("numpy", "fromfile"),
        ("numpy.lib.npyio", "DataSource"),
        ("torch.jit._script", "RecursiveScriptModule"),
        ("logging.handlers", "SMTPHandler"),
        ("codecs", "open"),
        ("sh", "Command"),
        ("mmengine", ""),
        ("", "system"),
        ("mmengine ", "a"),
        ("mmengine..x", "a"),
        ("mm\u0435ngine", "a"),
        ("mmengine", "a" * 249),
    ],
)
def test_what_is_no_stranger_is_refused(module, name):
    with pytest.raises(UnsafeError):
        load_value(glob(module, name))


@pytest.mark.parametrize(
    "arguments",
    [
        (glob("argparse", "Namespace"), text("__class__")),
        (glob("collections", "OrderedDict"), text("fromkeys")),
        (glob("pathlib", "Path"), text("os.system")),
        (STRANGE, text("__init__")),
        (STRANGE, text("a" * 300)),
        (STRANGE, b"N"),
        (STRANGE + b")R", text("__dict__")),
        (STRANGE,),
    ],
)
def test_getattr_knows_only_harmless_names(arguments):
    with pytest.raises(UnsafeError):
        load_value(call("__builtin__", "getattr", *arguments))


def test_a_method_is_only_a_name():
    method = Global(EMPTY.cls.module, "HistoryBuffer.mean")
    for module in ("__builtin__", "builtins"):
        assert load_value(call(module, "getattr", STRANGE, text("mean"))) == method
        found = load_value(call(module, "getattr", STRANGE + b")R", text("mean")))
        assert found == Placeholder(method)


def test_an_empty_object_cannot_be_called():
    with pytest.raises(UnsafeError, match="calls a Placeholder"):
        load_value(STRANGE + b")\x81)R")


def test_where_arrays_are_read_there_are_no_strangers():
    with pytest.raises(UnsafeError, match="no data set needs"):
        load_value(STRANGE, vocabulary=uint8_arrays(1000))


def tensor_code(name, offset, size, stride, *more):
    return call("torch._utils", name, b"NQ", integer(offset), size, stride, *more)


def ints(*values):
    return marked(*map(integer, values))


def test_tensor_descriptions():
    hooks = glob("collections", "OrderedDict") + b")R"
    expected = Tensor(STORE, 2, (2, 3), (3, 1))
    two = (2, ints(2, 3), ints(3, 1))
    assert load_value(tensor_code("_rebuild_tensor", *two)) == expected
    assert load_value(tensor_code("_rebuild_tensor_v2", *two, b"\x89", hooks)) == expected
    assert load_value(tensor_code("_rebuild_tensor_v2", *two, b"\x88", b"N", b"}")) == expected
    parameter = call(
        "torch._utils", "_rebuild_parameter", tensor_code("_rebuild_tensor", *two), b"\x88", hooks
    )
    assert load_value(parameter) == expected
    assert load_value(call("torch", "Size", ints(2, 3))) == (2, 3)


def test_marks_of_a_tensor():
    """With "neg", PyTorch computes with the numbers of the other sign."""
    two = (2, ints(2, 3), ints(3, 1), b"\x89", b"N")
    for unset in (b"N", b"}" + text("neg") + b"\x89s"):
        assert load_value(tensor_code("_rebuild_tensor_v2", *two, unset)).size == (2, 3)
    for marks in (b"}" + text("neg") + b"\x88s", b"}" + text("other") + b"K\1s", b"]"):
        with pytest.raises(FormatError, match="its numbers are not those in the file"):
            load_value(tensor_code("_rebuild_tensor_v2", *two, marks))


@pytest.mark.parametrize(
    ("offset", "size", "stride", "fits"),
    [
        (0, (12,), (1,), True),
        (0, (13,), (1,), False),
        (1, (12,), (1,), False),
        (11, (), (), True),
        (12, (), (), False),
        (0, (3, 4), (4, 1), True),
        (0, (4, 3), (1, 4), True),
        (0, (4, 3), (1, 5), False),
        (0, (2, 2), (11, 0), True),
        (0, (2, 2), (11, 1), False),
        (12, (0,), (1,), True),
        (13, (0,), (1,), False),
        (0, (1, 12), (10**9, 1), True),
    ],
)
def test_bounds_to_the_element(offset, size, stride, fits):
    """The last element addressed, offset + sum (n - 1) stride, must be one of the storage's 12."""
    code = tensor_code("_rebuild_tensor", offset, ints(*size), ints(*stride))
    if fits:
        assert load_value(code) == Tensor(STORE, offset, size, stride)
    else:
        with pytest.raises(UnsafeError, match="of a storage of 12"):
            load_value(code)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "namedtuple")],
)
def test_a_name_need_not_be_called_to_be_refused(module, name):
    for code in (
        glob(module, name),
        b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93",
    ):
        with watching() as events, pytest.raises(UnsafeError, match=f"{module}.{name}"):
            load_value(code)
        assert events == []


@pytest.mark.parametrize(
    "code",
    [b"(Nq\x07Nq\x07t", b"(Nq\x01N\x94N\x94t", b"Nr\1\0\0\0q\1", b"h\x07", b"j\1\0\0\0", b"(q\0t"],
)
def test_memo_slots_are_written_once_and_before_they_are_read(code):
    with pytest.raises(FormatError, match="memo slot"):
        load_value(code)


def test_a_key_is_set_once():
    for code in (b"}" + b"(" + (text("a") + b"N") * 2 + b"u", b"}" + (text("a") + b"Ns") * 2):
        with pytest.raises(FormatError, match="'a' twice"):
            load_value(code)


def test_persistent_ids_need_a_place():
    with pytest.raises(UnsafeError, match="where there is none"):
        load(b"\x80\x02NQ.")


@pytest.mark.parametrize("opcode", sorted({*range(256)} - {*pickle._OPCODES, ord(".")}))
def test_every_other_opcode_is_refused(opcode):
    """On a stack that has something for each of them."""
    fuel = b"(" + b"N" * 6 + text("abc") + b"}" + bytes([opcode]) + b"1\n2\n" * 8 + b"."
    with watching() as events, pytest.raises(WeightsError, match=f"0x{opcode:02x}"):
        load(b"\x80\x02" + fuel)
    assert events == []


def test_the_opcodes_are_those_of_pickletools():
    """Every opcode that is read is one that Python documents for protocol 2 or as its shorthand."""
    documented = {ord(op.code): op.name for op in pickletools.opcodes}
    names = {documented[code] for code in pickle._OPCODES}
    assert not names & {
        "EXT1",
        "EXT2",
        "EXT4",
        "PERSID",
        "DUP",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
    }


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        (b"(" * pickle_stack.MAX_DEPTH + b"t" * pickle_stack.MAX_DEPTH, True),
        (b"(" * (pickle_stack.MAX_DEPTH + 1) + b"t" * (pickle_stack.MAX_DEPTH + 1), False),
        (b"Nr" + struct.pack("<I", pickle_stack.MAX_MEMO - 1), True),
        (b"Nr" + struct.pack("<I", pickle_stack.MAX_MEMO), False),
    ],
    ids=lambda v: f"{len(v)}_bytes" if isinstance(v, bytes) else "at" if v else "beyond",
)
def test_limits_are_where_they_say(code, limit):
    """A MARK beyond the limit, and a slot of the memo."""
    if limit:
        load_value(code)
    else:
        with pytest.raises(UnsafeError):
            load_value(code)


def test_opcodes_are_counted():
    """MARK and TUPLE count as well."""
    assert len(load_value(b"(" + b"N" * 98 + b"t", max_opcodes=100)) == 98
    with pytest.raises(UnsafeError, match="more opcodes"):
        load_value(b"(" + b"N" * 99 + b"t", max_opcodes=100)


def test_long_texts_are_passed_over():
    longest = "a" * pickle_names.MAX_TEXT
    passed = Placeholder(Global("builtins", "str"))
    for protocol in range(6):
        found = load(python_pickle.dumps([longest, longest + "a", 1], protocol))
        assert found == [longest, passed, 1]
        found = load(python_pickle.dumps([b"\xff" * (1 << 17), 2], protocol))
        assert found[1] == 2


def test_memory_is_bounded_and_histories_are_not():
    """A list or dict keeps 50,000 items; what it forgets takes no memory any more."""
    code = b"(" + b"}" * 30 + b"t"
    small = replace(CHECKPOINT, most_memory=5_000)
    assert len(load_value(code, vocabulary=small)) == 30
    with pytest.raises(UnsafeError, match=r"more than 5,000 bytes"):
        load_value(b"(" + b"}" * 40 + b"t", vocabulary=small)
    histories = (  # and the protocol in which each is written
        (2, [i / 3 for i in range(60_000)]),
        (4, [f"{i}.jpg" for i in range(60_000)]),
        (4, {i: {"loss": i / 3} for i in range(60_000)}),
        (2, [(f"{i}.jpg", {"a": [i]}) for i in range(60_000)]),
    )
    small = replace(CHECKPOINT, most_memory=40 << 20)
    for protocol, values in histories:
        found = load(python_pickle.dumps(values, protocol), small)
        assert len(found) == 50_000
    code = b"](" + b"N" * 50_000 + b"e" + (b"(" + b"}N]" * 400 + b"e") * 100
    assert len(load_value(code, vocabulary=replace(CHECKPOINT, most_memory=1_500_000))) == 50_000


def test_what_is_remembered_counts():
    """A list forgets items, but not the memo: there they stay, and take memory."""
    code = b"](" + b"N" * 50_000 + b"e"
    kept = b"".join(b"(}r%b}e" % struct.pack("<I", i) for i in range(8_000))
    asked = b"".join(b"j%b" % struct.pack("<I", i) for i in range(8_000))
    small = replace(CHECKPOINT, most_memory=1_500_000)
    with pytest.raises(UnsafeError, match="more than"):
        load_value(b"(" + code + kept + asked + b"t", vocabulary=small)


def test_tuples_that_contain_themselves():
    """Python writes POP, or POP_MARK, and then asks for the tuple that it has remembered."""
    for more in ((), (1, 2, 3)):
        inner: list = []
        whole = (inner, *more)
        inner.append(whole)
        for protocol in range(6):
            found = load(python_pickle.dumps(whole, protocol))
            assert found[0][0] is found


def test_pairs_count_against_the_budget():
    """Three opcodes copy a list of any length into a dict, so the pairs are counted."""
    pairs = b"](" + b"".join(marked(text(f"k{i}"), b"N") for i in range(100)) + b"eq\x01\x85q\x02"
    again = glob("collections", "OrderedDict") + b"h\x02R"
    assert len(load_value(b"(" + pairs + again * 2 + b"t", max_opcodes=800)) == 3
    with pytest.raises(UnsafeError, match="more opcodes"):
        load_value(b"(" + pairs + again * 5 + b"t", max_opcodes=800)


def test_random_streams():
    """2,000 random opcode soups: a value or a typed error, and nothing happens besides."""
    rng = np.random.default_rng(20260601)
    alphabet = [bytes([c]) for c in [*pickle._OPCODES, ord(".")]] * 4 + [
        bytes([c]) for c in range(256)
    ]
    alphabet += [
        text("abc"),
        integer(5),
        ints(2, 2),
        b"(",
        b")",
        b"}",
        b"]",
        glob("collections", "OrderedDict"),
    ] * 12
    alphabet += [
        glob("torch._utils", "_rebuild_tensor_v2"),
        glob("torch", "FloatStorage"),
        b"NQ",
        b"q\x01",
        b"h\x01",
    ] * 12
    refused = 0
    for _ in range(2000):
        soup = b"".join(alphabet[i] for i in rng.integers(len(alphabet), size=rng.integers(1, 60)))
        with watching() as events:
            try:
                load_value(soup)
            except (FormatError, UnsafeError):
                refused += 1
        assert events == []
    assert 1000 < refused < 2000
