"""What an evaluation says: scores by case and group, paired tests at equal K, and the rows of the table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.measure import statistics
from edgeprune.measure.eval_scores import Rows, breakdown, summary
from edgeprune.measure.evaluate import Evaluated
from edgeprune.measure.grid import RANDOM, Case

#: by which results are broken down when nothing else is asked for, as far as the data have them
DEFAULT_FIELDS = ("category", "size")


def report(result: Evaluated, fields: Sequence[str]) -> dict[str, Any]:
    """{"partial", "answered", "cases", "random", "losses", "tests", "results"}.

    Scores and tests are on the items that all cases have answered, `results` are all answers.
    """
    answered = {case: result.answers(case) for case in result.cases}
    common = [item for item in result.dataset.items if all(item.id in found for found in answered.values())]
    rows = {case: [(item, answered[case][item.id]) for item in common] for case in result.cases}
    scores = {case: [answer.score for _, answer in rows[case]] for case in result.cases}
    return {
        "partial": result.partial,
        "answered": len(common),
        "cases": [_scored(result, case, rows[case], fields) for case in result.cases],
        "random": _random(result.cases, rows, fields),
        "losses": _losses(result.cases, scores) if common else [],
        "tests": _tests(result.cases, scores) if common else [],
        "results": [
            {"case": case.name, **_answer(answer), "fields": dict(item.fields)}
            for case in result.cases
            for item, answer in ((item, answered[case][item.id]) for item in result.dataset.items
                                 if item.id in answered[case])
        ],
    }  # fmt: skip


def _scored(result: Evaluated, case: Case, rows: Rows, fields: Sequence[str]) -> dict[str, Any]:
    by = breakdown(rows, fields)
    totals = result.dataset.totals
    own = {"totals": totals(breakdown(rows, ("category",)))} if totals and rows else {}
    return {**_case(result, case), **summary(rows), **own, "by": by}


def _case(result: Evaluated, case: Case) -> dict[str, Any]:
    """Counts come from the shapes of executed tensors; without a picture they are 0."""
    blocks = [block for block in result.blocks.values() if block.case == case.name and block.visual_tokens]
    kept = sorted({(block.kept, block.visual_tokens) for block in blocks})
    least, most = (kept[0], kept[-1]) if kept else ((case.kept, 0), (case.kept, 0))
    counts = {"kept_tokens": least[0], "visual_tokens": least[1]}
    if least != most:
        counts |= {"most_kept_tokens": most[0], "most_visual_tokens": most[1]}
    return {"case": case.name, "method": case.method, "keep": case.keep, **counts}


def _answer(answer: Any) -> dict[str, Any]:
    found = {"id": answer.id, "text": answer.text, "read": answer.read, "score": answer.score,
             "finish_reason": answer.finish_reason}  # fmt: skip
    if answer.log_probabilities is not None:
        found["log_probabilities"] = list(answer.log_probabilities)
    return found


def _random(cases: Sequence[Case], rows: Any, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Per keep ratio: mean over the seeds with Student's interval, and the same by field."""
    found = []
    for (name, keep), group in _grouped(cases).items():
        if name != RANDOM:
            continue
        totals = [summary(rows[case])["score"] for case in group]
        if None in totals:
            continue
        parts = [breakdown(rows[case], fields) for case in group]
        by = {
            name: {value: _spread([part[name][value]["score"] for part in parts]) for value in parts[0][name]}
            for name in parts[0]
        }
        found.append({"keep": keep, "kept_tokens": group[0].kept, **_spread(totals), "by": by})
    return found


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    interval = statistics.student(scores)
    if interval is not None:
        interval = max(0.0, interval[0]), min(1.0, interval[1])
    return {
        "seeds": len(scores),
        "score": float(np.mean(scores)),
        "interval": None if interval is None else list(interval),
    }


def _losses(cases: Sequence[Case], scores: dict[Case, list[float]]) -> list[dict[str, Any]]:
    """What every method lost against the first case that keeps all tokens, question by question."""
    full = next((case for case in cases if case.keep == 1), None)
    found = []
    for (group, keep), same in _grouped(cases).items():
        if full is not None and keep < 1:
            mean = list(np.mean([scores[case] for case in same], axis=0))
            paired = statistics.compare(scores[full], mean)
            found.append({
                "method": group, "keep": keep, "kept_tokens": same[0].kept, "unpruned": full.name,
                "loss": paired.difference, "interval": list(paired.interval), "p": paired.p, "test": paired.test,
            })  # fmt: skip
    return found


def _grouped(cases: Sequence[Case]) -> dict[tuple[str, float], list[Case]]:
    """(method, keep) -> its cases; the seeds of random are one method."""
    found: dict[tuple[str, float], list[Case]] = {}
    for case in cases:
        if case.method is not None:
            found.setdefault((case.group, case.keep), []).append(case)
    return found


def _tests(cases: Sequence[Case], scores: dict[Case, list[float]]) -> list[dict[str, Any]]:
    """Every two groups of cases that keep the same K tokens; several seeds count with their mean per item."""
    by_count: dict[int, dict[str, list[Case]]] = {}
    for case in cases:
        if case.kept:
            by_count.setdefault(case.kept, {}).setdefault(case.group, []).append(case)
    found = []
    for kept, groups in sorted(by_count.items(), reverse=True):
        means = {name: list(np.mean([scores[case] for case in group], axis=0)) for name, group in groups.items()}
        for first, second in itertools.combinations(means, 2):
            paired = statistics.compare(means[first], means[second])
            found.append({
                "kept_tokens": kept, "first": first, "second": second, "difference": paired.difference,
                "interval": list(paired.interval), "p": paired.p, "test": paired.test,
            })  # fmt: skip
    return found


def table_rows(found: dict[str, Any]) -> list[list[str]]:
    """Header and one row per case; random seeds as one row per keep ratio."""
    rows = [["method", "keep", "K/N", "score", "95 % interval", "items"]]
    seen: set[float] = set()
    random = {entry["keep"]: entry for entry in found["random"] if entry["seeds"] > 1}
    for case in found["cases"]:
        group = random.get(case["keep"]) if _is_random(case["method"]) else None
        if group and case["keep"] in seen:
            continue
        count = f"{case['kept_tokens']}/{case['visual_tokens']}" if case["visual_tokens"] else "-"
        if group:
            seen.add(case["keep"])
            name, entry = f"random, {group['seeds']} seeds", group
        else:
            name, entry = case["method"] or case["case"], case
        keep = f"{case['keep']:g}" if case["method"] else "-"
        rows.append([name, keep, count, _number(entry["score"]), interval_text(entry["interval"]), str(case["items"])])
    return rows


def _is_random(method: str | None) -> bool:
    return method is not None and (method == RANDOM or method.startswith(f"{RANDOM}-seed-"))


def interval_text(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
