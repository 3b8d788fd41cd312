"""The one place in Python where a keep ratio, or a share of the scores, becomes a count; runtime/src/keep_count.cpp
has the same rules in C++."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgeprune.errors import UserError


def keep_count(visual_tokens: int, ratio: float) -> int:
    """K of N visual tokens: max(1, floor(N * ratio + 0.5)), in double.

    Args:
        visual_tokens: N of one image, before pruning; at least 1.
        ratio: keep ratio K/N, greater than 0 and at most 1.

    Raises:
        UserError: the ratio lies outside, or is not a number.
        ValueError: N is below 1, which no family can have.
    """
    if visual_tokens < 1:
        raise ValueError(f"an image has at least one visual token, not {visual_tokens}")
    if not 0.0 < ratio <= 1.0:
        raise UserError(f"The keep ratio is {ratio}; give a number greater than 0 and at most 1.")
    return max(1, math.floor(visual_tokens * ratio + 0.5))


@dataclass(frozen=True)
class AutoKeep:
    """K chosen per image: the least that holds `mass` of the scores' sum, between two keep ratios.

    Args:
        mass: share of the sum, in (0, 1].
        min, max: keep ratios K/N in (0, 1]; None: the bundle's own bounds.
    """

    mass: float
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("mass", self.mass), ("min", self.min), ("max", self.max)):
            if value is not None and not 0.0 < value <= 1.0:
                raise UserError(f"{name} of an automatic keep is {value:g}, but must be above 0 and at most 1.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise UserError(f"an automatic keep from {self.min:g} to {self.max:g} is empty; swap min and max.")

    def __str__(self) -> str:
        known = (("mass", self.mass), ("min", self.min), ("max", self.max))
        return "auto:" + ",".join(f"{name}={value:.17g}" for name, value in known if value is not None)


def parse_auto(text: str) -> AutoKeep:
    """`auto:mass=0.9[,min=0.05][,max=0.5]`; UserError says what is wrong."""
    head, _, tail = text.partition(":")
    values: dict[str, float] = {}
    for item in filter(None, tail.split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in ("mass", "min", "max") or not equals or name in values:
            raise UserError(f"write an automatic keep as auto:mass=0.9,min=0.05,max=0.5, not {text!r}.")
        try:
            values[name] = float(value)
        except ValueError:
            raise UserError(f"{name} of an automatic keep must be a number, not {value!r}.") from None
    if head.strip() != "auto" or "mass" not in values:
        raise UserError(f"write an automatic keep as auto:mass=0.9,min=0.05,max=0.5, not {text!r}.")
    return AutoKeep(**values)


def mass_count(scores: Sequence[float], mass: float) -> int:
    """The least K whose K highest scores sum to at least `mass` of the sum of all; 1 when all are zero.

    Sums are made in double, one score after the other from the highest down.

    Args:
        scores: (N,) not negative, finite; at least one.
        mass: in (0, 1].
    """
    falling = sorted((float(score) for score in scores), reverse=True)
    if not falling or not all(math.isfinite(score) and score >= 0 for score in falling) or not 0.0 < mass <= 1.0:
        raise ValueError("a mass in (0, 1] needs at least one score, and none negative")
    wanted = mass * _last(_sums(falling))
    return next(count for count, held in enumerate(_sums(falling), 1) if held >= wanted)


def auto_count(scores: Sequence[float], auto: AutoKeep, counts: Sequence[int] | None = None) -> int:
    """K of one image: `mass_count` between the counts of min and max, or the nearest to that which is served between
    them, the smaller of two.

    Args:
        auto: with both bounds.
        counts: those served, ascending; None: every one from 1 to N.

    Raises:
        UserError: none of `counts` lies between the bounds.
    """
    assert auto.min is not None
    assert auto.max is not None
    total = len(scores)
    least, most = keep_count(total, auto.min), keep_count(total, auto.max)
    inside = min(max(mass_count(scores, auto.mass), least), most)
    served = [k for k in (range(1, total + 1) if counts is None else counts) if least <= k <= most]
    if not served:
        raise UserError(f"no count from {least} to {most} is served; widen the bounds of the automatic keep.")
    return min(served, key=lambda count: (abs(count - inside), count))


def _sums(values: Sequence[float]) -> Iterator[float]:
    held = 0.0
    for value in values:
        held += value
        yield held


def _last(values: Iterable[float]) -> float:
    *_, last = values
    return last


def count_runs(counts: Sequence[int]) -> list[dict[str, int]]:
    """Ascending counts as runs of equal steps, {"first", "last", "step"} each, for the manifest.

    A run of one count has step 1.
    """
    runs: list[dict[str, int]] = []
    for count in counts:
        run = runs[-1] if runs else None
        if run and run["first"] == run["last"]:
            run |= {"last": count, "step": count - run["first"]}
        elif run and count == run["last"] + run["step"]:
            run["last"] = count
        else:
            runs.append({"first": count, "last": count, "step": 1})
    return runs
