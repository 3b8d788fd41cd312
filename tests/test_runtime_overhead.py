"""benchmarks/runtime_overhead.py does what it says, on the hand-made bundle. Never milliseconds."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks import runtime_overhead
from edgeprune.recipe import ExportRecipe
from tests.runtime import tiny_graphs


def test_costs_add_up_and_stops_hit_the_prefill(tmp_path: pathlib.Path) -> None:
    slow = tiny_graphs.Options(slow={"prefill": 600_000})
    bundle = tiny_graphs.write_bundle(tmp_path / "slow.bundle", slow)
    result = runtime_overhead.run(bundle, None, trials=1, stop_count=2)
    assert json.loads(json.dumps(result)) == result
    for keep, kept in (("0.1", 2), ("1.0", 16)):
        [trial] = result["overhead"][keep]["trials"]
        assert trial["prompt_tokens"] == 4 + kept + 1 + len(runtime_overhead.QUESTION) + 3
        assert trial["own_ms"] == pytest.approx(trial["wall_ms"] - trial["graph_ms"] - trial["resize_ms"])
        assert 0 < trial["graph_ms"] + trial["resize_ms"] < trial["ttft_ms"] < trial["wall_ms"]
    stops = result["stops"]
    assert [trial["stop"] for trial in stops["trials"]] == ["aborted", "deadline"] * 2
    assert all(trial["next_answer_right"] for trial in stops["trials"])
    assert stops["last_answer_right"]
    assert stops["aborted"]["trials"] > 0 < stops["deadline"]["trials"]
    assert "next answers right: 4 of 4; last answer right: True" in runtime_overhead.summary(result)


def test_the_recipe_is_the_shape_it_names() -> None:
    recipe = ExportRecipe.read(runtime_overhead.RECIPE)
    shape = dict(recipe.overrides)
    assert (recipe.model, recipe.random_weights, recipe.prune) == ("llava15", True, ("fastervlm",))
    width, inner, layers = (
        int(shape[f"text.{name}"]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    heads, head, vocabulary = int(shape["text.num_key_value_heads"]), width // 32, 32064
    decoder = layers * (2 * width * width + 2 * width * heads * head + 3 * width * inner) + 2 * vocabulary * width
    assert decoder == pytest.approx(1.1e9, rel=0.01)
