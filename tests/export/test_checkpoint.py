"""Finding checkpoints: weight layouts old and new, aliases, overrides, and errors that say what to do."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgeprune.errors import CheckpointError
from edgeprune.export import pipeline
from edgeprune.export.aliases import ALIASES
from edgeprune.export.checkpoint import resolve
from edgeprune.export.models.llava import Llava
from edgeprune.export.weights import MemorySource, RandomSource, SafetensorsSource, parameters, weight_files
from edgeprune.pruning.registry import parse
from edgeprune.recipe import ExportRecipe
from tests.checkpoints import Shape, write_checkpoint
from tests.export.models import family_of, hf_model, llava_config

OLD_DINOV2 = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}


def old_name(name: str) -> str:
    """transformers 5 parameter name -> the name in checkpoints written before it."""
    if name.startswith("lm_head"):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    for new, old in OLD_DINOV2.items():
        name = name.replace(new, old)
    clip = (
        "embeddings.class",
        "embeddings.patch_embedding.",
        "embeddings.position_embedding.",
        "pre_",
        "post_layernorm",
    )
    if name.startswith("vision_tower.") and ("encoder.layers" in name or any(part in name for part in clip)):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def every_parameter(family: Llava) -> list[Any]:
    modules = [
        family.vision(parse("none"), family.visual_tokens, torch.float32, whole=True),
        family.embedding(torch.float32),
        family.decoder(torch.float32, whole=True),
    ]
    return [item for module in modules for item in parameters(module, family.canonical)]


@pytest.mark.parametrize("layout", ["new", "old", "old, sharded"])
@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_every_layout_loads(vision: str, layout: str, tmp_path: pathlib.Path) -> None:
    model = hf_model(llava_config(vision, 4))
    family, memory = family_of(model)
    rename = str if layout == "new" else old_name
    state = {rename(name): tensor.clone() for name, tensor in model.state_dict().items()}
    if "sharded" in layout:
        names = sorted(state)
        shards = {"a-00001.safetensors": names[::2], "a-00002.safetensors": names[1::2]}
        for file, part in shards.items():
            save_file({name: state[name] for name in part}, tmp_path / file)
        index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(state, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, family.canonical)
    found = every_parameter(family)
    assert len(found) > 50
    for item in found:
        assert torch.equal(item.load(source), item.load(memory)), item.name


@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_what_transformers_saves_loads(vision: str, tmp_path: pathlib.Path) -> None:
    model = hf_model(llava_config(vision, 4))
    family, memory = family_of(model)
    model.save_pretrained(tmp_path)
    source = SafetensorsSource(tmp_path, family.canonical)
    for item in every_parameter(family):
        assert torch.equal(item.load(source), item.load(memory)), item.name


def test_old_names_of_the_towers() -> None:
    assert old_name("model.vision_tower.encoder.layers.0.mlp.fc1.bias").startswith("vision_tower.vision_model.encoder")
    name = "model.vision_tower.encoder.layer.0.attention.q_proj.weight"
    assert old_name(name) == "vision_tower.encoder.layer.0.attention.attention.query.weight"


def test_random_weights_depend_on_the_name_alone() -> None:
    first, again = (RandomSource().tensor("x.q_proj.weight", (8, 16)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, RandomSource().tensor("y.q_proj.weight", (8, 16)))
    assert torch.equal(RandomSource().tensor("a.norm1.weight", (4,)), torch.ones(4))


def test_missing_misshapen_and_quantised_tensors_are_refused() -> None:
    source = MemorySource({"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.int8)}, str)
    with pytest.raises(CheckpointError, match="no tensor for c"):
        source.tensor("c", (1,))
    with pytest.raises(CheckpointError, match=r"shape \[2, 3\].*\[3, 3\].*--random-weights"):
        source.tensor("a", (3, 3))
    with pytest.raises(CheckpointError, match="int8"):
        source.tensor("b", (2,))


def test_weight_files_say_what_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        SafetensorsSource(tmp_path, str)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"no b\.safetensors"):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", [name for name in ALIASES if name != "demo"])
def test_shipped_configs_are_complete(name: str, tmp_path: pathlib.Path) -> None:
    checkpoint = resolve(ExportRecipe(model=name, random_weights=True), tmp_path)
    config = checkpoint.model_config
    assert checkpoint.random_weights
    assert checkpoint.sha256() is None
    side = checkpoint.preprocessor["crop_size"]["height"]
    family = Llava(config, side)
    assert family.visual_tokens == config.image_seq_length
    assert config.image_token_index < config.text_config.vocab_size


def test_llava15_has_the_shape_of_the_real_one(tmp_path: pathlib.Path) -> None:
    from edgeprune.export.writer import GraphSet

    config = resolve(ExportRecipe(model="llava15", random_weights=True), tmp_path).model_config
    family = Llava(config, 336)
    method = parse("fastervlm")
    path = family.path(method)
    assert (family.visual_tokens, path.blocks, path.feature_block) == (576, 23, 22)
    graphs = GraphSet(family, {"fastervlm": (method, 58)}, static_keep=False, dtype=torch.float32)
    # 7.06 G parameters in all, less the block and the norm that are dead code; nothing was allocated to know that
    assert 7.0e9 < graphs.data_bytes() / 4 < 7.06e9


def test_overrides_are_typed_and_known(tmp_path: pathlib.Path) -> None:
    def config_of(*pairs: tuple[str, str]) -> Any:
        return resolve(ExportRecipe(model="tiny", overrides=pairs), tmp_path).model_config

    changed = config_of(("text.num_hidden_layers", "5"), ("vision.layer_norm_eps", "1"), ("vision_feature_layer", "2"))
    assert changed.text_config.num_hidden_layers == 5
    assert changed.vision_config.layer_norm_eps == 1
    assert changed.vision_feature_layer == 2
    for pair, words in (
        (("text.num_layers", "5"), "num_layers"),
        (("decoder.num_hidden_layers", "5"), "text. and vision."),
        (("text.num_hidden_layers", "many"), "must be int"),
        (("tokenizer", "/no/such/folder"), "no such directory"),
    ):
        with pytest.raises(CheckpointError, match=words):
            config_of(pair)


def test_unknown_models_and_unreachable_hubs_say_what_to_do(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"alias.*directory.*hub id"):
        resolve(ExportRecipe(model="lava"), tmp_path)

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"at revision v1.*hf download someone/model.*directory") as caught:
        resolve(ExportRecipe(model="someone/model", revision="v1"), tmp_path)
    assert "\n" not in str(caught.value)


def test_hub_download_is_read_like_a_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "0123abc", Shape())
    asked: dict[str, Any] = {}

    def download(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(hub_id=hub_id, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = resolve(ExportRecipe(model="llava15", revision="main"), tmp_path)
    assert (asked["hub_id"], asked["revision"]) == ("llava-hf/llava-1.5-7b-hf", "main")
    assert "*.safetensors" in asked["patterns"]
    assert (found.id, found.revision) == ("llava-hf/llava-1.5-7b-hf", "0123abc")
    resolve(ExportRecipe(model="llava15", revision="main"), None)
    assert "*.safetensors" not in asked["patterns"]


def test_the_plan_of_an_alias_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("the alias ships its configuration")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    plan = pipeline.plan(ExportRecipe(model="llava15", keep=0.1))
    assert (plan.tokens_before, plan.tokens_after) == (576, 58)
    assert not any("random" in note or "byte-level" in note for note in plan.notes)


def test_directory_without_what_is_needed_is_refused(tmp_path: pathlib.Path) -> None:
    def fails(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            resolve(ExportRecipe(model=str(tmp_path)), None)

    fails(r"has no config\.json")
    (tmp_path / "config.json").write_text("[1]")
    fails("not a JSON object")
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    fails(r"no preprocessor_config\.json")
