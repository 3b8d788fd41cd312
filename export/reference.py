"""The torch reference: transformers' own LLaVA in float32 with eager attention, all attention maps at hand.

It shares no module with the exported graphs. Pruning is applied to its full outputs with the method's own maths.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import CheckpointError
from edgeprune.export.checkpoint import Checkpoint
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.weights import WeightSource
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.tolerances import TOLERANCES


@dataclass(frozen=True)
class VisionReference:
    """Vision outputs of one picture: all projected tokens (N,D), keep_idx (K,), scores (N,) or None.

    Attributes:
        unsteady: how many kept tokens change when the tokens and signals are changed by rounding noise; None where the
            method does not select on tokens.
    """

    projected: np.ndarray
    keep_idx: np.ndarray
    scores: np.ndarray | None
    unsteady: int | None = None

    @property
    def visual_embeds(self) -> np.ndarray:
        """(K,D)."""
        return self.projected[self.keep_idx]


class Reference:
    """A checkpoint as transformers runs it."""

    def __init__(self, checkpoint: Checkpoint, family: ModelFamily, source: WeightSource) -> None:
        self.family = family
        self.model = _load(checkpoint, family, source)
        self.decoder = self.model.model.language_model

    @torch.inference_mode()
    def vision(self, pixels: np.ndarray, method: PruningMethod, keep: int) -> VisionReference:
        """`pixels` (1,3,S,S) float32."""
        path = self.family.path(method)
        out = self.model.model.vision_tower(torch.from_numpy(pixels), output_hidden_states=True, output_attentions=True)
        tokens = out.hidden_states[path.feature_block + 1][:, path.first_token :]
        signals = {
            signal: naive_signal(signal.kind, out.attentions[block])[:, path.first_token :]
            for signal, block in path.signal_blocks.items()
        }
        constants = method.constants(tokens.shape[1])
        projected = self.model.model.multi_modal_projector(tokens)
        read = projected if method.where == "after_projector" else tokens
        features = VisualFeatures(read, signals, self.family.grid, constants, batch=tokens)
        scores = method.signal(features)
        keep_idx = method.select(scores, torch.zeros(keep), features)
        seen = None if scores is None else scores[0].float().numpy().copy()
        index = keep_idx[0].numpy().copy()
        unsteady = changed_by_noise(method, features, index) if method.reads_tokens else None
        return VisionReference(projected[0].numpy(), index, seen, unsteady)

    @torch.inference_mode()
    def embed(self, ids: list[int]) -> np.ndarray:
        """(L,D) rows of the embedding table."""
        return self.model.get_input_embeddings()(torch.tensor(ids)).numpy()

    @torch.inference_mode()
    def step(self, embeds: np.ndarray, cache: Any = None) -> tuple[np.ndarray, Any]:
        """One decoder run on (T,D) with compact positions -> logits (V,) of the last position, and the cache."""
        out = self.decoder(inputs_embeds=torch.from_numpy(embeds)[None], past_key_values=cache, use_cache=True)
        return self.model.lm_head(out.last_hidden_state[:, -1])[0].numpy(), out.past_key_values

    def greedy(self, embeds: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits (V,) at the end of prefill, and `steps` greedy ids, end tokens ignored."""
        first, cache = self.step(embeds)
        made = [int(first.argmax())]
        while len(made) < steps:
            logits, cache = self.step(self.embed(made[-1:]), cache)
            made.append(int(logits.argmax()))
        return first, np.asarray(made, np.int64)


def changed_by_noise(method: PruningMethod, features: VisualFeatures, keep_idx: np.ndarray, draws: int = 8) -> int:
    """The most kept tokens that change in one of `draws` selections on noisy tokens and signals, in torch alone.

    One pick that rounding decides otherwise can change all later ones, so a greedy selection on another machine is
    held to no more than what torch itself does under TOLERANCES["pick_noise"].
    """
    generator = torch.Generator().manual_seed(0)

    def noisy(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator) * TOLERANCES["pick_noise"]
        return tensor * (1 + noise)

    assert features.tokens is not None
    worst = 0
    for _ in range(draws):
        signals = {signal: noisy(value) for signal, value in features.signals.items()}
        shaken = dataclasses.replace(features, tokens=noisy(features.tokens), signals=signals)
        found = method.select(method.signal(shaken), torch.zeros(len(keep_idx)), shaken)[0].numpy()
        worst = max(worst, len(np.setdiff1d(found, keep_idx)))
    return worst


def naive_signal(kind: str, attention: Tensor) -> Tensor:
    """A signal from a whole attention map (B,H,S,S) -> (B,S) float32."""
    if kind == "cls_attention":
        return attention.float()[:, :, 0].mean(1)
    if kind == "received_attention":
        return attention.float().mean((1, 2))
    raise NotImplementedError(kind)


def _load(checkpoint: Checkpoint, family: ModelFamily, source: WeightSource) -> Any:
    """transformers loads a real checkpoint by itself, so that our table of names is checked too."""
    from transformers import LlavaForConditionalGeneration

    config = checkpoint.model_config
    if not checkpoint.random_weights:
        return LlavaForConditionalGeneration.from_pretrained(
            checkpoint.require_folder(), config=config, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).float().eval()
    _fill(model, family, source)
    return model


@torch.no_grad()
def _fill(model: Any, family: ModelFamily, source: WeightSource) -> None:
    tied = {name for name in model.state_dict() if name.startswith("lm_head") and family.config.tie_word_embeddings}
    for name, parameter in model.state_dict().items():
        if name in tied:
            continue
        try:
            parameter.copy_(source.tensor(family.canonical(name), tuple(parameter.shape)))
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error
    model.tie_weights()


def reference_bytes(family: ModelFamily) -> int:
    """Memory the reference needs: all weights in float32, and as much again while loading, plus attention maps."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        count = sum(p.numel() for p in LlavaForConditionalGeneration(family.config).parameters())
    return 4 * count * 2 + (1 << 30)
