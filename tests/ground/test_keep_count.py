"""keep_count in Python and in C++ on one exhaustive table."""

from __future__ import annotations

import math
import pathlib
import subprocess
from collections.abc import Callable
from fractions import Fraction

import pytest

from edgeprune.errors import UserError
from edgeprune.keep import count_runs, keep_count

LARGEST_N = 4096
# Ratios of the papers, thirds and sevenths, halves of a token at common N, both ends, and neighbours of 1/2 and 1.
RATIOS = sorted(
    {0.05, 0.098, 0.1, 0.1112, 0.2, 0.222, 0.25, 0.333, 1 / 3, 0.4, 0.5, 2 / 3, 0.667, 0.75, 0.778, 0.889, 0.9, 1.0}
    | {k / 7 for k in range(1, 7)}
    | {k / n for n in (256, 576, 729, 2880) for k in (1, 29, 58, 64, 128, 192)}
    | {(k + 0.5) / n for n in (256, 576, 729, 2880) for k in (0, 1, 57, 64)}
    | {math.nextafter(0.5, 0), math.nextafter(0.5, 1), math.nextafter(1.0, 0), 1e-300, 5e-324}
)
BAD_RATIOS = [0.0, -0.1, -0.0, 1.5, math.nextafter(1.0, 2), math.inf, -math.inf, math.nan]

NativeTable = Callable[[list[tuple[int, int, float]]], list[list[int]]]


@pytest.fixture(scope="module")
def native(native_program: Callable[[str], pathlib.Path]) -> NativeTable:
    """(first N, last N, ratio) rows -> their counts by the C++ function."""

    def run(rows: list[tuple[int, int, float]]) -> list[list[int]]:
        text = "".join(f"{first} {last} {ratio.hex()}\n" for first, last, ratio in rows)
        done = subprocess.run(
            [native_program("keep_count_cli")], input=text, capture_output=True, text=True, check=True
        )
        return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]

    return run


def test_python_equals_cpp(native: NativeTable) -> None:
    table = native([(1, LARGEST_N, ratio) for ratio in RATIOS])
    assert len(table) == len(RATIOS) > 60
    for ratio, row in zip(RATIOS, table, strict=True):
        assert row == [keep_count(n, ratio) for n in range(1, LARGEST_N + 1)], ratio


def test_rule() -> None:
    """Against exact arithmetic, wherever N * ratio is not within a rounding error of a half."""
    for ratio in RATIOS:
        for n in range(1, LARGEST_N + 1, 17):
            exact = n * Fraction(ratio) + Fraction(1, 2)
            if abs(exact - round(exact)) > Fraction(1, 10**9):
                assert keep_count(n, ratio) == max(1, math.floor(exact)), (n, ratio)


@pytest.mark.parametrize(
    ("n", "ratio", "count"),
    [
        (576, 0.1, 58),
        (576, 0.098, 56),
        (576, 0.1112, 64),
        (576, 0.05, 29),
        (576, 1 / 3, 192),
        (576, 1.0, 576),
        (256, 0.25, 64),
        (256, 1e-9, 1),
        (1, 0.001, 1),
        (5, 0.5, 3),
        (3, 0.5, 2),
    ],
)
def test_known_counts(n: int, ratio: float, count: int) -> None:
    assert keep_count(n, ratio) == count


@pytest.mark.parametrize("ratio", BAD_RATIOS)
def test_bad_ratio(native: NativeTable, ratio: float) -> None:
    with pytest.raises(UserError, match="greater than 0 and at most 1"):
        keep_count(576, ratio)
    assert native([(1, 600, ratio)]) == [[-1] * 600]


def test_bad_count(native: NativeTable) -> None:
    with pytest.raises(ValueError, match="at least one visual token"):
        keep_count(0, 0.5)
    assert native([(-3, 0, 0.5), (2**53 + 1, 2**53 + 1, 0.5)]) == [[-1] * 4, [-1]]
    assert native([(2**53, 2**53, 1.0)]) == [[2**53]]


@pytest.mark.parametrize(
    "counts", [[7], [1, 2], [24, 48, 72], list(range(2, 576)), [72, 144, 288], [1, 2, 4, 8, 9, 10]]
)
def test_runs_of_counts_hold_the_counts(counts: list[int]) -> None:
    runs = count_runs(counts)
    assert [count for run in runs for count in range(run["first"], run["last"] + 1, run["step"])] == counts
    assert len(runs) == 1 or len(counts) > 2
