"""Every kind of signal against transformers in eager attention: maps and hidden states it returns, keys by a hook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeprune.export.graphs import VisionGraph
from edgeprune.pruning.base import SIGNAL_KINDS, PruningMethod, Signal, VisualFeatures
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, filled, hf_model, llava_config

SIDE, LAYERS, HEADS = 5, 4, 3


@dataclass(frozen=True)
class Probe(PruningMethod):
    """Asks for signals and keeps what it was given."""

    name: ClassVar[str] = "probe"
    wanted: tuple[Signal, ...] = ()

    @property
    def needs(self) -> tuple[Signal, ...]:
        return self.wanted

    def signal(self, features: VisualFeatures) -> Tensor:
        seen[self] = dict(features.signals)
        return features.constants["iota"].to(torch.float32).expand(features.batch.shape[0], -1)


seen: dict[Probe, dict[Signal, Tensor]] = {}


def by_hand(tower: Any, pixels: Tensor) -> Callable[[str, int], np.ndarray]:
    """(kind, block) -> the signal in float64, from what transformers returns and from its own projections."""
    made: dict[str, np.ndarray] = {}
    layers = [(n, m) for n, m in tower.named_modules() if n.rpartition(".")[2].isdigit()]

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, out: made.__setitem__(name, out.double().numpy())

    for index, (_, layer) in enumerate(layers):
        for name, module in layer.named_modules():
            leaf = name.rpartition(".")[2]
            if leaf in ("q_proj", "query", "k_proj", "key"):
                module.register_forward_hook(keep(f"{leaf[0]}{index}"))
    with torch.inference_mode():
        out = tower(pixels, output_hidden_states=True, output_attentions=True)
    assert len(made) == 2 * LAYERS

    def signal(kind: str, block: int) -> np.ndarray:
        maps, hidden = out.attentions[block].double().numpy(), out.hidden_states[block + 1].double().numpy()
        q, k = made[f"q{block}"], made[f"k{block}"]
        batch, size, width = k.shape
        logits = np.einsum("bd,bjd->bj", q[:, 0], k) / np.sqrt(width)
        wide = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        table = {
            "cls_attention": maps[:, :, 0, 1:].mean(1),
            "received_attention": maps.mean(1).mean(1)[:, 1:],
            "wide_cls_attention": wide[:, 1:],
            "attention": maps,
            "keys": k.reshape(batch, size, HEADS, width // HEADS).transpose(0, 2, 1, 3)[:, :, 1:],
            "hidden": hidden[:, 1:],
            "cls_hidden": hidden[:, :1],
        }
        return table[kind]

    return signal


def graph_with(vision: str, wanted: tuple[Signal, ...]) -> tuple[Probe, VisionGraph, Any]:
    model = hf_model(llava_config(vision, SIDE, LAYERS, feature_layer=-2), seed=3)
    family, source = family_of(model)
    probe = Probe(wanted)
    return probe, filled(family.vision(probe, None, torch.float32, whole=True), family, source), model


@pytest.mark.parametrize("kind", SIGNAL_KINDS)
@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_signal_equals_transformers(vision: str, kind: str) -> None:
    """At the first block, twice inside, at the feature block and at the last one, all asked for at once."""
    wanted = tuple(Signal(kind, layer) for layer in (0, 1, None, -1))
    probe, graph, model = graph_with(vision, wanted)
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(2))
    expected = by_hand(model.model.vision_tower, pixels)
    with torch.inference_mode():
        graph(pixels, torch.zeros(3))
    for signal, block in zip(wanted, (0, 1, LAYERS - 2, LAYERS - 1), strict=True):
        found, wanted_value = seen[probe][signal].double().numpy(), expected(kind, block)
        assert found.shape == wanted_value.shape
        assert np.abs(found - wanted_value).max() <= TOLERANCES["scores"] * np.abs(wanted_value).max(), signal
        if kind in ("cls_attention", "received_attention"):  # no value of these is near zero
            assert np.abs(found / wanted_value - 1).max() <= TOLERANCES["scores"], signal


def test_depth_names_a_block_by_its_share_of_the_encoder() -> None:
    family, _ = family_of(hf_model(llava_config("clip", 2, layers=24)))
    third = Probe((Signal("received_attention", None, 1 / 3), Signal("hidden")))
    assert list(family.path(third).signal_blocks.values()) == [8, 22]


def test_an_output_behind_the_features_runs_its_whole_block() -> None:
    hidden, keys = Signal("hidden", -1), Signal("keys", -1)
    _, graph, _ = graph_with("dinov2", (hidden,))
    assert graph.unread() == ()
    _, graph, _ = graph_with("dinov2", (keys,))
    assert any(name.endswith("3.v_proj") for name in graph.unread())
