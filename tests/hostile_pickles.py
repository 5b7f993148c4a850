"""Checkpoints whose pickle asks for code, lies about its tensors or cannot be meant: the P cases.

Each is put into both containers where that makes sense. `hostile_containers` has those of the
containers themselves.
"""

from __future__ import annotations

import struct

import numpy as np
from torch_files import (
    Entry,
    Raw,
    Storage,
    View,
    Zip,
    call,
    glob,
    integer,
    legacy_file,
    marked,
    numbers,
    pickled,
    small_state,
    tensor,
    text,
    zip_entries,
    zip_file,
)

from tinyresnext.errors import FormatError, UnsafeError, WeightsError

MARKER = "touch /tmp/tinyresnext-was-here"  # what the attacks would run

# What P01 to P20 name: id, module, names.
GADGETS = [
    ("P01", "os", "system popen execv"),
    ("P02", "posix", "system"),
    ("P02", "nt", "system"),
    ("P03", "builtins", "eval exec compile getattr open __import__ breakpoint input"),
    ("P03", "__builtin__", "eval exec compile getattr open __import__ apply execfile"),
    ("P04", "subprocess", "Popen check_output"),
    ("P05", "runpy", "_run_code run_path"),
    ("P06", "importlib", "import_module __import__"),
    ("P07", "pkgutil", "resolve_name"),
    ("P08", "marshal", "loads"),
    ("P08", "types", "FunctionType CodeType"),
    ("P09", "operator", "attrgetter methodcaller"),
    ("P10", "functools", "partial reduce"),
    ("P11", "timeit", "timeit"),
    ("P11", "cProfile", "run"),
    ("P11", "profile", "run"),
    ("P11", "pdb", "run"),
    ("P11", "bdb", "Bdb"),
    ("P11", "doctest", "debug_script"),
    ("P11", "trace", "Trace"),
    ("P12", "pydoc", "pipepager"),
    ("P12", "pip", "main"),
    ("P12", "ensurepip", "_run_pip"),
    ("P12", "venv", "create"),
    ("P12", "idlelib.run", "Executive"),
    ("P12", "lib2to3.pgen2.driver", "load_grammar"),
    ("P13", "webbrowser", "open"),
    ("P13", "urllib.request", "urlopen"),
    ("P13", "http.client", "HTTPSConnection"),
    ("P13", "socket", "create_connection"),
    ("P13", "ssl", "get_server_certificate"),
    ("P13", "smtplib", "SMTP"),
    ("P13", "imaplib", "IMAP4"),
    ("P14", "ctypes", "CDLL"),
    ("P15", "_io", "FileIO"),
    ("P15", "logging", "FileHandler"),
    ("P15", "shutil", "rmtree"),
    ("P15", "distutils.file_util", "write_file"),
    ("P15", "pathlib", "Path.write_text PosixPath.unlink"),
    ("P15", "joblib", "load"),
    ("P15", "dill._dill", "_create_function"),
    ("P15", "yaml", "unsafe_load"),
    ("P16", "uuid", "_get_command_stdout"),
    ("P16", "_osx_support", "_read_output"),
    ("P16", "_aix_support", "_read_cmd_output"),
    ("P16", "_pyrepl.pager", "pipe_pager"),
    ("P17", "numpy.f2py.crackfortran", "getlincoef"),
    ("P17", "numpy.testing._private.utils", "runstring"),
    ("P17", "numpy", "load"),
    ("P18", "torch", "load"),
    ("P18", "torch.jit", "load"),
    ("P18", "torch._dynamo.guards", "GuardBuilder"),
    ("P18", "torch._inductor.codecache", "compile_file"),
    ("P18", "torch.utils.bottleneck.__main__", "run_cprofile"),
    ("P18", "torch.utils.collect_env", "run"),
    ("P19", "pickle", "loads"),
    ("P19", "_pickle", "loads"),
    ("P45", "mmengine.logging.history_buffer", "HistoryBuffer HistoryBuffer.mean"),
    ("P45", "my_project.models", "Net"),
    ("P45", "mmengine", "__import__ a.__globals__"),
    ("P20", "collections", "OrderedDict.__init__.__globals__ namedtuple"),
    ("P43", "os\u200b", "system"),
    ("P43", " collections", "OrderedDict"),
    ("P43", "c\u043ellections", "OrderedDict"),
    ("P43", "collections", "OrderedDict\r"),
    ("P43", "torch._utils", "_rebuild_tensor_v2\x00"),
]


def stack_global(module, name):
    return (
        b"".join(b"\x8c" + bytes([len(s.encode())]) + s.encode() for s in (module, name)) + b"\x93"
    )


def beside(code):
    """A good state dict with one more entry, made by these opcodes, inside of a module."""
    return {**small_state(), "layer1.extra": Raw(code)}


def in_zip(code):
    """The zip file around `beside`, with the storage that `FOUR` names."""
    entries = zip_entries(beside(code))
    if FOUR[2] in code:
        entries.append(Entry("model/data/9", numbers(4).tobytes()))
    return Zip(entries).build()


def pid(*parts):
    return marked(*parts) + b"Q"


FLOAT = glob("torch", "FloatStorage")
FOUR = [
    text("storage"),
    FLOAT,
    text("9"),
    text("cpu"),
    integer(4),
]  # a storage of four floats, which `in_zip` adds to the file
ORDERED = glob("collections", "OrderedDict") + b")R"


def rebuilt(*arguments, name="_rebuild_tensor_v2", tail=(b"\x89", ORDERED)):
    """A call of the tensor function with a good storage of 4 floats in front."""
    return call("torch._utils", name, pid(*FOUR), *arguments, *tail)


def ints(*values):
    return marked(*map(integer, values))


def pickle_cases():
    """Opcodes that stand for one value of the state dict: id -> (opcodes, error)."""
    out = {}
    for case, module, names in GADGETS:
        for name in names.split(" "):
            label = f"{case}-{ascii(module)[1:-1]}.{ascii(name)[1:-1]}".replace(" ", "_")
            out[label] = call(module, name, text(MARKER)), UnsafeError
            out[f"{label}-stack_global"] = (
                stack_global(module, name) + marked(text(MARKER)) + b"R",
                UnsafeError,
            )
    unsafe = {
        "P19-nested_bytes": call("pickle", "loads", b"B" + struct.pack("<I", 8) + b"cos\nx\n.."),
        "P21-inst": b"(" + text(MARKER) + b"ios\nsystem\n",
        "P21-inst_permitted_name": b"(icollections\nOrderedDict\n",
        "P22-obj": b"(" + glob("collections", "OrderedDict") + text(MARKER) + b"o",
        "P22-obj_then_pop": b"N(" + glob("argparse", "Namespace") + b"o0",
        "P22-pop_hides_object": b"NN0",
        "P22-pop_mark": b"N(N1",
        "P22-pop_then_put": b"NN0q\x01",
        "P22-pop_then_pop_mark": b"(NN01N",
        "P23-newobj_system": glob("os", "system") + marked(text(MARKER)) + b"\x81",
        "P23-newobj_ordered_dict": glob("collections", "OrderedDict") + b")\x81",
        "P23-newobj_storage": FLOAT + b")\x81",
        "P23-newobj_ex": glob("argparse", "Namespace") + b")}\x92",
        "P24-ext1": b"\x82\x01",
        "P24-ext2": b"\x83\x01\x00",
        "P24-ext4": b"\x84\x01\x00\x00\x00",
        "P25-build_setstate": ORDERED + b"}" + text("__setstate__") + b"Nsb",
        "P25-build_shadow_items": ORDERED + b"}" + text("items") + b"]sb",
        "P25-build_metadata_and_items": ORDERED
        + b"}("
        + text("_metadata")
        + b"}"
        + text("items")
        + b"]ub",
        "P25-build_slotstate": ORDERED + marked(b"N", b"}") + b"b",
        "P25-build_class": ORDERED
        + b"}"
        + text("__class__")
        + glob("argparse", "Namespace")
        + b"sb",
        "P26-build_dict": b"}}b",
        "P26-build_list": b"]}b",
        "P26-build_global": glob("collections", "OrderedDict") + b"}b",
        "P26-build_tensor": rebuilt(b"K\0", ints(4), ints(1)) + b"}b",
        "P27-call_a_dict": b"})R",
        "P27-call_text": text("os.system") + b")R",
        "P27-call_storage_class": FLOAT + ints(4) + b"R",
        "P27-reduce_without_tuple": glob("collections", "OrderedDict") + b"]R",
        "P29-setitem_list": b"]K\0Ns",
        "P29-setitem_int": b"K\0K\0Ns",
        "P29-setitem_text": text("abc") + b"K\0Ns",
        "P29-setitem_tuple": b")K\0Ns",
        "P29-setitem_storage": pid(*FOUR) + b"K\0Ns",
        "P29-setitems_placeholder": glob("argparse", "Namespace") + b")\x81(K\0Nu",
        "P30-append_dict": b"}Na",
        "P30-append_ordered_dict": ORDERED + b"Na",
        "P30-appends_tuple": b")(NNe",
        "P31-key_list": b"}]Ns",
        "P31-key_dict": b"}}Ns",
        "P31-key_tuple": b"})Ns",
        "P31-key_nested_tuple": b"})" + b"\x85" * 200_000 + b"Ns",
        "P31-key_float": b"}G" + bytes(8) + b"Ns",
        "P31-key_none": b"}NNs",
        "P31-ordered_dict_key_list": call("collections", "OrderedDict", b"](](]Nee"),
        "P32-pid_text": text("../../etc/passwd") + b"Q",
        "P32-pid_tag": pid(text("module"), *FOUR[1:]),
        "P32-pid_module": pid(
            text("module"), glob("argparse", "Namespace"), text("/etc/passwd"), text("import os")
        ),
        "P32-pid_short": pid(*FOUR[:3]),
        "P32-pid_long": pid(*FOUR, b"N", b"N", b"N"),
        "P32-pid_path_key": pid(
            text("storage"), FLOAT, text("../../etc/passwd"), text("cpu"), integer(4)
        ),
        "P32-pid_int_key": pid(text("storage"), FLOAT, integer(0), text("cpu"), integer(4)),
        "P32-pid_arabic_digit_key": pid(
            text("storage"), FLOAT, text("\u0663"), text("cpu"), integer(4)
        ),
        "P32-pid_unknown_class": pid(text("storage"), glob("torch", "OddFloatStorage"), *FOUR[2:]),
        "P32-pid_class_text": pid(text("storage"), text("FloatStorage"), *FOUR[2:]),
        "P32-pid_class_function": pid(
            text("storage"), glob("torch._utils", "_rebuild_tensor"), *FOUR[2:]
        ),
        "P32-pid_location_global": pid(*FOUR[:3], glob("torch", "device"), integer(4)),
        "P32-pid_numel_negative": pid(*FOUR[:4], integer(-1)),
        "P32-pid_numel_huge": pid(*FOUR[:4], integer(1 << 62)),
        "P32-pid_numel_bigger_than_int64": pid(*FOUR[:4], integer(1 << 200)),
        "P32-pid_numel_float": pid(*FOUR[:4], b"G" + struct.pack(">d", 4.0)),
        "P32-pid_numel_bool": pid(*FOUR[:4], b"\x88"),
        "P33-no_arguments": call("torch._utils", "_rebuild_tensor_v2"),
        "P33-v1_three_arguments": rebuilt(b"K\0", ints(4), name="_rebuild_tensor", tail=()),
        "P33-v2_eight_arguments": rebuilt(
            b"K\0", ints(4), ints(1), tail=(b"\x89", ORDERED, b"N", b"N")
        ),
        "P33-storage_is_text": call(
            "torch._utils",
            "_rebuild_tensor_v2",
            text("9"),
            b"K\0",
            ints(4),
            ints(1),
            b"\x89",
            ORDERED,
        ),
        "P33-size_negative": rebuilt(b"K\0", ints(-4), ints(1)),
        "P33-size_beyond": rebuilt(b"K\0", ints(5), ints(1)),
        "P33-size_huge": rebuilt(b"K\0", ints(1 << 61), ints(1)),
        "P33-size_product_overflows": rebuilt(b"K\0", ints(*[1 << 31] * 4), ints(0, 0, 0, 0)),
        "P33-size_zero_times_huge": rebuilt(b"K\0", ints(0, 1 << 61), ints(1, 1)),
        "P33-size_float": rebuilt(b"K\0", marked(b"G" + struct.pack(">d", 4.0)), ints(1)),
        "P33-size_bool": rebuilt(b"K\0", marked(b"\x88"), ints(1)),
        "P33-size_list": rebuilt(b"K\0", b"](K\4e", ints(1)),
        "P33-stride_negative": rebuilt(b"K\3", ints(4), ints(-1)),
        "P33-stride_beyond": rebuilt(b"K\0", ints(2, 2), ints(3, 1)),
        "P33-stride_huge": rebuilt(b"K\0", ints(2), ints(1 << 61)),
        "P33-stride_of_other_length": rebuilt(b"K\0", ints(2, 2), ints(1)),
        "P33-offset_negative": rebuilt(integer(-1), ints(4), ints(1)),
        "P33-offset_beyond": rebuilt(integer(1), ints(4), ints(1)),
        "P33-offset_beyond_empty": rebuilt(integer(5), ints(0), ints(1)),
        "P33-nine_dimensions": rebuilt(b"K\0", ints(*[1] * 9), ints(*[1] * 9)),
        "P33-100000_dimensions": rebuilt(b"K\0", ints(*[1] * 100_000), ints(*[1] * 100_000)),
        "P33-hooks": rebuilt(
            b"K\0",
            ints(4),
            ints(1),
            tail=(b"\x89", ORDERED + b"K\0" + glob("torch", "Size") + b"s"),
        ),
        "P33-hooks_list": rebuilt(b"K\0", ints(4), ints(1), tail=(b"\x89", b"]")),
        "P33-requires_grad_text": rebuilt(b"K\0", ints(4), ints(1), tail=(text("yes"), ORDERED)),
        "P33-parameter_of_text": call(
            "torch._utils", "_rebuild_parameter", text("x"), b"\x88", ORDERED
        ),
        "P33-parameter_arity": call(
            "torch._utils", "_rebuild_parameter", rebuilt(b"K\0", ints(4), ints(1))
        ),
        "P33-size_of_text": call("torch", "Size", text("abc")),
        "P33-ordered_dict_of_text": call("collections", "OrderedDict", text("abc")),
        "P33-ordered_dict_of_triples": call(
            "collections", "OrderedDict", b"](" + ints(1, 2, 3) + b"e"
        ),
        "P34-long_binput_2e31": b"Nr" + struct.pack("<I", 1 << 31),
        "P34-long_binput_2e32": b"Nr" + struct.pack("<I", 0xFFFFFFFF),
        "P35-binunicode_4g": b"X\xff\xff\xff\xff",
        "P35-binbytes_4g": b"B\xff\xff\xff\xff",
        "P35-binstring_negative": b"T\xff\xff\xff\xff",
        "P36-marks": b"(" * 1_000_001,
        "P36-dup": b"N" + b"2" * 1000,
        "P36-million_none": b"(" + b"N" * 1_000_000 + b"t",
        "P36-million_dicts": b"(" + b"}" * 1_000_000 + b"t",
        "P36-million_memoize": b"(" + b"]\x94" * 500_000 + b"t",
        "P36-million_tuples": b")" + b"\x85" * 1_000_000,
        "P36-ordered_dicts": b"("
        + glob("collections", "OrderedDict")
        + b"q\xff)R"
        + b"h\xff)R" * 400_000
        + b"t",
        "P36-one_item_dicts": b"(" + b"}K\0Ns" * 300_000 + b"t",
        "P37-laughs_by_ordered_dict": b"("
        + b"]("
        + b"".join(marked(text(f"k{i}"), b"N") for i in range(20_000))
        + b"eq\xfe\x85q\xfd"
        + (glob("collections", "OrderedDict") + b"h\xfdR") * 1000
        + b"t",
        "P44-key_bytes": b"}C\1aNs",
        "P45-stranger_as_tensor": glob("trainer", "Tensor") + b")\x81}b",
        "P45-name_as_tensor": glob("trainer", "Tensor"),
        "P45-method_as_tensor": call(
            "__builtin__", "getattr", glob("trainer", "Tensor"), text("data")
        ),
        "P45-getattr_of_gadget": call(
            "__builtin__", "getattr", glob("argparse", "Namespace"), text("__class__")
        ),
        "P45-call_of_stranger": glob("trainer", "Tensor") + b")\x81)R",
        "P45-storage_of_stranger": pid(text("storage"), glob("trainer", "FloatStorage"), *FOUR[2:]),
        "P45-tensor_of_stranger": call(
            "torch._utils",
            "_rebuild_tensor",
            glob("trainer", "Storage") + b")\x81",
            b"K\0",
            ints(4),
            ints(1),
        ),
        "P45-hooks_of_stranger": rebuilt(
            b"K\0", ints(4), ints(1), tail=(b"\x89", glob("trainer", "Hooks") + b")\x81")
        ),
        "P45-endless_name": stack_global("trainer", "a" * 255),
        "P45-long_names_of_methods": b"("
        + text("a" * (1 << 20))
        + b"q\x07"
        + (glob("__builtin__", "getattr") + marked(glob("trainer", "T"), b"h\x07") + b"R") * 1000
        + b"t",
    }
    # harmless beside the weights, and no tensors
    for name in (
        "P23-newobj_ex",
        "P29-setitems_placeholder",
        "P35-binbytes_4g",
        "P35-binunicode_4g",
        "P36-million_memoize",
        "P36-million_none",
        "P44-key_bytes",
        *(name for name in unsafe if name.startswith("P31-")),
    ):
        out[name] = unsafe.pop(name), FormatError
    out |= {name: (code, UnsafeError) for name, code in unsafe.items()}
    malformed = {
        "P27-put_twice": b"(Nq\x07Nq\x07t",
        "P27-memoize_on_put": b"(Nq\x01N\x94N\x94t",
        "P27-get_unwritten": b"h\x63",
        "P27-put_on_empty_level": b"(q\x09t",
        "P33-setitems_odd": b"}(" + text("a") + b"u",
        "P35-binunicode8": b"\x8d" + struct.pack("<Q", 1 << 40),
        "P35-binbytes8": b"\x8e" + struct.pack("<Q", 1 << 62),
        "P35-bytearray8": b"\x96" + struct.pack("<Q", 1 << 62),
        "P35-frame_2e62": b"\x95" + struct.pack("<Q", 1 << 62) + b"N",
        "P28-frame_straddle": b"\x95" + struct.pack("<Q", 2) + text("abc"),
        "P28-frame_nested": b"\x95" + struct.pack("<Q", 40) + b"\x95" + struct.pack("<Q", 2) + b"N",
        "P37-billion_laughs": b"](Ne"
        + b"".join(b"q%c\x85" % i + b"h%c\x86" % i for i in range(1, 30)),
        "P38-cyclic_list": b"]q\x01h\x01a",
        "P38-cyclic_dict": b"}q\x01" + text("self") + b"h\x01s",
        "P39-underflow": b"(R",
        "P39-tuple3_underflow": b"(N\x87",
        "P39-tuple_without_mark": b"ttttt",
        "P40-bad_utf8": b"X\2\0\0\0\xff\xfe",
        "P40-surrogate": text("\ud800"),
        "P40-global_bad_utf8": b"c\xff\xfe\nsystem\n",
        "P40-global_endless": b"c" + b"a" * 100_000,
        "P40-int_million_digits": b"I" + b"9" * 1_000_000 + b"\n",
        "P40-long_million_digits": b"L" + b"9" * 1_000_000 + b"L\n",
        "P40-long4": b"\x8b" + struct.pack("<i", 1 << 30),
        "P40-unicode_text": b"}V\\u12\nNs",
        "P40-string_text": b"S'abc\n",
        "P40-string_escape": b"S'\\x1'\n",
        "P40-float_text": b"F1_0\n",
        "P40-int_text": b"I1_0\n",
        "P40-int_arabic": "I\u0663\n".encode(),
        "P40-long_text": b"L1.5L\n",
        "P40-get_text": b"g-1\n",
        "P40-put_text": b"Np1_0\n",
        "P36-wide_text": b"](" + text("\U0001f600" + "a" * (5 << 20)) + b"e",
        "P36-many_wide_texts": b"(" + text("\U0001f600" + "a" * (1 << 19)) * 9 + b"t",
        "P40-empty_set": b"\x8f",
        "P40-next_buffer": b"\x97",
        "P40-undefined_opcode": b"\xff",
        "P41-proto_inside": b"\x80\x02N",
        "P44-list_of_numbers": b"](K\1K\2e",
        "P44-name_twice": rebuilt(b"K\0", ints(4), ints(1))
        + text("again")
        + b"K\1"
        + text("again")
        + b"K\2",
        "P44-dict_value": b"}" + text("a") + b"Ns",
        "P44-placeholder_value": glob("argparse", "Namespace") + b")\x81",
        "P44-bytes_value": b"C\1a",
        "P44-global_value": glob("torch", "FloatStorage"),
        "P44-storage_value": b"]",
    }
    out |= {name: (code, FormatError) for name, code in malformed.items()}
    out["P32-persid_text"] = b"P0\n", UnsafeError
    return out


def whole_pickle_cases():
    """Whole pickles in the place of the object: id -> (pickle, error)."""
    good = pickled({"a": None})
    state = pickled(small_state())
    return {
        "P39-empty": (b"", FormatError),
        "P39-one_byte": (b"\x80", FormatError),
        "P39-no_stop": (state[:-1], FormatError),
        "P39-only_stop": (b"\x80\x02.", FormatError),
        "P39-two_objects": (b"\x80\x02}}.", FormatError),
        "P39-open_mark": (b"\x80\x02(}.", FormatError),
        "P41-protocol_0": (b"(dp0\n.", FormatError),
        "P41-protocol_1": (b"}.", FormatError),
        "P41-protocol_6": (b"\x80\x06}.", FormatError),
        "P41-protocol_255": (b"\x80\xff}.", FormatError),
        "P42-payload_before": (
            b"\x80\x02" + call("os", "system", text(MARKER)) + b"0" + state[2:],
            UnsafeError,
        ),
        "P42-pickle_before": (good + state, WeightsError),
        "P42-pickle_after_stop": (
            state + pickled(Raw(call("os", "system", text(MARKER)))),
            WeightsError,
        ),
        "P42-bytes_after_stop": (state + b"\0", WeightsError),
        "P28-stop_inside_frame": (b"\x80\x04\x95" + struct.pack("<Q", 100) + b"}.", FormatError),
        "P44-top_is_list": (pickled([1]), FormatError),
        "P44-top_is_none": (pickled(None), FormatError),
        "P44-top_is_text": (pickled("weights"), FormatError),
        "P44-top_is_empty": (pickled({}), FormatError),
        "P44-top_is_options": (
            pickled({"epoch": 3, "args": Raw(glob("argparse", "Namespace") + b")\x81}b")}),
            FormatError,
        ),
        "P44-wrapper_is_cyclic": (b"\x80\x02}q\0" + text("state_dict") + b"h\0s.", FormatError),
        "P45-top_is_strange_name": (pickled(Raw(glob("trainer", "State"))), UnsafeError),
        "P45-top_is_strange": (pickled(Raw(call("trainer", "State", text(MARKER)))), UnsafeError),
        "P45-state_dict_is_strange": (
            pickled({"state_dict": Raw(call("trainer", "State"))}),
            FormatError,
        ),
        "P44-whole_model": (
            pickled(Raw(glob("torchvision.models.resnet", "ResNet") + b")\x81}b")),
            UnsafeError,
        ),
    }


def name_cases():
    """State dicts with names that no network has."""
    one = tensor(np.zeros(2, np.float32))
    names = [
        "",
        "../x",
        "/etc/passwd",
        "a/b",
        "__class__",
        "a.__dict__",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a\n",
        "a\0b",
        "w\u00e9ight",
        7,
    ]
    cases = {f"P44-name_{ascii(n)[:20]}": {n: one} for n in names}
    cases["P44-name_of_1_MB"] = {"a" * (1 << 20): one}
    for name, value in cases.items():
        yield name, value, FormatError


def expansion_cases():
    """A small file whose tensors would fill the memory."""
    store = Storage(numbers(1000), "Float")
    yield "P33-expand_bomb", {"w": View(store, 0, (1 << 20, 1 << 19), (0, 0))}, UnsafeError
    yield "P33-4_GiB_expand", {"w": View(store, 0, (1 << 20, 1000), (0, 1))}, UnsafeError
    yield (
        "P33-many_views_bomb",
        {f"w{i}": View(store, 0, (900, 100), (1, 1)) for i in range(500)},
        UnsafeError,
    )


def cases():
    """Every P case as a file: (id, bytes, error)."""
    for name, (code, error) in pickle_cases().items():
        yield f"{name}-zip", in_zip(code), error
        if FOUR[2] not in code and not name.startswith("P32") and not name.endswith("stack_global"):
            yield f"{name}-legacy", legacy_file(beside(code)), error
    for name, (data, error) in whole_pickle_cases().items():
        entries = zip_entries(small_state() if b"conv1" in data else {}, pickle=data)
        yield f"{name}-zip", Zip(entries).build(), error
    for name, value, error in [*name_cases(), *expansion_cases()]:
        yield f"{name}-zip", zip_file(value), error
        yield f"{name}-legacy", legacy_file(value), error
