"""float16 <-> float32 against numpy: every half, and floats on and around every rounding border."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import numpy as np

Program = Callable[[str], pathlib.Path]


def convert(native_program: Program, direction: str, data: bytes) -> bytes:
    command = [native_program("float16_cli"), direction]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def test_every_half_widens_exactly(native_program: Program) -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    found = np.frombuffer(convert(native_program, "widen", halves.tobytes()), np.float32)
    expected = halves.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_floats_narrow_to_the_nearest_half(native_program: Program) -> None:
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (finite[:-1] + finite[1:]) / 2  # ties
    borders = np.concatenate([finite, middle, np.nextafter(middle, 0), np.nextafter(middle, np.float32(np.inf))])
    rng = np.random.default_rng(1)
    others = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    special = np.array([0, 65504, 65519.996, 65520, 1e38, np.inf, 2.0**-25, 2.0**-24, 1e-45], np.float32)
    values = np.concatenate([borders, others[~np.isnan(others)], special])
    values = np.concatenate([values, -values])
    found = np.frombuffer(convert(native_program, "narrow", values.tobytes()), np.uint16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, values.astype(np.float16).view(np.uint16))
    nan = convert(native_program, "narrow", np.array([np.nan], np.float32).tobytes())
    assert np.isnan(np.frombuffer(nan, np.float16))[0]
