"""One report from those of several bundles of a checkpoint, as if one bundle had held all their methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from losses import base

from edgeprune.measure.dataset import Dataset
from edgeprune.measure.eval_report import report
from edgeprune.measure.eval_work import Asked, Block
from edgeprune.measure.evaluate import Evaluated
from edgeprune.measure.grid import TEXT_ONLY, Case

#: what depends on the bundle or on the answers, and is made anew
_OWN = ("bundle", "bundle_sha256", "notes", "work_file")


def joined(reports: Sequence[dict[str, Any]], dataset: Dataset, fields: Sequence[str]) -> dict[str, Any]:
    """The first report's facts; scores, losses and paired tests over the cases of all.

    Raises:
        SystemExit: the reports are not of one state of data, variant, runtime and length of answers.
    """
    facts = [{key: value for key, value in one.items() if key in _shared(one)} for one in reports]
    if any(one != facts[0] for one in facts):
        raise SystemExit("the reports are of different runs; remove them and begin again")
    cases = [_case(row) for one in reports for row in one["cases"]]
    blocks = {(block.case, block.picture): block for one in reports for block in _blocks(one, dataset)}
    result = Evaluated(dataset, cases, blocks, partial=any(one["partial"] for one in reports))
    bundles = {one["bundle"]: one["bundle_sha256"] for one in reports}
    return {**facts[0], "bundles": bundles, "notes": _notes(reports, cases), **report(result, fields)}


def _shared(one: dict[str, Any]) -> list[str]:
    made = ("partial", "answered", "cases", "random", "losses", "tests", "results")
    return [key for key in one if key not in _OWN and key not in made]


def _case(row: dict[str, Any]) -> Case:
    group = TEXT_ONLY if row["method"] is None else base(row["method"])
    return Case(row["method"], group, row["keep"], row["kept_tokens"])


def _blocks(one: dict[str, Any], dataset: Dataset) -> list[Block]:
    """The answers by case and picture; what the decoder read is not told any more."""
    counts = {row["case"]: (row["kept_tokens"], row["visual_tokens"]) for row in one["cases"]}
    picture = {item.id: item.picture for item in dataset.items}
    found: dict[tuple[str, str], list[Asked]] = {}
    for row in one["results"]:
        asked = Asked(row["id"], row["text"], row["read"], row["score"], row["finish_reason"])
        found.setdefault((row["case"], picture[row["id"]]), []).append(asked)
    return [Block(case, name, "", *counts[case], tuple(answers)) for (case, name), answers in found.items()]


def _notes(reports: Sequence[dict[str, Any]], cases: Sequence[Case]) -> list[str]:
    """What no bundle served."""
    served = {case.name for case in cases}
    notes = dict.fromkeys(note for one in reports for note in one["notes"] if " is left out: " in note)
    return [note for note in notes if note.partition(" ")[0] not in served]
