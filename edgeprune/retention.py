"""What pruning is known to cost: sentences for an export whose method and keep ratio lost a lot of accuracy elsewhere.

The figures are in `assets/retention.json`, which `examples/demo_benchmark` writes from measured answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeprune.keep import keep_count

#: accuracy, 0..1, whose loss is worth a warning
MOST_LOST: Final = 0.1
_FILE: Final = Path(__file__).parent / "assets" / "retention.json"


@dataclass(frozen=True)
class Measured:
    """One method at one keep ratio against all tokens, on the same questions.

    Attributes:
        family: Hugging Face model_type of the model that was measured.
        loss: unpruned minus score; `interval` is its 95 % interval.
        source: where the answers are.
    """

    family: str
    model: str
    method: str
    keep: float
    score: float
    unpruned: float
    loss: float
    interval: tuple[float, float]
    questions: int
    source: str


def measured(path: Path = _FILE) -> tuple[Measured, ...]:
    """The shipped rows."""
    rows = json.loads(path.read_text(encoding="utf-8"))["measured"]
    return tuple(Measured(**{**row, "interval": tuple(row["interval"])}) for row in rows)


def warnings(
    family: str, methods: Iterable[str], keep: float, visual_tokens: int, rows: Iterable[Measured] | None = None
) -> list[str]:
    """A sentence per method that lost more than `MOST_LOST` on its family at this keep ratio or at a larger one.

    A loss counts when its interval lies above 0. Parameters of a method are not looked at, seeds of random are one.

    Args:
        methods: SPECs, NAME[:param=value,...].
        keep: the default keep ratio of the export.
        visual_tokens: N, to tell equal counts from unequal ones.
        rows: None: the shipped ones.
    """
    table = measured() if rows is None else tuple(rows)
    names = dict.fromkeys(spec.partition(":")[0].strip() for spec in methods)
    found = []
    for name in names:
        count = keep_count(visual_tokens, keep)
        known = [row for row in table if (row.family, row.method) == (family, name)]
        above = [row for row in known if keep_count(visual_tokens, row.keep) >= count]
        lossy = [row for row in above if row.loss > MOST_LOST and row.interval[0] > 0]
        if lossy:
            found.append(_sentence(min(lossy, key=lambda row: row.keep), keep))
    return found


def _sentence(row: Measured, keep: float) -> str:
    at = f"keep {row.keep:g}" if row.keep == keep else f"keep {row.keep:g}, which is more than {keep:g},"
    low, high = (100 * end for end in row.interval)
    return (
        f"{row.method} at {at} lost {100 * row.loss:.0f} points of accuracy ({low:.0f} to {high:.0f}) on "
        f"{row.questions} questions to the {row.model} model ({row.family}): {row.score:.3f} instead of "
        f"{row.unpruned:.3f}, {row.source}; `edgeprune eval` measures it on your own"
    )
