"""The largest keep ratio that meets a TTFT target on this machine, found by halving the range of counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeprune.measure.profile import Case

#: neighbouring counts closer than this share of N are not told apart.
RESOLUTION = 0.01


@dataclass(frozen=True)
class Probe:
    """One count that was tried; `ttft_p90_ms` is what is held against the target."""

    keep: float
    kept_tokens: int
    ttft_p90_ms: float
    meets: bool


@dataclass(frozen=True)
class Target:
    """Of one method in one variant: the largest keep that met the target, or None; every probe in its order.

    `partial`: the search was interrupted, and the keep is only the largest found so far.
    """

    variant: str | None
    method: str
    target_ms: float
    keep: float | None
    kept_tokens: int | None
    probes: tuple[Probe, ...]
    partial: bool

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "statement": self.statement}

    @property
    def statement(self) -> str:
        """One sentence for people."""
        name = self.method if self.variant is None else f"{self.method} in {self.variant}"
        goal = f"a TTFT of {self.target_ms:g} ms (p90)"
        if self.partial:
            found = "none was found yet" if self.keep is None else f"keep {self.keep:g} meets it"
            return f"{name}: the search for {goal} was interrupted; {found}."
        if self.keep is None:
            least = min(self.probes, key=lambda probe: probe.kept_tokens)
            return (
                f"{name}: no keep meets {goal} on this machine; keep {least.keep:g} takes {least.ttft_p90_ms:.1f} ms."
            )
        return (
            f"{name}: keep {self.keep:g} ({self.kept_tokens} tokens) is the largest that meets {goal} on this machine."
        )


def search(
    start: Case, counts: Mapping[int, float], visual_tokens: int, target_ms: float, ttft: Callable[[Case], list[float]]
) -> Target:
    """Halves the range between a count that meets the target and one that misses it.

    TTFT is taken to grow with the count; every count that is given back has been measured itself.

    Args:
        start: variant and method; its keep is not used.
        counts: at least one count K -> the keep ratio that asks for it, ascending.
        ttft: runs trials of a case and gives their TTFT in ms.
    """
    ladder = list(counts)
    probes: dict[int, Probe] = {}

    def meets(place: int) -> bool:
        count = ladder[place]
        if count not in probes:
            taken = float(np.percentile(ttft(Case(start.variant, start.method, counts[count])), 90))
            probes[count] = Probe(counts[count], count, taken, taken <= target_ms)
        return probes[count].meets

    partial = False
    try:
        _halve(ladder, max(1.0, RESOLUTION * visual_tokens), meets)
    except KeyboardInterrupt:
        partial = True
    best = max((probe for probe in probes.values() if probe.meets), key=lambda probe: probe.kept_tokens, default=None)
    keep, count = (None, None) if best is None else (best.keep, best.kept_tokens)
    return Target(start.variant, start.method, target_ms, keep, count, tuple(probes.values()), partial)


def _halve(ladder: list[int], resolution: float, meets: Callable[[int], bool]) -> None:
    low, high = 0, len(ladder) - 1
    if meets(high) or not meets(low):
        return
    while high - low > 1 and ladder[high] - ladder[low] > resolution:
        middle = (low + high) // 2
        if meets(middle):
            low = middle
        else:
            high = middle
