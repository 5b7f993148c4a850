"""What PTX computes and NumPy does not have: roundings, conversions, and zeros before a number."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tinyresnext.emulator.ptx.source.arithmetic import (
    convert,
    directed,
    flushed,
    leading_zeros,
    permute,
)


def floats() -> np.ndarray:
    """Return rows of three numbers whose products and sums are rounded in every way."""
    rng = np.random.default_rng(0)
    made = rng.standard_normal((400, 3)) * 2.0 ** rng.integers(-70, 60, (400, 3))
    made[:100, 2] = -made[:100, 0] * made[:100, 1]  # nearly nothing is left
    made[100] = 2.0**-30, -(2.0**-30), 1
    made[101] = 2.0**-70, 2.0**-70, 3  # the product is lost in the sum of float64
    made[102] = 3e38, 3e38, 1  # more than the largest number
    return made.astype(np.float32)


@pytest.mark.parametrize("how", ["rm", "rz"])
def test_directed_rounding(how: str):
    """The numbers beside the found one say whether it is right."""
    a, b, c = floats().T
    with np.errstate(over="ignore"):
        found = directed(a, b, c, how)
        above = np.nextafter(found, np.float32(np.inf))
        below = np.nextafter(found, np.float32(-np.inf))
    for row, one, more, less in zip(floats().tolist(), found, above, below, strict=True):
        exact = Fraction(row[0]) * Fraction(row[1]) + Fraction(row[2])
        if how == "rm" or exact >= 0:
            assert Fraction(float(one)) <= exact
            assert not np.isfinite(more) or exact < Fraction(float(more))
        else:
            assert Fraction(float(less)) < exact <= Fraction(float(one))


def test_zeros_of_directed_rounding():
    one = np.ones(1, np.float32)
    assert np.signbit(directed(one, one, -one, "rm"))
    assert not np.signbit(directed(one, one, -one, "rz"))
    assert not np.signbit(directed(one, 0 * one, 0 * one, "rm"))


def test_what_is_too_small_for_a_whole_mantissa():
    small = np.array([1e-39, -1e-39, 2e-38, -0.0, np.inf], np.float32)
    found = flushed(small)
    assert found.tolist() == [0, 0, small[2], 0, np.inf]
    assert np.signbit(found).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("kind", ["u4", "u8"])
def test_zeros_before_the_first_bit(kind: str):
    bits = 8 * np.dtype(kind).itemsize
    numbers = [0, 1, 2, 3, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1]
    found = leading_zeros(np.array(numbers, kind))
    assert found.tolist() == [bits - one.bit_length() for one in numbers]


@pytest.mark.parametrize(
    ("of", "to", "wanted"),
    [
        ("f4", "i4", 0),
        ("f4", "u4", 0),
        ("f2", "i4", 0),
        ("f4", "i8", -(2**63)),
        ("f4", "u8", 2**63),
        ("f8", "i4", -(2**31)),
        ("f8", "u4", 2**31),
        ("f8", "i8", -(2**63)),
    ],
)
def test_not_a_number_as_a_whole_one(of: str, to: str, wanted: int):
    """The PTX ISA, of ``cvt``: zero only if neither side has 64 bits."""
    values = np.array([np.nan, 2.75, -np.inf], of)
    found = convert(values, np.dtype(to), ("rzi",))
    assert found.tolist() == [wanted, 2, np.iinfo(to).min]


def test_bytes_are_permuted_as_the_isa_says():
    """The general mode of ``prmt``, with Python's own bytes."""
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 2**32, (2, 200), dtype=np.uint32)
    selectors = [*rng.integers(0, 2**16, 200, dtype=np.uint32), np.uint32(4180)]
    for selector in selectors:
        found = permute(low, high, selector)
        for a, b, one in zip(low.tolist()[:20], high.tolist(), found.tolist(), strict=False):
            eight = a.to_bytes(4, "little") + b.to_bytes(4, "little")
            digits = [int(selector) >> 4 * place & 15 for place in range(4)]
            chosen = [eight[digit & 7] for digit in digits]
            signs = [255 * (byte >> 7) for byte in chosen]
            wanted = [
                sign if digit & 8 else byte
                for digit, byte, sign in zip(digits, chosen, signs, strict=True)
            ]
            assert one.to_bytes(4, "little") == bytes(wanted)
