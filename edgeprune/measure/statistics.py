"""Intervals and paired tests of small samples, exact or with a fixed seed. All intervals are 95 %.

Questions are taken as independent. Several questions about one picture are not quite, so real intervals are wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_Z = 1.959963984540054
#: 0.975 quantiles of Student's distribution, degrees of freedom -> value; from 31 on the normal one is used
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_DRAWS = 10_000


@dataclass(frozen=True)
class Paired:
    """Two cases on the same items.

    Attributes:
        difference: mean of first minus second.
        interval: of the difference, by bootstrap over the items.
        p: two-sided, that the two are equally good.
        test: what gave p.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    test: str


def wilson(right: float, asked: int) -> tuple[float, float]:
    """Wilson's score interval of the share right / asked."""
    share, square = right / asked, _Z * _Z
    centre = share + square / (2 * asked)
    spread = _Z * math.sqrt(share * (1 - share) / asked + square / (4 * asked * asked))
    low, high = ((centre + sign * spread) / (1 + square / asked) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Percentile interval of the mean, 10,000 draws with a fixed seed."""
    data = np.asarray(values, np.float64)
    means = data[_draws(len(data))].mean(axis=1) if len(data) <= 2000 else _means(data)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def student(values: Sequence[float]) -> tuple[float, float] | None:
    """Interval of the mean of a few runs, for example seeds; None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    spread = float(np.std(values, ddof=1)) / math.sqrt(count)
    factor = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else _Z
    mean = float(np.mean(values))
    return mean - factor * spread, mean + factor * spread


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: of the items that one alone got right, how they fell."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total)) if total else 1.0


def compare(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Paired comparison of scores 0..1: McNemar where all are 0 or 1, else random signs of the differences."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} scores cannot be paired")
    gaps = a - b
    interval = bootstrap(list(gaps))
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        p = mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()))
        return Paired(float(gaps.mean()), interval, p, "McNemar, exact")
    return Paired(float(gaps.mean()), interval, _sign_flips(gaps), f"{_DRAWS} random signs")


def _sign_flips(gaps: Floats) -> float:
    """Two-sided p that the gaps are symmetric around 0."""
    rng, observed, extreme = np.random.default_rng(0), abs(gaps.sum()), 0
    for _ in range(_DRAWS // 100):
        signs = rng.integers(0, 2, (100, len(gaps)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ gaps) >= observed - 1e-12).sum())
    return (extreme + 1) / (_DRAWS + 1)


def _draws(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(0, count, (_DRAWS, count))


def _means(data: Floats) -> Floats:
    rng = np.random.default_rng(0)
    return np.array([data[rng.integers(0, len(data), len(data))].mean() for _ in range(_DRAWS)])
