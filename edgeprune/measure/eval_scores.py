"""Scores of one case: mean with its interval, by metric and by the items' fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edgeprune.measure import statistics
from edgeprune.measure.dataset import Item
from edgeprune.measure.eval_work import Asked
from edgeprune.measure.metrics import METRICS
from edgeprune.measure.normalise import plain

Rows = Sequence[tuple[Item, Asked]]


def summary(rows: Rows) -> dict[str, Any]:
    """{"items", "score", "interval", "interval_kind"} and, where items are answered with yes or no, "yes_no".

    `score` is the mean over the items, 0..1; without items it is None. The interval is Wilson's where every score is
    0 or 1 by definition, else a bootstrap.
    """
    if not rows:
        return {"items": 0, "score": None, "interval": None, "interval_kind": None}
    scores = [answer.score for _, answer in rows]
    binary = all(METRICS[item.metric].binary for item, _ in rows)
    interval = statistics.wilson(sum(scores), len(scores)) if binary else statistics.bootstrap(scores)
    found: dict[str, Any] = {
        "items": len(rows),
        "score": sum(scores) / len(scores),
        "interval": list(interval),
        "interval_kind": "wilson" if binary else "bootstrap",
    }
    words = [(item, answer) for item, answer in rows if item.metric in ("yes_no", "pope")]
    return {**found, "yes_no": yes_no(words)} if words else found


def yes_no(rows: Rows) -> dict[str, Any]:
    """POPE's figures with yes as the positive answer, and MME's accuracy+: the share of pictures with no mistake.

    An answer that is neither yes nor no is wrong and counts as neither.
    """
    pairs = [(plain(item.answers[0]), answer.read) for item, answer in rows]
    hits = sum(gold == said == "yes" for gold, said in pairs)
    said_yes, are_yes = sum(said == "yes" for _, said in pairs), sum(gold == "yes" for gold, _ in pairs)
    precision, recall = _share(hits, said_yes), _share(hits, are_yes)
    both = (precision or 0.0) + (recall or 0.0)
    pictures: dict[str, bool] = {}
    for item, answer in rows:
        pictures[item.picture] = pictures.get(item.picture, True) and answer.score == 1
    return {
        "items": len(pairs),
        "accuracy": _share(sum(gold == said for gold, said in pairs), len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * (precision or 0.0) * (recall or 0.0) / both if both else 0.0,
        "yes_share": _share(said_yes, len(pairs)),
        "neither": sum(said not in ("yes", "no") for _, said in pairs),
        "accuracy_plus": _share(sum(pictures.values()), len(pictures)),
    }


def breakdown(rows: Rows, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Field -> value -> summary, of the fields that items have; and `metric`, where there are several."""
    found = {name: _split(rows, lambda item, name=name: item.fields.get(name)) for name in names}  # type: ignore[misc]
    by_metric = _split(rows, lambda item: item.metric)
    return {**{name: parts for name, parts in found.items() if parts},
            **({"metric": by_metric} if len(by_metric) > 1 else {})}  # fmt: skip


def _split(rows: Rows, key: Callable[[Item], str | None]) -> dict[str, Any]:
    parts: dict[str, list[tuple[Item, Asked]]] = {}
    for item, answer in rows:
        value = key(item)
        if value is not None:
            parts.setdefault(value, []).append((item, answer))
    return {value: summary(part) for value, part in parts.items()}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
