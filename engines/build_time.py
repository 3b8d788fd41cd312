"""How long engines take to build, to an order of magnitude: two rates fitted to builds that were measured."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.recipe import toml_module

_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Work:
    """What one engine is made of.

    Attributes:
        nodes: of its graph, at any depth.
        profiles: optimization profiles; each is laid out by itself.
        mib: of the engine.
    """

    nodes: int
    profiles: int
    mib: float

    @property
    def cost(self) -> tuple[float, float]:
        """What the two rates are of: nodes of all profiles, MiB."""
        return self.nodes * self.profiles, self.mib


@functools.cache
def measured() -> tuple[tuple[Work, float], ...]:
    """Every row of build_times.toml: the work, and its seconds."""
    return tuple((Work(row["nodes"], row["profiles"], row["mib"]), row["seconds"]) for row in table()["builds"])


def table() -> dict[str, Any]:
    """build_times.toml: `source`, and `builds`, a row per engine."""
    text = importlib.resources.files("edgeprune.engines").joinpath("build_times.toml").read_text(encoding="utf-8")
    return dict(toml_module().loads(text))


@functools.cache
def rates() -> tuple[float, float]:
    """Seconds per node and per MiB that fit the measured builds best relative to their length; never negative."""
    costs = np.array([work.cost for work, _ in measured()])
    seconds = np.array([value for _, value in measured()])
    weighted = costs / seconds[:, None]  # a short build counts as much as a long one
    best, *_ = np.linalg.lstsq(weighted, np.ones(len(seconds)), rcond=None)
    if (best < 0).any():  # one of the two explains the builds alone
        alone = [(float(((weighted[:, i] * r - 1) ** 2).sum()), i, r) for i, r in enumerate(_single(weighted))]
        _, index, rate = min(alone)
        return (rate, 0.0) if index == 0 else (0.0, rate)
    return float(best[0]), float(best[1])


def _single(weighted: np.ndarray[Any, Any]) -> list[float]:
    return [float(column.sum() / (column**2).sum()) for column in weighted.T]


def seconds(engines: Iterable[Work]) -> float:
    """Of building these engines one after the other."""
    per_node, per_mib = rates()
    return sum(per_node * work.cost[0] + per_mib * work.cost[1] for work in engines)


def rounded(value: float) -> str:
    """One digit and a unit, for people: an estimate must not look like a measurement."""
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), _UNITS[-1])
    return f"{max(1.0, float(f'{value / size:.1g}')):.0f} {unit}"
