"""What each method lost against all tokens, as rows of `edgeprune/assets/retention.json`."""

from __future__ import annotations

from typing import Any


def groups(report: dict[str, Any]) -> dict[tuple[str, float], list[str]]:
    """(method, keep) -> its cases; the seeds of random are one method."""
    found: dict[tuple[str, float], list[str]] = {}
    for case in report["cases"]:
        if case["method"] is not None:
            found.setdefault((base(case["method"]), case["keep"]), []).append(case["case"])
    return found


def base(method: str) -> str:
    return "random" if method.startswith("random") else method


def retained(report: dict[str, Any], source: str) -> dict[str, Any]:
    """{"measured": [{family, model, method, keep, score, unpruned, loss, interval, questions, source}]}, 0..1."""
    unpruned = {case["case"]: case["score"] for case in report["cases"]}
    rows = []
    for row in report["losses"]:
        full = unpruned[row["unpruned"]]
        rows.append({
            "family": "llava", "model": "demo", "method": row["method"], "keep": row["keep"],
            "score": round(full - row["loss"], 4), "unpruned": round(full, 4), "loss": round(row["loss"], 4),
            "interval": [round(end, 4) for end in row["interval"]], "questions": report["answered"], "source": source,
        })  # fmt: skip
    return {"measured": rows}
