"""What each method lost against all tokens, question by question, as rows of `edgeprune/assets/retention.json`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.measure import statistics


def groups(report: dict[str, Any]) -> dict[tuple[str, float], list[str]]:
    """(method, keep) -> its cases; the seeds of random are one method."""
    found: dict[tuple[str, float], list[str]] = {}
    for case in report["cases"]:
        if case["method"] is not None:
            found.setdefault((base(case["method"]), case["keep"]), []).append(case["case"])
    return found


def base(method: str) -> str:
    return "random" if method.startswith("random") else method


def scores(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Case -> item id -> score."""
    found: dict[str, dict[str, float]] = {}
    for row in report["results"]:
        found.setdefault(row["case"], {})[row["id"]] = row["score"]
    return found


def retained(report: dict[str, Any], source: str) -> dict[str, Any]:
    """{"measured": [{family, model, method, keep, score, unpruned, loss, interval, questions, source}]}, 0..1."""
    by_case = scores(report)
    full = by_case["none@1"]
    ids = [key for key in full if all(key in found for found in by_case.values())]
    rows = []
    for (method, keep), cases in groups(report).items():
        if method == "none" or keep == 1:
            continue
        mine = [float(np.mean([by_case[case][key] for case in cases])) for key in ids]
        paired = statistics.compare([full[key] for key in ids], mine)
        rows.append({
            "family": "llava", "model": "demo", "method": method, "keep": keep,
            "score": round(float(np.mean(mine)), 4), "unpruned": round(float(np.mean([full[key] for key in ids])), 4),
            "loss": round(paired.difference, 4), "interval": [round(end, 4) for end in paired.interval],
            "questions": len(ids), "source": source,
        })  # fmt: skip
    return {"measured": rows}
