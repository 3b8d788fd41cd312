"""A sweep: which cases it measures and asks, and the points of accuracy against latency that come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.manifest import Manifest
from edgeprune.measure import grid, profile
from edgeprune.measure.grid import RANDOM, Grid

_DRAWS = 2000


@dataclass(frozen=True)
class Plan:
    """What a sweep runs.

    Attributes:
        variants: None: the bundle's own graphs.
        asked: the cases that answer questions, the same for every variant.
        timed: the cases whose latency is measured; of random's seeds, which cost the same, the first one.
    """

    variants: tuple[str | None, ...]
    asked: Grid
    timed: tuple[profile.Case, ...]


def plan(
    manifest: Manifest,
    variants: Sequence[str | None],
    methods: Sequence[str] | None,
    keeps: Sequence[float] | None,
) -> Plan:
    """Methods x keeps x variants.

    Args:
        methods: None: all of the bundle. Several bring the random baseline along, see `grid.plan`.
        keeps: None: those of `profile.DEFAULT_KEEPS` that a method serves. A ratio that a method does not serve is left
            out there, with a note.

    Raises:
        UserError: the bundle lacks a method, or serves nothing that was asked for.
    """
    wanted = list(methods or manifest.methods.each)
    served = keeps
    if served is None:
        known = [name for name in wanted if name in manifest.methods.each]
        found = profile.choose_cases(manifest, [None], known or wanted)
        served = sorted({case.keep for case in found}, reverse=True)
    asked = grid.plan(manifest, wanted, served)
    if keeps is None:  # nobody asked for the ratios that are left out
        notes = tuple(note for note in asked.notes if " is left out: " not in note)
        asked = dataclasses.replace(asked, notes=notes)
    first = {(case.group, case.keep): case for case in reversed(asked.cases)}
    chosen = [case for case in asked.cases if first[case.group, case.keep] is case]
    timed = [
        profile.Case(variant, str(case.method), case.keep) for variant in dict.fromkeys(variants) for case in chosen
    ]
    return Plan(tuple(dict.fromkeys(variants)), asked, tuple(timed))


def points(
    planned: Plan, latency: Sequence[Mapping[str, Any]], accuracy: Mapping[str | None, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One point per timed case, in their order.

    Args:
        latency: the cases of `profile_report.report`.
        accuracy: variant -> `eval_report.report`; variants that were not asked are missing.

    Returns:
        Each {"variant", "method", "keep", "kept_tokens", "visual_tokens", "ttft_ms", "ttft_interval_ms", "total_ms",
        "stages_ms", "score", "score_interval", "items", "seeds", "baseline", "series", "pareto"}; what is not known is
        None. TTFT is the median with a bootstrap interval; `series` counts methods in variants, random apart;
        `pareto`: no other point is both at least as fast and as good, None without a score or a time.
    """
    groups = {case.method: case.group for case in planned.asked.cases}
    found = [_point(entry, groups[entry["method"]], accuracy.get(entry["variant"])) for entry in latency]
    series = dict.fromkeys((point["variant"], point["method"]) for point in found if not point["baseline"])
    places = {name: place for place, name in enumerate(series)}
    for point in found:
        point["series"] = places.get((point["variant"], point["method"]), 0)
    complete = [point for point in found if point["score"] is not None and point["ttft_ms"] is not None]
    for point, best in zip(complete, front([(p["ttft_ms"], p["score"]) for p in complete]), strict=True):
        point["pareto"] = best
    return found


def front(pairs: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (cost, worth) pairs: whether no other costs at most as much and is worth at least as much, one of it truly."""
    return [
        not any(c <= cost and w >= worth and (c < cost or w > worth) for c, w in pairs) for cost, worth in pairs
    ]  # fmt: skip


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Percentile bootstrap of the median, 95 %, with a fixed seed; None of fewer than two values."""
    if len(values) < 2:
        return None
    data = np.asarray(values, np.float64)
    draws = np.random.default_rng(0).integers(0, len(data), (_DRAWS, len(data)))
    low, high = np.percentile(np.median(data[draws], axis=1), [2.5, 97.5])
    return float(low), float(high)


def _point(entry: Mapping[str, Any], group: str, scored: Mapping[str, Any] | None) -> dict[str, Any]:
    stages = {name: values and values["p50"] for name, values in entry["stages_ms"].items()}
    interval = median_interval([trial["ttft_ms"] for trial in entry["trials"]])
    return {
        "variant": entry["variant"],
        "method": group,
        "keep": entry["keep"],
        "kept_tokens": entry["kept_tokens"],
        "visual_tokens": entry["visual_tokens"],
        "ttft_ms": stages["ttft"],
        "ttft_interval_ms": None if interval is None else list(interval),
        "total_ms": stages["total"],
        "stages_ms": stages,
        **_score(entry, group, scored),
        "baseline": group == RANDOM,
        "pareto": None,
    }


def _score(entry: Mapping[str, Any], group: str, scored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of random: the mean over its seeds, with Student's interval; of others the case's own."""
    row: Mapping[str, Any] | None = None
    if scored is not None and group == RANDOM:
        row = next((seeds for seeds in scored["random"] if seeds["keep"] == entry["keep"]), None)
    elif scored is not None:
        cases = (case for case in scored["cases"] if case["method"] == entry["method"])
        row = next((case for case in cases if case["keep"] == entry["keep"]), None)
    if row is None:
        return {"score": None, "score_interval": None, "items": None, "seeds": None}
    items = scored["answered"] if scored is not None else None
    return {"score": row["score"], "score_interval": row["interval"], "items": items, "seeds": row.get("seeds")}
