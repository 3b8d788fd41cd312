"""Vision outputs against transformers in eager attention with all attention maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.errors import CheckpointError, PruningError
from edgeprune.export.models.llava import Llava
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, filled, hf_model, llava_config, relative
from tests.pruning import oracles


def naive(
    model: Any, pixels: torch.Tensor, feature_layer: int, score_block: int, kind: str
) -> tuple[torch.Tensor, Any]:
    """Projected patch features (B,N,D) and scores (B,N) from transformers' full outputs."""
    with torch.inference_mode():
        out = model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
        projected = model.model.multi_modal_projector(out.hidden_states[feature_layer][:, 1:])
    maps = out.attentions[score_block].numpy()
    oracle = getattr(oracles, kind)
    return projected, np.stack([oracle(row) for row in maps])


@pytest.mark.parametrize("kind", ["cls_attention", "received_attention"])
@pytest.mark.parametrize("side", [16, 24])
@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_vision_equals_transformers(vision: str, side: int, kind: str) -> None:
    model = hf_model(llava_config(vision, side, layers=3), seed=side)
    family, source = family_of(model)
    method = parse("fastervlm" if kind == "cls_attention" else "received-attention")
    graph = filled(family.vision(method, None, torch.float32, whole=True), family, source)
    pixels = torch.randn(2, 3, side * 4, side * 4, generator=torch.Generator().manual_seed(1))
    projected, scores = naive(model, pixels, -2, -2, kind)
    total = side * side
    for keep in (1, 29, 58, 64, 128, total):
        with torch.inference_mode():
            embeds, index, found = graph(pixels, torch.zeros(keep))
        wanted = np.array([oracles.highest_in_raster_order(row, keep) for row in scores])
        np.testing.assert_array_equal(index.numpy(), wanted)
        gathered = torch.gather(projected, 1, index.unsqueeze(-1).expand(-1, -1, projected.shape[2]))
        assert relative(embeds, gathered) <= TOLERANCES["visual_embeds"]
        assert np.abs(found.numpy() / scores - 1).max() <= TOLERANCES["scores"]


@pytest.mark.parametrize("layer", [0, 1, 4, -1, -5])
def test_feature_layer_of_either_sign(layer: int) -> None:
    model = hf_model(llava_config("dinov2", 4, layers=4, feature_layer=layer))
    family, source = family_of(model)
    graph = filled(family.vision(parse("none"), 16, torch.float32, whole=True), family, source)
    pixels = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        tower = model.model.vision_tower(pixels, output_hidden_states=True)
        expected = model.model.multi_modal_projector(tower.hidden_states[layer][:, 1:])[0]
        embeds, index = graph(pixels)
    assert index.tolist() == [list(range(16))]
    assert relative(embeds[0], expected) <= TOLERANCES["visual_embeds"]


def test_select_strategy_full_keeps_cls() -> None:
    config = llava_config("clip", 4)
    config.vision_feature_select_strategy = "full"
    model = hf_model(config)
    family, source = family_of(model)
    assert (family.visual_tokens, family.grid) == (17, (1, 17))
    graph = filled(family.vision(parse("fastervlm"), None, torch.float32, whole=True), family, source)
    pixels = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        embeds, _, scores = graph(pixels, torch.zeros(17))
        expected = model.model.get_image_features(pixels).pooler_output[0]
    assert scores.shape == (1, 17)
    assert abs(float(scores.sum()) - 1) < 1e-5
    assert relative(embeds[0], expected) <= TOLERANCES["visual_embeds"]


def test_position_table_is_resampled_once_at_export() -> None:
    model = hf_model(llava_config("dinov2", 8))
    family, source = family_of(model, image_px=24)
    assert family.visual_tokens == 36
    graph = filled(family.vision(parse("none"), 36, torch.float32, whole=True), family, source)
    pixels = torch.randn(2, 3, 24, 24)
    with torch.inference_mode():
        tower = model.model.vision_tower(pixels, output_hidden_states=True)
        expected = model.model.multi_modal_projector(tower.hidden_states[-2][:, 1:])
        assert relative(graph(pixels)[0], expected) <= TOLERANCES["visual_embeds"]


def refusal(change: Any, match: str, image_px: int = 64, vision: str = "clip") -> None:
    config = llava_config(vision)
    change(config)
    with pytest.raises(CheckpointError, match=match):
        Llava(config, image_px)


def test_what_is_not_served_is_refused_by_name() -> None:
    refusal(lambda c: setattr(c, "vision_feature_layer", [-2, -1]), r"vision_feature_layer \[-2, -1\]")
    refusal(lambda c: setattr(c, "vision_feature_layer", 9), "vision_feature_layer 9")
    refusal(lambda c: setattr(c.vision_config, "model_type", "siglip_vision_model"), "siglip_vision_model")
    refusal(lambda c: setattr(c.text_config, "model_type", "mistral"), "mistral")
    refusal(lambda c: None, "60 px but the CLIP tower takes 64", image_px=60)
    refusal(lambda c: setattr(c.vision_config, "use_swiglu_ffn", True), "use_swiglu_ffn", vision="dinov2")
    refusal(lambda c: None, "multiple of the DINOv2 patch", image_px=66, vision="dinov2")


def test_unknown_activation_is_refused() -> None:
    config = llava_config()
    config.vision_config.hidden_act = "mish"
    with pytest.raises(CheckpointError, match="mish"):
        Llava(config, 64).vision(parse("none"), 256, torch.float32, whole=True)


def test_score_layer_is_a_property_of_its_own() -> None:
    config = llava_config(layers=6, feature_layer=3)
    family = Llava(config, 64)
    assert family.path(parse("fastervlm")).signal_blocks == {parse("fastervlm").needs[0]: 2}
    assert list(family.path(parse("fastervlm:layer=-1")).signal_blocks.values()) == [5]
    config.edgeprune_score_layer = 4
    assert list(Llava(config, 64).path(parse("fastervlm")).signal_blocks.values()) == [4]
    with pytest.raises(PruningError, match="blocks 0 to 5"):
        family.path(parse("fastervlm:layer=6"))


def test_method_that_needs_another_signal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Llava, "signals", frozenset({"received_attention"}))
    family = Llava(llava_config(), 64)
    words = r"cls_attention.* nearest that fits is received-attention; methods that fit: none, random, stride, received"
    with pytest.raises(PruningError, match=words) as caught:
        family.require(parse("fastervlm"))
    assert "\n" not in str(caught.value)
    for spec in ("stride", "hiprune", "fopru:mode=row"):
        family.require(parse(spec))


def test_method_that_reads_the_grid_is_refused_where_cls_is_a_visual_token() -> None:
    config = llava_config("clip", 4)
    config.vision_feature_select_strategy = "full"
    with pytest.raises(PruningError, match=r"hiprune needs a grid .* nearest that fits is received-attention"):
        Llava(config, 16).require(parse("hiprune"))
    Llava(config, 16).require(parse("fopru"))
