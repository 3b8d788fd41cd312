"""What a registered method must have: a docstring with its source, an oracle row, a cost row, a line in
`edgeprune list methods` and one in docs/pruning.md. A method that lacks one fails here, by name."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from benchmarks.docs_tables import newest
from benchmarks.pruning_work import WORK
from edgeprune.cli import list as listing
from edgeprune.pruning import registry
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.registry import method_class, method_names
from tests.cli.command import edgeprune
from tests.pruning.attention_cases import CASES
from tests.pruning.in_encoder_cases import ORACLES as IN_ENCODER
from tests.pruning.question_cases import QUESTION_CASES as QUESTION
from tests.pruning.test_greedy import SPECS as GREEDY
from tests.pruning.test_methods import BY_SCORE

REPO = pathlib.Path(__file__).resolve().parents[1]
#: an arXiv number, or a name that the docstring has to repeat
SOURCE = re.compile(r"\d{4}\.\d{5}|\b[A-Z][A-Za-z-]{2,}")


@functools.cache
def listed() -> tuple[dict[str, Any], str]:
    """`edgeprune list methods`: name -> row of the JSON, and the text."""
    done = edgeprune("list", "methods", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    return {row["name"]: row for row in json.loads(done.stdout)}, edgeprune("list", "methods").stdout


def lacks_source(cls: type[PruningMethod]) -> bool:
    """No docstring of its own, or one that names nothing of `source`; "-" is for baselines, which have none."""
    text = cls.__doc__ or ""
    words = SOURCE.findall(cls.source)
    return (
        len(text) < 60
        or text.startswith(f"{cls.__name__}(")
        or not (cls.source == "-" or any(w in text for w in words))
    )


def missing(name: str) -> list[str]:
    """What a registered method lacks."""
    rows, text = listed()
    oracles = {*BY_SCORE, *(spec.partition(":")[0] for spec in (*CASES, *GREEDY, *IN_ENCODER, *QUESTION))}
    docs = (REPO / "docs" / "pruning.md").read_text(encoding="utf-8")
    lacking = {
        "a docstring with its source": lacks_source(method_class(name)),
        "an oracle row": name not in oracles,
        "a count of its cost": name not in WORK,
        "a measured cost": name not in newest("pruning-cost")["methods"],
        "a line in list methods": name not in rows or f"\n{name} " not in text,
        "a row in docs/pruning.md": f"| `{name}` |" not in docs.partition("## What a method costs")[0],
    }
    return [what for what, lacks in lacking.items() if lacks]


@pytest.mark.parametrize("name", method_names())
def test_method_has_every_row(name: str) -> None:
    assert missing(name) == [], f"{name}: CONTRIBUTING.md says where each belongs"


@dataclass(frozen=True)
class Fake(PruningMethod):
    name: ClassVar[str] = "fake"
    summary: ClassVar[str] = "keep nothing in particular"
    source: ClassVar[str] = "arXiv 0000.00000"


def test_a_method_without_any_row_is_named_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    listed()
    monkeypatch.setitem(registry.METHODS, "fake", f"{__name__}:Fake")
    assert len(missing("fake")) == 6


@pytest.mark.parametrize("name", method_names())
def test_list_methods_says_what_the_class_says(name: str) -> None:
    """The list is read from the sources, without torch; here is torch."""
    row, method = listed()[0][name], method_class(name)()
    assert set(row) == {
        "name", "summary", "source", "where", "scope", "text", "needs", "adaptation", "parameters",
    }  # fmt: skip
    for key in ("name", "summary", "source", "where", "scope", "text", "parameters"):
        assert row[key] == getattr(method, key), key
    assert {need.kind for need in method.needs} <= set(row["needs"])
    departs = "adaptation of" in f"{method.source} {method.summary}".lower()
    assert row["adaptation"] or not departs, "the docstring of an adaptation begins with `Adaptation of`"


def test_list_methods_shows_the_columns_to_people() -> None:
    header, *lines = listed()[1].splitlines()
    assert {"name", "where", "scope", "text", "needs", "adaptation"} <= set(header.split())
    assert len(lines) == len(method_names())
    rows = {line.split()[0]: line for line in lines}
    assert "attention" in rows["pagerank"]
    assert "after_projector" in rows["divprune"]


def test_needs_are_empty_where_a_method_reads_no_signal() -> None:
    rows = {row["name"]: row for row in listing.methods()}
    assert [rows[name]["needs"] for name in ("none", "stride", "divprune")] == [[], [], []]
    assert rows["hiprune"]["needs"] == ["received_attention"]
    assert rows["mmr"]["needs"] == ["cls_attention", "received_attention"]
    assert rows["prumerge"]["needs"] == ["wide_cls_attention", "keys"]
