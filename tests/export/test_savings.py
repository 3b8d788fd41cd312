"""The exact savings of the vision graph, each against a graph that saves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from edgeprune.export.graphs import VisionGraph, VisionPath
from edgeprune.export.models.layers import attention_map
from edgeprune.export.passes.mark import MODULE
from edgeprune.pruning.base import Signal
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, filled, hf_model, llava_config, relative

KEEP, SIDE = 9, 6


def naive(graph: VisionGraph, pixels: Tensor, index: Tensor) -> tuple[Tensor, dict[Signal, Tensor]]:
    """All rows of every block, whole attention maps, projector on all tokens, and only then the gather."""
    path, x = graph.path, graph.vision_tower.embed(pixels)
    features, signals = x, {}
    for number, block in graph.vision_tower.items():
        normed = block.norm1(x)
        weights = attention_map(block.queries(normed), block.keys(normed))
        kinds = {"cls_attention": weights[:, :, 0].mean(1), "received_attention": weights.mean(1).mean(1)}
        signals |= {s: kinds[s.kind][:, path.first_token :] for s, at in path.signal_blocks.items() if at == number}
        x = block(x)
        features = x if number == path.feature_block else features
    projected = graph.multi_modal_projector(features[:, path.first_token :])
    return torch.gather(projected, 1, index.unsqueeze(-1).expand(-1, -1, projected.shape[2])), signals


@contextmanager
def rows_through(graph: VisionGraph) -> Iterator[dict[str, int]]:
    """Module name -> rows (dimension 1) of the input it was last called with."""
    seen: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0].shape[1]}))
        for name, module in graph.named_modules()
        if name and name != MODULE
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


CASES = {
    "score in the feature block": ("fastervlm", -2, 3),
    "score before it": ("fastervlm:layer=1", -2, 3),
    "score after it": ("fastervlm:layer=4", 2, 5),
    "score in the last block": ("fastervlm:layer=-1", -1, 5),
    "received": ("received-attention", -2, 3),
    "received after": ("received-attention:layer=3", 2, 4),
    "stride": ("stride", -2, 3),
    "random": ("random:seed=2", -2, 3),
}
LAYERS = 5


def graph_of(spec: str, feature_layer: int) -> VisionGraph:
    layer = feature_layer if spec != "fastervlm" else -LAYERS + 2  # block 2
    model = hf_model(llava_config("dinov2", SIDE, LAYERS, layer))
    family, source = family_of(model)
    return filled(family.vision(parse(spec), None, torch.float32, whole=True), family, source)


@pytest.mark.parametrize("case", CASES)
def test_saved_graph_equals_naive(case: str) -> None:
    spec, layer, _ = CASES[case]
    graph = graph_of(spec, layer)
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4)
    with torch.inference_mode():
        made = graph(pixels, torch.zeros(KEEP))
        embeds, signals = naive(graph, pixels, made[1])
    assert relative(made[0], embeds) <= TOLERANCES["exact_saving"]
    for signal, expected in signals.items():
        assert relative(made[2], expected) <= TOLERANCES["exact_saving"], signal


def test_blocks_behind_the_last_use_are_absent() -> None:
    after = graph_of("fastervlm:layer=4", 2)
    assert after.path.blocks == 5
    assert graph_of("fastervlm:layer=1", -2).path.blocks == 4
    assert graph_of("none", 2).path.blocks == 2
    unread = after.unread()
    assert any(name.startswith("vision_tower.blocks.4.v_proj") for name in unread)
    assert graph_of("fastervlm:layer=1", -2).unread() == ()


def test_last_block_and_projector_see_kept_tokens_only() -> None:
    graph = graph_of("fastervlm:layer=3", -2)
    with torch.inference_mode(), rows_through(graph) as rows:
        graph(torch.randn(1, 3, SIDE * 4, SIDE * 4), torch.zeros(KEEP))
    every = SIDE * SIDE + 1
    assert rows["vision_tower.blocks.2.fc1"] == every
    assert rows["vision_tower.blocks.3.k_proj"] == rows["vision_tower.blocks.3.v_proj"] == every
    for part in ("q_proj", "o_proj", "norm2", "fc1", "fc2"):
        assert rows[f"vision_tower.blocks.3.{part}"] == KEEP, part
    assert rows["multi_modal_projector.linear_1"] == KEEP


def test_scoring_block_after_the_features_computes_keys_and_one_query() -> None:
    graph = graph_of("fastervlm:layer=4", 2)
    with torch.inference_mode(), rows_through(graph) as rows:
        graph(torch.randn(1, 3, SIDE * 4, SIDE * 4), torch.zeros(KEEP))
    assert rows["vision_tower.blocks.4.q_proj"] == 1
    assert rows["vision_tower.blocks.4.k_proj"] == SIDE * SIDE + 1
    assert "vision_tower.blocks.4.v_proj" not in rows
    assert "vision_tower.blocks.4.fc1" not in rows


def test_unpruned_graph_drops_the_cls_row_of_the_last_block() -> None:
    model = hf_model(llava_config("clip", SIDE, LAYERS))
    family, source = family_of(model)
    graph = filled(family.vision(parse("none"), SIDE * SIDE, torch.float32, whole=True), family, source)
    with torch.inference_mode(), rows_through(graph) as rows:
        graph(torch.randn(1, 3, SIDE * 4, SIDE * 4))
    assert rows["vision_tower.blocks.3.fc1"] == SIDE * SIDE


def test_alike_blocks_are_one_run() -> None:
    late = Signal("cls_attention", 9)
    runs = VisionPath(9, {late: 9}, 1).runs
    assert [(run.first, run.count) for run in runs] == [(0, 9), (9, 1)]
    runs = VisionPath(8, {late: 9}, 1).runs
    assert [(run.first, run.count) for run in runs] == [(0, 8), (8, 1), (9, 1)]
    runs = VisionPath(22, {Signal("x", 3): 3}, 1).runs
    assert [(run.first, run.count) for run in runs] == [(0, 3), (3, 1), (4, 18), (22, 1)]
