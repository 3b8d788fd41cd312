"""Pruning before the encoder against an encoder of transformers' own that is given the survivors, and its refusals."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from edgeprune.errors import PruningError
from edgeprune.export.background_reference import ForegroundReference
from edgeprune.export.background_weights import ASSETS, BackgroundWeights, find, fingerprint, read
from edgeprune.export.graphs import VisionGraph
from edgeprune.export.models.background import Scorer, ScorerSpec
from edgeprune.export.models.llava import Llava
from edgeprune.export.weights import RandomSource, fill
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, hf_model, llava_config, relative
from tests.export.test_savings import rows_through
from tests.pruning import oracles
from tests.scorers import write_scorer

SIDE, LAYERS, N = 6, 5, 36
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
SPEC = ScorerSpec((SIDE, SIDE), 4, MEAN, STD, width=16, heads=2, mlp_width=32)
PREPROCESS: dict[str, Any] = {"mean": list(MEAN), "std": list(STD), "rescale": 1 / 255}


class Seeded:
    """A model's weights, and a random scorer's."""

    def __init__(self, model: Any) -> None:
        self.family, self._model = family_of(model)
        self.family.background = SPEC

    def tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name == "background.trunk.1.linear.bias":
            return torch.tensor([-0.34])  # near the middle of the logits, so that both labels occur
        return (RandomSource() if name.startswith("background.") else self._model).tensor(name, shape)


def graph_of(spec: str, vision: str = "dinov2") -> tuple[VisionGraph, Any, Seeded]:
    """Our graph, the transformers model it was filled from, and the weights."""
    model = hf_model(llava_config(vision, SIDE, LAYERS))
    source = Seeded(model)
    graph = source.family.vision(parse(spec), None, torch.float32, whole=True)
    fill(graph, source, source.family.canonical)
    return graph.eval(), model, source


def encoder_on(model: Any, pixels: torch.Tensor, places: np.ndarray) -> tuple[list[torch.Tensor], list[np.ndarray]]:
    """transformers' blocks one by one on [CLS] and the patches at `places`: hidden states and attention maps."""
    tower = model.model.vision_tower
    x = tower.embeddings(pixels)[:, [0, *(int(place) + 1 for place in places)]]
    x = tower.pre_layrnorm(x) if hasattr(tower, "pre_layrnorm") else x
    layers = next(m for name, m in tower.named_modules() if name.rpartition(".")[2] in ("layer", "layers"))
    states, maps = [x], []
    seen: dict[str, torch.Tensor] = {}
    for layer in layers:
        attention = layer.self_attn if hasattr(layer, "self_attn") else layer.attention
        hook = attention.register_forward_hook(lambda _module, _inputs, made: seen.update(map=made[1]))
        states.append(layer(states[-1], attention_mask=None))
        hook.remove()
        maps.append(seen["map"][0].numpy())
    return states, maps


@pytest.mark.parametrize("vision", ["clip", "dinov2"])
@pytest.mark.parametrize("keep", [1, 5, 18])
def test_pruned_inside_equals_the_encoder_run_on_the_survivors(vision: str, keep: int) -> None:
    graph, model, source = graph_of("background@0.5+fastervlm", vision)
    pixels = torch.randn(1, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(keep))
    with torch.inference_mode():
        embeds, index, scores = graph(pixels, torch.zeros(keep))
        logits = ForegroundReference(source.family, source).logits(pixels)[0].numpy()
        places = np.array(oracles.highest_in_raster_order(logits, N // 2))
        states, maps = encoder_on(model, pixels, places)
        attention = oracles.cls_attention(maps[-2])
        kept = places[oracles.highest_in_raster_order(attention, keep)]
        rows = [1 + places.tolist().index(place) for place in kept]
        expected = model.model.multi_modal_projector(states[-2][:, rows])
    assert index[0].tolist() == kept.tolist()
    assert relative(embeds, expected) <= TOLERANCES["visual_embeds"]
    spread = np.full(N, attention.min())
    spread[places] = attention
    assert np.abs(scores[0].numpy() / spread - 1).max() <= TOLERANCES["scores"]


@pytest.mark.parametrize("spec", ["background", "background@0.5"])
def test_by_the_logit_alone(spec: str) -> None:
    graph, model, source = graph_of(spec)
    pixels = torch.randn(1, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(3))
    reference = ForegroundReference(source.family, source)
    for keep in (1, 7, 18) if "@" in spec else (1, 7, 18, 30, N):
        with torch.inference_mode():
            embeds, index, scores = graph(pixels, torch.zeros(keep))
            logits = reference.logits(pixels)[0].numpy()
            entered = np.array(oracles.highest_in_raster_order(logits, N // 2 if "@" in spec else keep))
            kept = oracles.highest_in_raster_order(logits, keep)
            states, _ = encoder_on(model, pixels, entered)
            rows = [1 + entered.tolist().index(place) for place in kept]
            expected = model.model.multi_modal_projector(states[-2][:, rows])
        assert index[0].tolist() == kept
        assert relative(scores[0], torch.from_numpy(logits)) <= TOLERANCES["scores"]
        assert relative(embeds, expected) <= TOLERANCES["visual_embeds"]


def test_background_at_full_is_the_unpruned_graph() -> None:
    graph, model, _ = graph_of("background")
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4)
    with torch.inference_mode():
        embeds, index, _ = graph(pixels, torch.zeros(N))
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
        assert relative(embeds, model.model.multi_modal_projector(hidden[:, 1:])) <= TOLERANCES["visual_embeds"]
    assert index.tolist() == [list(range(N))] * 2


@pytest.mark.parametrize(
    ("spec", "entering"), [("background", 7), ("background@0.5", 18), ("background@0.25+divprune", 9)]
)
def test_every_block_runs_on_the_survivors_only(spec: str, entering: int) -> None:
    graph, _, _ = graph_of(spec)
    with torch.inference_mode(), rows_through(graph) as rows:
        made = graph(torch.randn(2, 3, SIDE * 4, SIDE * 4), torch.zeros(7))
    assert made[0].shape[:2] == made[1].shape == (2, 7)
    for block in range(3):
        assert rows[f"vision_tower.blocks.{block}.fc1"] == rows[f"vision_tower.blocks.{block}.k_proj"] == entering + 1
    assert rows["vision_tower.blocks.3.k_proj"] == entering + 1
    assert rows["background.scorer.blocks.1.fc1"] == N


@pytest.mark.parametrize("spec", ["background", "background@0.5+fastervlm"])
def test_padding_enters_the_encoder_last_and_is_kept_last(spec: str) -> None:
    model = hf_model(llava_config("dinov2", SIDE, LAYERS))
    source = Seeded(model)
    family = Llava(model.config, SIDE * 4, letterbox=True)
    family.background = SPEC
    graph = family.vision(parse(spec), None, torch.float32, whole=True)
    fill(graph, source, family.canonical)
    pixels = torch.randn(2, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(7))
    pad = torch.zeros(2, N)
    pad[0, :12], pad[1, 20:] = 1, 1
    with torch.inference_mode():
        bare = graph_of(spec)[0](pixels, torch.zeros(9))[1]
        embeds, index, _ = graph.eval()(pixels, pad, torch.zeros(9))
        logits = ForegroundReference(source.family, source).logits(pixels).numpy()
        for row in range(2):
            masked = np.where(pad[row] > 0, -np.inf, logits[row])
            places = np.array(oracles.highest_in_raster_order(masked, N // 2 if "@" in spec else 9))
            assert not pad[row, places].any()
            assert set(index[row].tolist()) <= set(places.tolist())
            states, _ = encoder_on(model, pixels[row : row + 1], places)
            rows = [1 + places.tolist().index(place) for place in index[row].tolist()]
            expected = model.model.multi_modal_projector(states[-2][:, rows])[0]
            assert relative(embeds[row], expected) <= TOLERANCES["visual_embeds"]
    assert (pad.gather(1, bare) > 0).any(), "without the mask padding would have been kept"


def test_the_head_reads_its_block_and_the_gate_ranks_foreground_first() -> None:
    graph, model, source = graph_of("background:gate=true,trunk=1")
    pixels = torch.randn(1, 3, SIDE * 4, SIDE * 4, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        _, index, scores = graph(pixels, torch.zeros(9))
        out = model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
        place = "background.trunk.1.linear"
        weight, bias = source.tensor(f"{place}.weight", (1, 48)), source.tensor(f"{place}.bias", (1,))
        logits = (out.hidden_states[2][0, 1:] @ weight[0] + bias).numpy()
        attention = oracles.cls_attention(out.attentions[-2][0].numpy())
    order = sorted(range(N), key=lambda i: (logits[i] <= 0, -attention[i]))
    assert 0 < (logits > 0).sum() < N
    assert index[0].tolist() == sorted(order[:9])
    assert np.abs(scores[0].numpy() - np.where(logits > 0, attention, attention - 1)).max() <= TOLERANCES["scores"]


def logits_of(weights: BackgroundWeights, preprocess: dict[str, Any], picture: np.ndarray) -> torch.Tensor:
    """A picture (h,w,3) of bytes through the scorer, normalised as a family does."""
    scorer = Scorer(weights.spec)
    fill(scorer, weights.source(RandomSource(), preprocess), lambda name: f"background.scorer.{name}")
    mean, std = (torch.tensor(preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = torch.from_numpy(picture).permute(2, 0, 1).float() * preprocess["rescale"]
    with torch.inference_mode():
        return scorer(((pixels - mean) / std)[None])


def test_another_normalisation_is_folded_into_the_scorer(tmp_path: pathlib.Path) -> None:
    weights = read(write_scorer(tmp_path / "s.safetensors", SPEC))
    picture = np.random.default_rng(0).integers(0, 256, (SIDE * 4, SIDE * 4, 3)).astype(np.uint8)
    same = logits_of(weights, PREPROCESS, picture)
    for other in (
        {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "rescale": 1 / 255},
        {"mean": [127.0, 120.0, 110.0], "std": [60.0, 61.0, 62.0], "rescale": 1.0},
    ):
        assert relative(logits_of(weights, other, picture), same) <= TOLERANCES["scores"]


def sought(spec: str = "background", file: pathlib.Path | None = None, **more: Any) -> BackgroundWeights | None:
    given = {"grid": (SIDE, SIDE), "patch_px": 4, "preprocess": PREPROCESS, "random_weights": False, **more}
    return find([parse(spec)], None if file is None else str(file), **given)


def test_weights_come_from_the_file_the_package_or_a_seed(tmp_path: pathlib.Path) -> None:
    file = write_scorer(tmp_path / "s.safetensors", SPEC)
    assert sought("fastervlm") is None
    assert sought(file=file) == read(file)
    shipped = sought(grid=(16, 16), patch_px=14)
    assert shipped is not None
    assert shipped.file is not None
    assert shipped.file.parent == ASSETS
    assert shipped.file.stat().st_size < 2 << 20
    assert "package" in shipped.describe()
    drawn = sought("background@0.5+fastervlm", grid=(24, 24), patch_px=14, random_weights=True)
    assert drawn is not None
    assert (drawn.file, drawn.spec.grid, drawn.spec.mean) == (None, (24, 24), MEAN)
    assert "random" in drawn.describe()


def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path: pathlib.Path) -> None:
    file = write_scorer(tmp_path / "s.safetensors", SPEC)
    (tmp_path / "text").write_text("no weights")
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"grid": (24, 24), "patch_px": 14},
            r"no background scorer for 24 x 24 patches of 14 px: .*--background-weights",
        ),
        ({"file": file, "grid": (24, 24)}, r"was trained for 6 x 6 patches of 4 px, the model has 24 x 24 of 4 px"),
        ({"file": tmp_path / "text"}, "is no background scorer"),
        ({"file": tmp_path / "other.safetensors"}, "is no background scorer"),
        ({"file": tmp_path / "none"}, "is no background scorer"),
        ({"spec": "fastervlm", "file": file}, "belongs to --prune background"),
    ]
    for arguments, words in cases:
        with pytest.raises(PruningError, match=words) as caught:
            sought(**arguments)
        assert "\n" not in str(caught.value)


def test_heads_serve_their_own_encoder_and_blocks_only(tmp_path: pathlib.Path) -> None:
    embedding = torch.randn(48, 3, 4, 4)
    weights = read(write_scorer(tmp_path / "s.safetensors", SPEC, fingerprint(embedding)))
    weights.require_heads([1], "mine", embedding)
    weights.require_heads([], "mine", embedding + 1)
    with pytest.raises(PruningError, match=r"no head for encoder block 2 \(it has: 1\)"):
        weights.require_heads([2], "mine", embedding)
    with pytest.raises(PruningError, match="belong to another encoder than that of mine"):
        weights.require_heads([1], "mine", embedding + 1)
    bare = read(write_scorer(tmp_path / "bare.safetensors", SPEC))
    with pytest.raises(PruningError, match="it has: none"):
        bare.require_heads([1], "mine", embedding)


def test_a_family_without_a_grid_is_refused() -> None:
    config = llava_config("clip", 4)
    config.vision_feature_select_strategy = "full"
    with pytest.raises(PruningError, match=r"background@0.5\+fastervlm needs a grid"):
        Llava(config, 16).require(parse("background@0.5+fastervlm"))
