"""Intervals and tests against published values, scipy, and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from edgeprune.measure import statistics


@pytest.mark.parametrize(
    ("right", "asked", "interval"),
    [(0, 10, (0.0, 0.27753)), (81, 263, (0.25529, 0.36621)), (10, 10, (0.72247, 1.0))],
)
def test_wilson(right: int, asked: int, interval: tuple[float, float]) -> None:
    """81 of 263: the worked example of Newcombe (1998); 0 and 10 of 10: z^2 / (n + z^2) by hand."""
    assert statistics.wilson(right, asked) == pytest.approx(interval, abs=5e-5)


def test_wilson_equals_scipy() -> None:
    for right, asked in ((3, 7), (50, 200), (199, 200)):
        found = stats.binomtest(right, asked).proportion_ci(method="wilson")
        assert statistics.wilson(right, asked) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (10, 2), (2, 10), (40, 21)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert statistics.mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


def test_student_equals_scipy() -> None:
    for count in (2, 5, 31):
        values = list(np.random.default_rng(count).random(count))
        low, high = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
        assert statistics.student(values) == pytest.approx((low, high), abs=2e-4)
    assert statistics.student([0.5]) is None


def test_random_signs_against_all_signs() -> None:
    gaps = np.array([0.3, -0.1, 0.5, 0.2, 0.4, 0.0, 0.25, -0.05])
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=len(gaps))]
    exact = np.mean([value >= abs(gaps.sum()) - 1e-12 for value in sums])
    paired = statistics.compare(list(0.5 + gaps / 2), [0.5] * len(gaps))
    assert paired.test == "10000 random signs"
    assert paired.p == pytest.approx(exact, abs=0.01)
    assert paired.difference == pytest.approx(gaps.mean() / 2)


def test_binary_scores_are_compared_exactly() -> None:
    paired = statistics.compare([1, 1, 1, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0, 0])
    assert (paired.test, paired.p) == ("McNemar, exact", pytest.approx(2 * 0.5**5))
    assert paired.interval[0] > 0
    with pytest.raises(ValueError, match="cannot be paired"):
        statistics.compare([1.0], [])


def test_bootstrap_covers_the_mean_and_is_repeatable() -> None:
    values = list(np.random.default_rng(1).random(400))
    low, high = statistics.bootstrap(values)
    assert (low, high) == statistics.bootstrap(values)
    half = 1.96 * np.std(values) / 20
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.004)
