"""From which keep ratio pruning pays: TTFT against the unpruned case, compared round by round.

A comparison counts only when rounds agree more often than chance would have it (two-sided sign test at 5 %), which
needs at least six rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgeprune.measure.profile import Case, Measured, Trial

SIGNIFICANCE = 0.05
#: fewer of them, all on one side, are still within chance: 2 / 2^5 is above 0.05
LEAST_ROUNDS = 6
Verdict = Literal["faster", "slower", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """A pruned case against the baseline, over the rounds in which both ran.

    Args:
        saved_ms: median over the rounds of the baseline's TTFT minus the case's.
        faster, slower: rounds in which the case was so.
    """

    keep: float
    kept_tokens: int
    rounds: int
    saved_ms: float
    faster: int
    slower: int
    verdict: Verdict


@dataclass(frozen=True)
class BreakEven:
    """Of one method in one variant.

    Args:
        baseline: the unpruned case, None when none was measured.
        keep, kept_tokens: the largest at which, and below which, every measured ratio is faster; None: there is none.
    """

    variant: str | None
    method: str
    baseline: Case | None
    keep: float | None
    kept_tokens: int | None
    compared: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "statement": self.statement}

    @property
    def statement(self) -> str:
        """One sentence for people."""
        name = self.method if self.variant is None else f"{self.method} in {self.variant}"
        if self.baseline is None:
            return f"{name}: no unpruned case was measured, so nothing says whether pruning pays; measure keep 1 too."
        if not self.compared:
            return f"{name}: no pruned case was measured beside the unpruned one."
        if self.keep is not None:
            saved = next(row.saved_ms for row in self.compared if row.keep == self.keep)
            place = f"keep {self.keep:g} ({self.kept_tokens} tokens)"
            return f"{name}: pruning pays from {place} down: TTFT {saved:.1f} ms less there."
        if all(row.verdict == "slower" for row in self.compared):
            return f"{name}: pruning does not pay: TTFT is longer at every keep that was measured."
        rounds = min(row.rounds for row in self.compared)
        few = f"; {LEAST_ROUNDS} are the least that can tell" if rounds < LEAST_ROUNDS else ""
        return f"{name}: pruning does not pay for certain at any keep that was measured, in {rounds} rounds{few}."


def break_evens(measured: Measured) -> list[BreakEven]:
    """One per variant and pruning method, in the order of the cases."""
    groups = dict.fromkeys((case.variant, case.method) for case in measured.cases)
    found = [_break_even(measured, variant, method) for variant, method in groups]
    return [entry for entry in found if entry is not None]


def judge(saved_ms: Sequence[float]) -> Verdict:
    """Whether differences lie on one side of 0 more often than chance would have it; ties count for neither."""
    faster, slower = sum(value > 0 for value in saved_ms), sum(value < 0 for value in saved_ms)
    total = faster + slower
    tail = sum(math.comb(total, hits) for hits in range(max(faster, slower), total + 1)) / 2**total
    if 2 * tail > SIGNIFICANCE:
        return "undecided"
    return "faster" if faster > slower else "slower"


def _break_even(measured: Measured, variant: str | None, method: str) -> BreakEven | None:
    cases = [case for case in measured.cases if (case.variant, case.method) == (variant, method)]
    pruned = [case for case in cases if measured.trials[case] and _applied(measured.trials[case])]
    if not pruned and all(measured.trials[case] for case in cases):
        return None  # keeps every token: a baseline of others, with nothing to be compared
    baseline = _baseline(measured, variant, method)
    rows = [] if baseline is None else [_compare(measured.trials[baseline], measured.trials[c], c) for c in pruned]
    compared = tuple(sorted((row for row in rows if row.rounds), key=lambda row: row.kept_tokens))
    best = None
    for row in compared:
        if row.verdict != "faster":
            break
        best = row
    keep, count = (None, None) if best is None else (best.keep, best.kept_tokens)
    return BreakEven(variant, method, baseline, keep, count, compared)


def _baseline(measured: Measured, variant: str | None, method: str) -> Case | None:
    """An unpruned case of the variant: of a method without pruning, else of the method itself, else none."""
    whole = [
        c for c in measured.cases if c.variant == variant and measured.trials[c] and not _applied(measured.trials[c])
    ]
    return next((c for c in whole if c.method == "none"), next((c for c in whole if c.method == method), None))


def _applied(trials: Sequence[Trial]) -> bool:
    return trials[0].answer.images[0].applied


def _compare(baseline: Sequence[Trial], trials: Sequence[Trial], case: Case) -> Comparison:
    before = {trial.round: trial.answer.timings.ttft_ms for trial in baseline}
    saved = [before[t.round] - t.answer.timings.ttft_ms for t in trials if t.round in before]
    faster, slower = sum(value > 0 for value in saved), sum(value < 0 for value in saved)
    middle = statistics.median(saved) if saved else 0.0
    return Comparison(case.keep, trials[0].answer.images[0].kept, len(saved), middle, faster, slower, judge(saved))
