"""The export recipe: round trips and refusals."""

from __future__ import annotations

import json
import math

import pytest

from edgeprune.errors import UserError
from edgeprune.recipe import ExportRecipe

FULL = ExportRecipe(
    model="llava-hf/llava-1.5-7b-hf",
    revision="main",
    prune=("fastervlm:layer=-2", "random:seed=3"),
    keep=0.25,
    keep_range=(0.05, 0.5),
    random_weights=True,
    overrides=(("text.num_hidden_layers", "2"), ("vision.image_size", '"33\x7f6\n"')),
    dtype="fp16",
)


@pytest.mark.parametrize("recipe", [ExportRecipe("demo"), FULL])
def test_json_and_toml_round_trips(recipe: ExportRecipe) -> None:
    assert ExportRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    tomllib = pytest.importorskip("tomllib")
    assert ExportRecipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


def test_a_recipe_file_reads_like_its_text(tmp_path) -> None:
    pytest.importorskip("tomllib")
    path = tmp_path / "recipe.toml"
    path.write_text(FULL.to_toml(), encoding="utf-8")
    assert ExportRecipe.read(path) == FULL
    with pytest.raises(UserError, match="cannot read the recipe"):
        ExportRecipe.read(tmp_path / "none.toml")
    with pytest.raises(UserError, match="not valid TOML"):
        ExportRecipe.from_toml("keep = ")


@pytest.mark.parametrize("keep", [0, -0.1, 1.5, math.nan, math.inf, True, "0.1", None])
def test_keep_must_be_a_ratio(keep) -> None:
    with pytest.raises(UserError, match="keep must be a number above 0 and at most 1"):
        ExportRecipe("demo", keep=keep)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": " "}, "model must name"),
        ({"revision": ""}, "revision must name"),
        ({"prune": []}, "at least one method"),
        ({"prune": ["none", "none"]}, "asked for twice"),
        ({"prune": "none"}, "prune must be a list"),
        ({"keep": 0.1, "keep_range": [0.2, 1.0]}, "keep 0.1 is outside the keep range 0.2:1"),
        ({"keep_range": [1.0, 0.01]}, "is empty"),
        ({"keep_range": [0.1]}, "two numbers"),
        ({"keep_range": [0, 1]}, "keep range must be a number above 0"),
        ({"static_keep": "yes"}, "static_keep must be true or false"),
        ({"overrides": {"text..n": "2"}}, "is not a config key"),
        ({"overrides": {"text.n": 2}}, "must be text"),
        ({"overrides": [["text.n", "2"]]}, "overrides must be a table"),
        ({"dtype": "fp8"}, "dtype must be one of fp32, fp16"),
        ({"keeps": 0.1}, "unknown recipe field 'keeps'"),
    ],
)
def test_refusals_are_one_sentence(fields, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        ExportRecipe.from_dict({"model": "demo", **fields})
    assert "\n" not in str(caught.value)


def test_a_config_key_is_set_once_and_a_model_is_needed() -> None:
    with pytest.raises(UserError, match="set twice"):
        ExportRecipe("demo", overrides=(("a", "1"), ("a", "2")))
    with pytest.raises(UserError, match="needs the field 'model'"):
        ExportRecipe.from_dict({})
