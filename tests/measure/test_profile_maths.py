"""The maths of a profile: the order of trials, the sign test, break-even and the search for a target."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.measure.breakeven import break_evens, judge
from edgeprune.measure.profile import Case, Measured, Trial, generated_picture, order
from edgeprune.measure.target import search
from edgeprune.runtime.answers import Answer, KeptTokens
from edgeprune.timings import StageTimings

TOKENS = 100


def trial(turn: int, case: Case, ttft_ms: float) -> Trial:
    kept = round(case.keep * TOKENS)
    image = KeptTokens(0, kept, TOKENS, np.arange(kept), None, 10, 10, 1, 1, kept < TOKENS, "", case.method, case.keep)
    times = StageTimings(0, 0, 0, 0, 0, 0, ttft_ms, 0, 0, 0, 1, 0, 0, 0, 0)
    return Trial(turn, 0, Answer("", (), "length", kept, kept, 0, kept, (image,), times))


def measured(times: dict[Case, list[float]]) -> Measured:
    result = Measured(tuple(times))
    for case, values in times.items():
        result.trials[case] = [trial(turn, case, value) for turn, value in enumerate(values)]
    return result


def test_every_round_runs_every_case_once_and_begins_one_later() -> None:
    rows = list(order(3, 4))
    assert [[case for turn, _, case in rows if turn == r] for r in range(4)] == [
        [0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2],
    ]  # fmt: skip
    assert [place for _, place, _ in rows] == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("saved", "verdict"),
    [
        ([], "undecided"),
        ([1] * 5, "undecided"),  # 2 / 2^5 = 0.0625
        ([1] * 6, "faster"),  # 2 / 2^6 = 0.031
        ([-1] * 6, "slower"),
        ([1] * 9 + [-50], "faster"),  # 2 * 11 / 2^10 = 0.021
        ([1] * 8 + [-1] * 2, "undecided"),  # 2 * 56 / 2^10 = 0.109
        ([0] * 20, "undecided"),
    ],
)
def test_sign_test(saved: list[float], verdict: str) -> None:
    assert judge(saved) == verdict


def cases(*keeps: float, method: str = "m") -> list[Case]:
    return [Case(None, method, keep) for keep in keeps]


def test_break_even_is_the_largest_keep_below_which_all_are_faster() -> None:
    whole, half, quarter, tenth = cases(1.0, 0.5, 0.25, 0.1)
    times = {whole: [10.0 + r for r in range(8)], half: [10.5 + r for r in range(8)],
             quarter: [8.0 + r for r in range(8)], tenth: [5.0 + r for r in range(8)]}  # fmt: skip
    [entry] = break_evens(measured(times))
    assert (entry.baseline, entry.keep, entry.kept_tokens) == (whole, 0.25, 25)
    assert [(row.keep, row.saved_ms, row.verdict) for row in entry.compared] == [
        (0.1, 5.0, "faster"), (0.25, 2.0, "faster"), (0.5, -0.5, "slower"),
    ]  # fmt: skip
    assert "pays from keep 0.25 (25 tokens) down" in entry.statement


def test_pruning_that_does_not_pay_is_said_to() -> None:
    whole, tenth = cases(1.0, 0.1)
    [entry] = break_evens(measured({whole: [10.0] * 6, tenth: [11.0] * 6}))
    assert entry.keep is None
    assert "does not pay: TTFT is longer at every keep" in entry.statement


def test_the_baseline_is_the_method_without_pruning_and_missing_rounds_count_for_nothing() -> None:
    [tenth], [none] = cases(0.1), cases(1.0, method="none")
    [entry] = break_evens(measured({tenth: [5.0] * 7, none: [10.0] * 6}))
    assert entry.baseline == none
    assert (entry.compared[0].rounds, entry.keep) == (6, 0.1)
    [alone] = break_evens(measured({tenth: [5.0] * 7}))
    assert (alone.baseline, alone.keep) == (None, None)
    assert "measure keep 1 too" in alone.statement


@pytest.mark.parametrize("limit", [1, 2, 37, 99, 100])
def test_the_search_finds_the_largest_count(limit: int) -> None:
    counts = {count: count / TOKENS for count in range(1, TOKENS + 1)}
    found = search(cases(1.0)[0], counts, TOKENS, limit + 0.5, lambda case: [case.keep * TOKENS] * 3)
    assert (found.kept_tokens, found.keep, found.partial) == (limit, limit / TOKENS, False)
    assert len(found.probes) <= 9


def test_the_search_says_when_nothing_meets_the_target_and_keeps_what_it_had() -> None:
    counts = {count: count / TOKENS for count in range(1, TOKENS + 1)}
    none = search(cases(1.0)[0], counts, TOKENS, 0.5, lambda case: [case.keep * TOKENS])
    assert (none.keep, [probe.kept_tokens for probe in none.probes]) == (None, [100, 1])

    def interrupted(case: Case) -> list[float]:
        if case.keep == 0.5:
            raise KeyboardInterrupt
        return [case.keep * TOKENS]

    stopped = search(cases(1.0)[0], counts, TOKENS, 70, interrupted)
    assert (stopped.partial, stopped.kept_tokens) == (True, 1)
    assert "interrupted" in stopped.statement


def test_the_generated_picture_is_always_the_same() -> None:
    picture = generated_picture()
    assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
    assert np.array_equal(picture, generated_picture())
    assert picture.std() > 30
