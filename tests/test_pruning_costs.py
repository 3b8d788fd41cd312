"""The cost table of the pruning methods: complete, sound in itself, and its misses are explained."""

from __future__ import annotations

import copy
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import docs_tables, pruning_cost, pruning_cost_docs
from benchmarks.pruning_work import GOALS, SIGNAL_FLOPS, WORK, Sizes, encoder_flops, thinned_encoder_flops
from edgeprune.export.models.layers import Linear
from edgeprune.export.trace import Axis
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


def test_docs_are_written_from_the_newest_result(table: dict[str, Any]) -> None:
    written = docs_tables.part(pruning_cost_docs.PAGE, pruning_cost_docs.NAME)
    assert written == pruning_cost_docs.text(table) + "\n", "python -m benchmarks.pruning_cost --only-docs"
    assert all(f"| `{spec}` |" in written for spec in table["methods"])


def test_docs_say_why_a_method_misses_its_goal(table: dict[str, Any]) -> None:
    misses = (REPO / "docs" / "pruning.md").read_text().partition("### Over the goal")[2]
    for spec, row in table["methods"].items():
        assert row["meets_goal"] or f"`{spec}`" in misses, f"{spec} misses its goal: say why"


def test_docs_give_both_ratios_once_an_int8_encoder_was_timed(table: dict[str, Any]) -> None:
    timed = copy.deepcopy(table)
    timed["encoder_int8"] = {"ratio_to_encoder": 0.5, "products": 12, "products_of_a_block": 6}
    timed["projecting_all"] |= {"ratio_to_encoder": 0.05, "ratio_to_int8_encoder": 0.1}
    for row in timed["methods"].values():
        row["ratio_to_int8_encoder"] = 2 * row["ratio_to_encoder"]
    timed["methods"]["vispruner"] |= {"ratio_to_encoder": 0.0123, "ratio_to_int8_encoder": 0.0246, "meets_goal": False}
    written = pruning_cost_docs.text(timed)
    assert "| `vispruner` | 1.23 % | 2.46 % |" in written
    assert "6 weight products of every block in dynamic int8" in written
    assert "it takes 50.00 % of the fp32 time" in written
    assert "was not timed" not in written
    assert "5.00 % of the fp32 encoder, 10.00 % of the int8 one" in written
    assert "Over the goal: `vispruner`." in written


def test_int8_of_a_timed_graph_has_the_same_inputs_and_nearly_the_same_outputs() -> None:
    axis, out = Axis("x", "x", "float32", (1, 40, 64)), Axis("y", "y", "float32", (1, 40, 32))
    layers = torch.nn.Sequential(
        Linear(64, 64, True, torch.float32), torch.nn.GELU(), Linear(64, 32, True, torch.float32)
    )
    fp32 = pruning_cost.Timed(layers, (axis,), (out,), -1)
    int8 = fp32.int8()
    assert (fp32.products("MatMulInt8"), int8.products("MatMulInt8"), int8.products("MatMul", "Gemm", "Add")) == (
        0,
        2,
        0,
    )
    exact, rounded = (graph.session.run(None, graph.feeds)[0].ravel() for graph in (fp32, int8))
    assert exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded) > 0.999
    int8.run()
    assert (len(int8.trials), fp32.trials) == (1, [])
