"""Every kind of signal against transformers in eager attention: maps and hidden states it returns, keys by a hook."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeprune.export.graphs import VisionGraph
from edgeprune.export.models import layers
from edgeprune.export.models.layers import activation
from edgeprune.export.models.slopes import SLOPES, slope
from edgeprune.export.models.text_encoder import TextEncoderSpec, canonical
from edgeprune.export.text_encoder import Joined
from edgeprune.export.weights import MemorySource, fill
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


def slope_by_difference(projector: Any, tokens: np.ndarray, signal: Signal, step: float = 1e-5) -> np.ndarray:
    """Mean length of the central difference of transformers' projector in float64, (B,N)."""
    wide, point = copy.deepcopy(projector).double(), torch.from_numpy(tokens)
    with torch.inference_mode():
        ways = signal.unit_directions(tokens.shape[2]).double()
        pairs = [(wide(point + step * way) - wide(point - step * way)) / (2 * step) for way in ways]
    return np.mean([pair.norm(dim=-1).numpy() for pair in pairs], axis=0)


def by_hand(model: Any, pixels: Tensor) -> Callable[[str, int], np.ndarray]:
    """(kind, block) -> the signal in float64, from what transformers returns and from its own projections."""
    made: dict[str, np.ndarray] = {}
    tower = model.model.vision_tower
    blocks = [(n, m) for n, m in tower.named_modules() if n.rpartition(".")[2].isdigit()]

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, out: made.__setitem__(name, out.double().numpy())

    for index, (_, layer) in enumerate(blocks):
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
        if kind == "projector_sensitivity":
            return slope_by_difference(model.model.multi_modal_projector, hidden[:, 1:], Signal(kind))
        if kind == "anchor_embeddings":
            return model.get_input_embeddings().weight.detach().double().numpy()[:1][None]
        return table[kind]

    return signal


def graph_with(vision: str, wanted: tuple[Signal, ...]) -> tuple[Probe, VisionGraph, Any]:
    model = hf_model(llava_config(vision, SIDE, LAYERS, feature_layer=-2), seed=3)
    family, source = family_of(model)
    probe = Probe(wanted)
    return probe, filled(family.vision(probe, None, torch.float32, whole=True), family, source), model


#: the background scorer's logits are no signal of transformers' (tests/export/test_background.py)
@pytest.mark.parametrize("kind", [kind for kind in SIGNAL_KINDS if kind not in ("foreground", "text_space")])
@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_signal_equals_transformers(vision: str, kind: str) -> None:
    """At the first block, twice inside, at the feature block and at the last one, all asked for at once."""
    wanted = tuple(Signal(kind, layer) for layer in (0, 1, None, -1))
    probe, graph, model = graph_with(vision, wanted)
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(2))
    expected = by_hand(model, pixels)
    with torch.inference_mode():
        graph(pixels, torch.zeros(3))
    for signal, block in zip(wanted, (0, 1, LAYERS - 2, LAYERS - 1), strict=True):
        found, wanted_value = seen[probe][signal].double().numpy(), expected(kind, block)
        assert found.shape == wanted_value.shape
        assert np.abs(found - wanted_value).max() <= TOLERANCES["scores"] * np.abs(wanted_value).max(), signal
        if kind in ("cls_attention", "received_attention", "projector_sensitivity"):  # no value of these is near zero
            assert np.abs(found / wanted_value - 1).max() <= TOLERANCES["scores"], signal


class TextProbe(Probe):
    text_encoder = True  # type: ignore[assignment]


def test_the_text_space_equals_transformers() -> None:
    """Tokens of several blocks through the tower's last norm and a CLIP's visual projection."""
    model = hf_model(llava_config("clip", SIDE, LAYERS, feature_layer=-2), seed=3)
    family, source = family_of(model)
    projection = torch.nn.Linear(48, 20, bias=False)
    clip = MemorySource({"visual_projection.weight": projection.weight}, canonical)
    family.text_encoder = TextEncoderSpec(8, 2, 1, 8, "gelu", 1e-5, 9, 7, 20, 48, None)
    probe = TextProbe(tuple(Signal("text_space", layer) for layer in (0, None, -1)))
    graph = family.vision(probe, None, torch.float32, whole=True)
    fill(graph, Joined(source, clip), family.canonical)
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(2))
    tower = model.model.vision_tower
    with torch.inference_mode():
        graph.eval()(pixels, torch.zeros(3))
        hidden = tower(pixels, output_hidden_states=True).hidden_states
        norm = getattr(tower, "vision_model", tower).post_layernorm
        for signal, block in zip(probe.needs, (0, LAYERS - 2, LAYERS - 1), strict=True):
            wanted = projection(norm(hidden[block + 1][:, 1:]))
            found = seen[probe][signal]
            assert found.shape == (2, SIDE * SIDE, 20)
            assert float((found - wanted).abs().max()) <= TOLERANCES["scores"] * float(wanted.abs().max())


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


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_slopes_are_the_derivatives_of_the_activations(name: str) -> None:
    points = torch.linspace(-6, 6, 241, dtype=torch.float64) + 1e-3  # not at the corner of relu
    act = activation(name, "here")
    difference = (act(points + 1e-6) - act(points - 1e-6)) / 2e-6
    assert float((slope(name)(points) - difference).abs().max()) < 1e-8


def test_every_activation_has_a_slope() -> None:
    assert set(SLOPES) == set(layers._ACTIVATIONS)


def test_directions_are_fixed_units_and_their_number_and_seed_matter() -> None:
    few, other = Signal("projector_sensitivity"), Signal("projector_sensitivity", seed=1)
    drawn = few.unit_directions(48)
    assert drawn.shape == (16, 48)
    assert torch.equal(drawn, few.unit_directions(48))
    assert float((drawn.norm(dim=1) - 1).abs().max()) < 1e-6
    assert not torch.equal(drawn, other.unit_directions(48))
    probe, graph, _ = graph_with("clip", (few, other, Signal("projector_sensitivity", directions=64)))
    with torch.inference_mode():
        graph(torch.randn(1, 3, SIDE * 4, SIDE * 4), torch.zeros(3))
    made = list(seen[probe].values())
    for first, second in ((0, 1), (0, 2)):
        assert 1e-4 < float((made[first] / made[second] - 1).abs().max()) < 0.5
