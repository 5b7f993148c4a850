"""Convolutions of integers: the same bits on every backend, and those that five loops compute."""

from __future__ import annotations

import ctypes
import itertools

import numba
import numpy as np
import pytest
from llvmlite import binding, ir

from tinyresnext.errors import DeviceError
from tinyresnext.ops import cpu, integer, reference, shapes
from tinyresnext.ops.cpu.conv.geometry import Geometry
from tinyresnext.ops.cpu.conv.integer import cutting, epilogue, narrow, narrow_tile, strips, tile
from tinyresnext.ops.cpu.conv.integer import forward as int8
from tinyresnext.ops.cpu.conv.integer import words as integer_words
from tinyresnext.ops.cpu.runtime import simd

# n, h, w, c_in, c_out, kernel, stride, padding, groups
CASES = {
    "1x1": (2, 5, 7, 16, 16, 1, 1, 0, 1),
    "1x1, odd channels, stride": (1, 7, 6, 13, 11, 1, 2, 0, 1),
    "one channel": (1, 3, 3, 1, 1, 1, 1, 0, 1),
    "1x1 of words, stride": (2, 7, 6, 16, 24, 1, 2, 0, 1),
    "3x3 of words, no padding, groups of 20": (2, 6, 7, 40, 40, 3, (2, 1), 0, 2),
    "no image": (0, 5, 5, 16, 16, 1, 1, 0, 1),
    "no image, groups of 4": (0, 5, 5, 16, 16, 3, 1, 1, 4),
    "3x3 of groups of 4": (1, 6, 9, 32, 32, 3, 1, 1, 8),
    "3x3 of groups of 4, stride": (2, 7, 7, 16, 16, 3, 2, 1, 4),
    "3x3 of groups of 8": (1, 5, 7, 80, 80, 3, 1, 1, 10),
    "3x3 of groups of 8 to 4": (2, 4, 5, 24, 12, 3, 1, 1, 3),
    "3x3 of groups of 16 to 4": (1, 4, 5, 48, 12, 3, 1, 1, 3),
    "3x3 of groups of 2": (1, 5, 4, 34, 34, 3, 2, 1, 17),
    "3x3 of groups of 6": (1, 5, 5, 18, 18, 3, 1, 1, 3),
    "3x3 of groups of 1": (1, 4, 5, 6, 6, 3, 1, 1, 6),
    "groups that widen": (1, 4, 4, 6, 40, 3, 1, 1, 2),
    "5 x 2 kernel": (1, 8, 5, 3, 9, (5, 2), (2, 1), (2, 0), 1),
    "many positions": (1, 31, 33, 8, 8, 1, 1, 0, 1),
}
SMALL = (
    "1x1, odd channels, stride",
    "one channel",
    "3x3 of groups of 6",
    "3x3 of groups of 1",
    "3x3 of groups of 8 to 4",
    "3x3 of groups of 16 to 4",
)
JIT = not numba.config.DISABLE_JIT


def arrays(case, signed, seed=0):
    """Return input, weight, factor, bias and attributes of a case."""
    n, h, w, c_in, c_out, kernel, stride, padding, groups = CASES[case]
    k_h, k_w = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    rng = np.random.default_rng(seed)
    low, high, kind = (-127, 128, np.int8) if signed else (0, 256, np.uint8)
    x = rng.integers(low, high, (n, h, w, c_in)).astype(kind)
    weight = rng.integers(-127, 128, (c_out, c_in // groups, k_h, k_w)).astype(np.int8)
    factor = rng.uniform(1e-5, 1e-3, c_out).astype(np.float32)
    factor[::3] *= -1
    bias = rng.normal(0, 1, c_out).astype(np.float32)
    return x, weight, factor, bias, {"stride": stride, "padding": padding, "groups": groups}


def by_loops(x, weight, factor, bias, stride, padding, groups):
    """Return the exact sums, in Python's integers."""
    (s_h, s_w), (p_h, p_w) = (a if isinstance(a, tuple) else (a, a) for a in (stride, padding))
    n, h_out, w_out, c_out = shapes.conv2d_int8(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups
    )
    _, c_group, k_h, k_w = weight.shape
    sums = np.zeros((n, h_out, w_out, c_out), np.int64)
    for b, r, s, o in np.ndindex(*sums.shape):
        first = o // (c_out // groups) * c_group
        for i, j, c in itertools.product(range(k_h), range(k_w), range(c_group)):
            y, q = r * s_h + i - p_h, s * s_w + j - p_w
            if 0 <= y < x.shape[1] and 0 <= q < x.shape[2]:
                sums[b, r, s, o] += int(x[b, y, q, first + c]) * int(weight[o, c, i, j])
    return sums


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("case", SMALL)
def test_the_reference_is_the_definition(case, signed):
    x, weight, factor, bias, attrs = arrays(case, signed)
    sums = by_loops(x, weight, factor, bias, **attrs)
    y = sums.astype(np.float32) * factor + bias
    assert np.array_equal(reference.conv2d_int8(x, weight, factor, bias, **attrs), y)
    found = reference.conv2d_int8(x, weight, factor, bias, relu=True, scale=0.02, **attrs)
    wanted = [
        min(255, max(0, round(float(v)))) for v in (y * (np.float32(1) / np.float32(0.02))).flat
    ]
    assert found.dtype == np.uint8
    assert found.reshape(-1).tolist() == wanted


def check(case, signed, other, relu, scale):
    """Compare the processor's bits with the reference's."""
    x, weight, factor, bias, attrs = arrays(case, signed)
    shape = shapes.conv2d_int8(x, weight, factor, bias, **attrs)
    if other is not None:
        rng = np.random.default_rng(1)
        low, high = (-127, 128) if other == np.int8 else (0, 256)
        attrs |= {"residual": rng.integers(low, high, shape).astype(other), "residual_scale": 0.01}
    attrs |= {"relu": relu, "scale": scale}
    wanted = reference.conv2d_int8(x, weight, factor, bias, **attrs)
    found = cpu.conv2d_int8(x, weight, factor, bias, **attrs)
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)
    if found.dtype == np.int8:
        assert found.min(initial=0) >= -127


def few(case):
    """Mark the case of three vectors, whose kernel compiles longest."""
    return pytest.param(case, marks=pytest.mark.slow if case == "groups that widen" else ())


@pytest.mark.parametrize("case", [few(case) for case in (CASES if JIT else SMALL)])
def test_the_same_bits(case):
    kinds = [(None, False, None), (np.uint8, True, 0.02), (np.int8, False, 0.02)]
    for signed, (other, relu, scale) in itertools.product((False, True), kinds):
        check(case, signed, other, relu, scale)


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("ways", [2, 4])
def test_words_of_two_and_of_four_without_compiling(case, ways, monkeypatch):
    """The plain functions are the exact model of processors that this one may not be."""
    how = integer_words.Words(ways, "vpdpbusd" if ways == 4 else "none")
    for module in (strips, tile, narrow, narrow_tile, int8):
        monkeypatch.setattr(module, "words", lambda: how)
    monkeypatch.setattr(strips, "strips_kernel", strips.strips_kernel.__wrapped__)
    monkeypatch.setattr(narrow, "narrow_kernel", narrow.narrow_kernel.__wrapped__)
    for signed, other in ((False, np.int8), (True, np.uint8)):
        x, weight, factor, bias, attrs = arrays(case, signed)
        shape = shapes.conv2d_int8(x, weight, factor, bias, **attrs)
        attrs |= {"residual": np.full(shape, 3, other), "residual_scale": 0.5}
        attrs |= {"relu": not signed, "scale": 0.03}
        wanted = reference.conv2d_int8(x, weight, factor, bias, **attrs)
        step = int8.bind_conv2d_int8(x, weight, factor, bias, **attrs, out=np.empty_like(wanted))
        step.kernel.function(*step.arrays, step.numbers, np.zeros(8, np.int64))
        assert np.array_equal(step.out.reshape(shape), wanted)


@pytest.mark.parametrize(
    ("lanes", "registers", "shape", "groups", "ways", "wanted"),
    [
        (16, 32, (128, 4, 3, 3), 32, 4, (4, 1)),
        (16, 32, (256, 8, 3, 3), 32, 4, (8, 2)),
        (16, 32, (512, 16, 3, 3), 32, 4, None),  # there are registers for one row only
        (8, 16, (128, 4, 3, 3), 32, 2, (4, 2)),
        (8, 16, (256, 8, 3, 3), 32, 2, None),
        (4, 32, (128, 4, 3, 3), 32, 2, (4, 2)),
        (8, 16, (7, 1, 3, 3), 7, 2, (1, 1)),
        (16, 32, (18, 6, 3, 3), 3, 4, None),  # three filters in a lane
        (16, 32, (4, 12, 3, 3), 1, 4, None),  # one group
        (16, 32, (32, 12, 1, 1), 8, 4, None),  # groups of three words
        (4, 16, (8, 8, 1, 1), 2, 2, None),  # a vector has no room for two groups
    ],
)
def test_which_groups_lie_in_lanes(lanes, registers, shape, groups, ways, wanted, monkeypatch):
    monkeypatch.setattr(narrow_tile, "machine", lambda: simd.Machine(lanes, registers, 3))
    found = narrow_tile.narrow_of.__wrapped__(shape, groups, ways)
    assert found == wanted
    if found:
        taken = (found.width + 1) * found.rows + 2
        assert 2 * found.width < taken <= registers


@pytest.mark.parametrize(
    ("n", "h", "c_in", "c_out", "groups"),
    [(1, 56, 64, 128, 1), (1, 28, 512, 256, 1), (1, 7, 2048, 1024, 1), (8, 14, 192, 192, 1)],
)
def test_threads_write_into_lines_of_their_own(n, h, c_in, c_out, groups):
    geo = Geometry(n, h, h, c_in, h, h, c_out, 1, 1, 1, 1, 0, 0, groups)
    units = c_out // (2 * simd.machine().lanes)
    lines, count, shares = cutting.cut_bytes(geo, units, c_out // units)
    assert (count - 1) * lines < h <= count * lines
    assert c_out // 64 % shares == 0
    begins = [share * units // shares * (c_out // units) for share in range(shares)]
    assert all(begin % 64 == 0 for begin in begins)


# --- what is at the edge --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "signed", "given", "wanted"),
    [
        (
            1.0,
            False,
            [0.5, 1.5, 2.5, 254.5, 255.5, 1e9, -0.5, -3.0],
            [0, 2, 2, 254, 255, 255, 0, 0],
        ),
        (1.0, True, [-0.5, -1.5, -2.5, -127.4, -128.0, -1e9], [0, -2, -2, -127, -127, -127]),
        (0.25, True, [0.125, 0.375, np.inf, -np.inf], [0, 2, 127, -127]),
    ],
)
def test_rounding_is_to_even_and_saturates(scale, signed, given, wanted):
    x = cpu.upload(np.array(given, np.float32))
    for ops in (reference, cpu):
        q = ops.quantise(x, scale=scale, signed=signed)
        assert q.dtype == (np.int8 if signed else np.uint8)
        assert q.tolist() == wanted
        back = ops.dequantise(q, scale=scale)
        assert np.array_equal(back, np.array(wanted, np.float32) * np.float32(scale))


def test_every_integer_comes_back():
    for kind, signed in ((np.uint8, False), (np.int8, True)):
        q = np.arange(-127 if signed else 0, 128 if signed else 256).astype(kind)
        for ops, scale in itertools.product((reference, cpu), (0.1, 3e-5, 7.0)):
            assert np.array_equal(
                ops.quantise(ops.dequantise(q, scale=scale), scale=scale, signed=signed), q
            )


@pytest.mark.parametrize("bias", [3e38, -3e38, 0.0])
def test_a_huge_bias_saturates(bias):
    x, weight, factor, _, attrs = arrays("one channel", False)
    row = np.full(1, bias, np.float32)
    for relu in (False, True):
        found = [
            ops.conv2d_int8(x, weight, factor, row, relu=relu, scale=1e-3, **attrs)
            for ops in (reference, cpu)
        ]
        assert np.array_equal(*found)
        if bias:
            end = 0 if bias < 0 and relu else (255 if relu else 127) * np.sign(bias)
            assert (found[1] == end).all()


def test_the_largest_sum_has_room():
    """255 * 127 * depth is just below 2^31; one product more, and the call is refused."""
    depth = shapes.integer.MOST_DEPTH
    assert depth * 255 * 127 < 2**31 <= (depth + 1) * 255 * 127
    x, row = np.full((1, 1, 1, depth), 255, np.uint8), np.ones(2, np.float32)
    weight = np.full((2, depth, 1, 1), 127, np.int8)
    weight[1] = -127
    wanted = np.float32(255 * 127 * depth) * np.array([1, -1], np.float32) + 1
    found = (
        cpu.conv2d_int8(x, weight, row, row) if JIT else reference.conv2d_int8(x, weight, row, row)
    )
    assert found.reshape(-1).tolist() == wanted.tolist()
    more = np.zeros((2, depth + 1, 1, 1), np.int8)
    for ops in (reference, cpu):
        with pytest.raises(ValueError, match="32 bits have room for 66,311"):
            ops.conv2d_int8(np.zeros((1, 1, 1, depth + 1), np.uint8), more, row, row)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan, 1e-45])
def test_a_scale_is_a_positive_number(scale):
    for ops in (reference, cpu):
        with pytest.raises(ValueError, match="expected a positive number"):
            ops.quantise(np.zeros(3, np.float32), scale=scale)


def test_what_is_no_array_of_8_bits_is_refused():
    x, weight, factor, bias, attrs = arrays("one channel", False)
    with pytest.raises(TypeError, match="x is float32, expected int8 or uint8"):
        cpu.conv2d_int8(x.astype(np.float32), weight, factor, bias, **attrs)
    with pytest.raises(TypeError, match="weight is float32"):
        cpu.conv2d_int8(x, weight.astype(np.float32), factor, bias, **attrs)
    with pytest.raises(ValueError, match="packed for 1 groups"):
        cpu.conv2d_int8(
            *arrays("3x3 of groups of 1", True)[:1],
            cpu.pack_int8(np.ones((6, 1, 3, 3), np.int8), 1),
            np.ones(6),
            np.ones(6),
            groups=6,
        )
    with pytest.raises(ValueError, match="factor has shape"):
        reference.conv2d_int8(x, weight, np.ones(2, np.float32), bias, **attrs)


def test_a_backend_without_integers_says_so():
    class Other:
        @staticmethod
        def described():
            return "an abacus"

    assert integer(cpu) is cpu
    with pytest.raises(DeviceError, match="an abacus does not compute with integers of 8 bits"):
        integer(Other())


# --- the instruction ------------------------------------------------------------------------------

X86 = ("x86_64-unknown-linux-gnu", "x86-64")


@pytest.mark.parametrize(
    ("triple", "features", "lanes", "wanted"),
    [
        (X86[0], "+sse2", 4, (2, "pmaddwd")),
        (X86[0], "+sse2,+avx", 8, (2, "none")),
        (X86[0], "+sse2,+avx,+avx2", 8, (2, "pmaddwd")),
        (X86[0], "+sse2,+avx,+avx2,+avxvnni", 8, (4, "vpdpbusd")),
        (X86[0], "+avx512f", 16, (2, "none")),
        (X86[0], "+avx512f,+avx512bw", 16, (2, "pmaddwd")),
        (X86[0], "+avx512f,+avx512bw,+avx512vnni", 16, (4, "vpdpbusd")),
        ("aarch64-apple-darwin", "+neon", 4, (2, "none")),
    ],
)
def test_the_instruction_of_a_processor(triple, features, lanes, wanted):
    assert integer_words.words_of(triple, features.split(","), lanes) == wanted


def dot_module(lanes, how, triple):
    """Return a module with a function that loads three vectors, and stores what `dot` emits."""
    module, vector = ir.Module(), ir.VectorType(ir.IntType(32), lanes)
    module.triple = triple
    pointer = vector.as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * 3), "dot")
    builder = ir.IRBuilder(function.append_basic_block())

    class Emitter:
        pass

    e = Emitter()
    e.builder, e.lanes = builder, lanes
    values = [builder.load(one, align=4) for one in function.args]
    builder.store(integer_words.dot(e, *values, how), function.args[0], align=4)
    builder.ret_void()
    return binding.parse_assembly(str(module))


@pytest.mark.parametrize(
    ("features", "lanes", "how", "text"),
    [
        ("+sse2", 4, (2, "pmaddwd"), "pmaddwd"),
        ("+sse2,+avx,+avx2", 8, (2, "pmaddwd"), "vpmaddwd"),
        ("+sse2,+avx,+avx2,+avxvnni", 8, (4, "vpdpbusd"), "vpdpbusd"),
        ("+avx512f,+avx512bw", 16, (2, "pmaddwd"), "vpmaddwd"),
        ("+avx512f,+avx512bw,+avx512vnni", 16, (4, "vpdpbusd"), "vpdpbusd"),
    ],
)
def test_the_code_has_the_instruction(features, lanes, how, text):
    """These need not run here: what LLVM writes for such a processor shows the instruction."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(X86[0])
    except RuntimeError:
        pytest.skip("this LLVM has no x86")
    machine = target.create_target_machine(cpu=X86[1], features=features)
    code = machine.emit_assembly(dot_module(lanes, integer_words.Words(*how), X86[0]))
    assert text in code
    assert "pmaddubsw" not in code


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize("how", [(2, "none"), (4, "none"), (2, "pmaddwd")])
def test_the_instruction_means_the_plain_function(how):
    how, lanes = integer_words.Words(*how), simd.machine().lanes
    triple = binding.get_process_triple()
    if how.instruction != "none" and integer_words.words().instruction == "none":
        pytest.skip("this processor has no such instruction")
    machine = binding.Target.from_triple(triple).create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten()
    )
    engine = binding.create_mcjit_compiler(dot_module(lanes, how, triple), machine)
    engine.finalize_object()
    rng = np.random.default_rng(2)
    sums, left, right = (rng.integers(-(2**31), 2**31, lanes).astype(np.int32) for _ in range(3))
    if how.ways == 2:  # the largest products, of which two do not fit 31 bits
        left[0] = right[0] = np.array([-127, 127], np.int16).view(np.int32)[0]
    wanted = integer_words.plain_dot(sums.astype(np.int64), left, right, how)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(engine.get_function_address("dot"))
    call(*(one.ctypes.data for one in (sums, left, right)))
    assert np.array_equal(sums, wanted)


def test_rounding_by_addition_is_rint():
    y = np.concatenate([np.arange(-512, 512) / 4, [-127.5, 254.5]]).astype(np.float32)
    magic = np.float32(epilogue.MAGIC)
    bits = (y + magic).view(np.int32) - epilogue.MAGIC_BITS
    assert np.array_equal(bits, np.rint(y).astype(np.int32))
