"""The cost table of the pruning methods: complete, sound in itself, and its misses are explained."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from benchmarks import pruning_cost
from benchmarks.pruning_work import GOALS, SIGNAL_FLOPS, WORK, Sizes, encoder_flops, thinned_encoder_flops
from edgeprune.pruning.base import SIGNAL_KINDS
from edgeprune.pruning.registry import method_names, parse

REPO = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The newest committed result."""
    newest = max((REPO / "benchmarks" / "results").glob("*-pruning-cost.json"))
    made: dict[str, Any] = json.loads(newest.read_text())
    return made


def test_every_registered_method_has_a_cost_row(table: dict[str, Any]) -> None:
    assert set(WORK) == set(method_names()), "benchmarks/pruning_work.py counts what each method costs"
    assert set(method_names()) <= set(table["methods"]), "make bench-pruning, and keep its JSON"
    for name in method_names():
        assert (name in table["trials_ms"]) == (parse(name).where != "nowhere"), name


def test_every_kind_of_signal_is_counted() -> None:
    assert set(SIGNAL_FLOPS) == set(SIGNAL_KINDS) == set(pruning_cost.SIGNAL_SHAPES)


def test_counts_of_the_table_are_those_of_the_code(table: dict[str, Any]) -> None:
    for spec, row in table["methods"].items():
        assert {
            key: row[key] for key in ("goal", "where", "flops", "signal_flops", "extra_bytes")
        } == pruning_cost.paper(parse(spec))
        assert row["meets_goal"] == (row["ratio_to_encoder"] <= row["goal"])


def test_projecting_all_tokens_is_counted_apart(table: dict[str, Any]) -> None:
    apart = table["projecting_all"]
    assert apart["ratio_to_encoder"] > 0
    assert set(apart["paid_by"]) == {name for name in method_names() if parse(name).where == "after_projector"}


def test_counted_work_follows_the_maths() -> None:
    """Twice the width doubles a cosine matrix; twice the steps doubles the steps of a coverage method."""
    small, wide, long = (Sizes(576, k, c, 1024, 16) for k, c in ((58, 1024), (58, 2048), (116, 1024)))
    assert 1.9 < WORK["todre"].flops(wide) / WORK["todre"].flops(small) < 2.1
    assert WORK["scope"].flops(long) - WORK["scope"].flops(small) == 3 * 58 * 576**2
    assert {work.goal for work in WORK.values()} == set(GOALS)


def test_pruning_inside_the_encoder_saves_what_its_shapes_say() -> None:
    sizes = Sizes(576, 58, 1024, 1024, 16)
    assert thinned_encoder_flops(sizes, (576,) * 23, 4096) == encoder_flops(sizes, 23, 4096)
    half = thinned_encoder_flops(sizes, parse("tome").schedule(576, 23, 58), 4096) / encoder_flops(sizes, 23, 4096)
    assert 0.5 < half < 0.6


def test_docs_give_every_row_and_name_every_miss(table: dict[str, Any]) -> None:
    section = (REPO / "docs" / "pruning.md").read_text().partition("## What a method costs")[2]
    costs, _, misses = section.partition("### Over the goal")
    for spec, row in table["methods"].items():
        assert f"`{spec}`" in costs, spec
        assert row["meets_goal"] or f"`{spec}`" in misses, f"{spec} misses its goal: say why"
