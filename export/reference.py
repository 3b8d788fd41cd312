"""The torch reference: transformers' own LLaVA in float32 with eager attention, all attention maps at hand.

It shares no module with the exported graphs. Pruning is applied to its full outputs with the method's own maths.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import CheckpointError
from edgeprune.export import reference_blocks
from edgeprune.export.background_reference import ForegroundReference, highest
from edgeprune.export.checkpoint import Checkpoint
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.reference_text import TextReference
from edgeprune.export.weights import WeightSource
from edgeprune.pruning.background import FOREGROUND
from edgeprune.pruning.base import OUTPUT_KINDS, PruningMethod, Signal, VisualFeatures, visual_part
from edgeprune.pruning.in_encoder import InEncoder
from edgeprune.tolerances import TOLERANCES

#: module names of a tower's layers
LAYER: Final = re.compile(r"\.layers?\.\d+$")


@dataclass(frozen=True)
class VisionReference:
    """Vision outputs of one picture.

    Attributes:
        keep_idx: (K,).
        scores: (N,) or None.
        embeds_at: indices (K,) -> the projected tokens (K,D) that the method makes of them.
        unsteady: how many kept tokens change when the tokens and signals are changed by rounding noise; None where the
            method does not select on tokens.
    """

    keep_idx: np.ndarray
    scores: np.ndarray | None
    embeds_at: Callable[[np.ndarray], np.ndarray]
    unsteady: int | None = None

    @property
    def visual_embeds(self) -> np.ndarray:
        """(K,D)."""
        return self.embeds_at(self.keep_idx)


def on_grid(seen: VisionReference, places: np.ndarray, logits: np.ndarray, method: PruningMethod) -> VisionReference:
    """A result in the numbering of the patches at `places` (K1,) -> in that of the grid.

    Indices that are no survivors of the reference make NaN, which no parity check passes.
    """
    if not method.has_scores:
        scores = None
    elif seen.scores is None or method.needs == (FOREGROUND,):
        scores = logits
    else:
        scores = np.full(len(logits), seen.scores.min(), np.float32)
        scores[places] = seen.scores

    def embeds_at(index: np.ndarray) -> np.ndarray:
        inner = np.where(index < 0, -1, np.searchsorted(places, np.maximum(index, 0)).clip(max=len(places) - 1))
        embeds = seen.embeds_at(inner)
        strange = (index >= 0) & (places[inner] != index)
        return np.where(strange[:, None], np.float32("nan"), embeds)

    kept = np.where(seen.keep_idx < 0, -1, places[seen.keep_idx])
    return VisionReference(kept, scores, embeds_at, seen.unsteady)


class Reference:
    """A checkpoint as transformers runs it."""

    def __init__(
        self, checkpoint: Checkpoint, family: ModelFamily, source: WeightSource, text: TextReference | None = None
    ) -> None:
        """`text`: for methods that read the question through a text encoder."""
        self.family, self.text = family, text
        self.model = _load(checkpoint, family, source)
        self.decoder = self.model.model.language_model
        self.foreground = ForegroundReference(family, source)

    @torch.inference_mode()
    def vision(
        self,
        pixels: np.ndarray,
        method: PruningMethod,
        keep: int,
        padding: np.ndarray | None = None,
        question: list[int] | None = None,
    ) -> VisionReference:
        """`pixels` (1,3,S,S) float32; `padding` (N,) float32, 1 where a patch is padding; `question`: ids of its text,
        for methods that read it."""
        if isinstance(method, InEncoder):
            return self._thinned(pixels, method, keep)
        values, stage = torch.from_numpy(pixels), method.stage(self.family.visual_tokens)
        logits = self.foreground.logits(values) if FOREGROUND in method.needs else None
        if stage is None:
            return self._chosen(values, method, keep, logits, padding, question=question)
        assert logits is not None
        last = logits[0].numpy() if padding is None else np.where(padding > 0.5, -np.inf, logits[0].numpy())
        places = highest(last, keep if stage.kept is None else stage.kept)
        among = None if padding is None else padding[places]
        seen = self._chosen(values, stage.method, keep, logits[:, places], among, torch.from_numpy(places))
        return on_grid(seen, places, logits[0].numpy(), method)

    def _chosen(
        self,
        pixels: Tensor,
        method: PruningMethod,
        keep: int,
        logits: Tensor | None,
        padding: np.ndarray | None,
        places: Tensor | None = None,
        question: list[int] | None = None,
    ) -> VisionReference:
        """What a method behind the encoder makes of the picture, or of its patches at `places`, in whose numbering the
        result is. `logits`, `padding`: of those patches."""
        path = self.family.path(method)
        run = TowerRun(self.model.model.vision_tower, pixels, places)
        tokens = run.out.hidden_states[path.feature_block + 1][:, path.first_token :]
        projector = self.model.model.multi_modal_projector
        signals = {
            signal: self._signal(run, signal, block, path.first_token) for signal, block in path.signal_blocks.items()
        }
        if logits is not None:
            signals[FOREGROUND] = logits
        constants = method.constants(tokens.shape[1])
        projected = projector(tokens)
        read = projected if method.where == "after_projector" else tokens
        pad_mask = None if padding is None else torch.from_numpy(padding)[None] > 0.5
        text = self._text(method, question)
        features = VisualFeatures(read, signals, self.family.grid, constants, tokens, pad_mask, *text)
        scores = method.signal(features)
        keep_idx = method.select(scores, torch.zeros(keep), features)
        seen = None if scores is None else scores[0].float().numpy().copy()
        index = keep_idx[0].numpy().copy()

        @torch.inference_mode()
        def embeds_at(index: np.ndarray) -> np.ndarray:
            made = method.recycle(read, torch.from_numpy(index)[None], features)
            embeds: np.ndarray = (made if read is projected else projector(made))[0].numpy()
            return embeds

        by_tokens = method.reads_tokens and method.gathers and method.stable
        unsteady = changed_by_noise(method, features, index) if by_tokens else None
        return VisionReference(index, seen, embeds_at, unsteady)

    def _signal(self, run: TowerRun, signal: Signal, block: int, first_token: int) -> Tensor:
        if signal.kind == FOREGROUND.kind:
            return self.foreground.head(block, run.signal("hidden", block)[:, first_token:])
        if signal.kind == "anchor_embeddings":
            table: Tensor = self.model.get_input_embeddings().weight
            return table[list(signal.anchors)][None]
        if signal.kind == "projector_sensitivity":
            hidden = run.out.hidden_states[block + 1][:, first_token:]
            return sensitivity(self.model.model.multi_modal_projector, hidden, signal)
        if signal.kind == "text_space":
            modules = self.model.model.vision_tower.named_modules()
            norm = next(module for name, module in modules if name.rpartition(".")[2] == "post_layernorm")
            assert self.text is not None
            return self.text.in_text_space(run.out.hidden_states[block + 1][:, first_token:], norm)
        return visual_part(run.signal(signal.kind, block), signal.kind, first_token)

    def question_embeds(self, method: PruningMethod, ids: list[int]) -> np.ndarray:
        """What a method reads of a question: (M,D) by the decoder's table, or (M,E) by the text encoder."""
        if not method.text_encoder:
            return self.embed(ids)
        assert self.text is not None
        return self.text.embed(ids)

    def _text(self, method: PruningMethod, question: list[int] | None) -> tuple[Tensor | None, Tensor | None]:
        """text_embeds (1,M,D) and text_mask (1,M) for methods that read the question."""
        if not method.text:
            return None, None
        assert question is not None
        embeds = torch.from_numpy(self.question_embeds(method, question))[None]
        return embeds, torch.ones(1, embeds.shape[1])

    def _thinned(self, pixels: np.ndarray, method: InEncoder, keep: int) -> VisionReference:
        """A method that prunes inside the encoder. What it keeps decides what later blocks compute, so other indices
        than its own have no reference."""
        path, tower = self.family.path(method), self.model.model.vision_tower
        layers = [m for name, m in tower.named_modules() if LAYER.search(name)][: path.blocks]
        start = tower(torch.from_numpy(pixels), output_hidden_states=True).hidden_states[0]
        schedule = method.schedule(self.family.visual_tokens, path.blocks, keep)
        tokens, keep_idx = reference_blocks.thinned(layers, start, method, schedule)
        embeds: np.ndarray = self.model.model.multi_modal_projector(tokens)[0].numpy()
        return VisionReference(keep_idx[0].numpy().copy(), None, lambda index: embeds)

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


class TowerRun:
    """A vision tower run once with all hidden states and attention maps, and what its key and query projections make.

    Attributes:
        out: transformers' output.
    """

    def __init__(self, tower: Any, pixels: Tensor, places: Tensor | None = None) -> None:
        """`places` (K1,): the only patches that go through the blocks, with [CLS] and with their positions."""
        self._projected: dict[str, Tensor] = {}
        parts = {"q_proj": "query", "query": "query", "k_proj": "key", "key": "key"}
        self._layers = [name for name, _ in tower.named_modules() if LAYER.search(name)]
        hooks = []
        if places is not None:
            rows = torch.cat([torch.zeros(1, dtype=torch.int64), places + 1])
            embeddings = next(m for name, m in tower.named_modules() if name.rpartition(".")[2] == "embeddings")
            hooks.append(embeddings.register_forward_hook(lambda _module, _inputs, output: output[:, rows]))
        for index, name in enumerate(self._layers):
            for inner, module in tower.get_submodule(name).named_modules():
                part = parts.get(inner.rpartition(".")[2])
                if part is not None:
                    hooks.append(module.register_forward_hook(self._keep(f"{part}.{index}")))
        try:
            self.out = tower(pixels, output_hidden_states=True, output_attentions=True)
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
            self._projected[name] = output.float()

        return hook

    def signal(self, kind: str, block: int) -> Tensor:
        """A kind of SIGNAL_KINDS over all S rows, from whole tensors; `block` is 0-based, -1: the embeddings."""
        if kind in OUTPUT_KINDS:
            hidden: Tensor = self.out.hidden_states[block + 1]
            return hidden[:, :1] if kind == "cls_hidden" else hidden
        attention = self.out.attentions[block].float()
        keys, heads = self._projected[f"key.{block}"], attention.shape[1]
        if kind == "attention":
            return attention
        if kind == "cls_attention":
            return attention[:, :, 0].mean(1)
        if kind == "received_attention":
            return attention.mean((1, 2))
        if kind == "keys":
            return keys.reshape(*keys.shape[:2], heads, -1).transpose(1, 2)
        if kind == "wide_cls_attention":
            logits = self._projected[f"query.{block}"] @ keys.transpose(1, 2) / keys.shape[2] ** 0.5
            return logits.softmax(-1)[:, 0]
        raise NotImplementedError(kind)


def sensitivity(projector: Any, tokens: Tensor, signal: Signal) -> Tensor:
    """projector_sensitivity (B,N) by forward-mode differentiation of transformers' projector."""
    lengths = []
    for direction in signal.unit_directions(tokens.shape[2]):
        with torch.inference_mode(False):
            point = tokens.clone()
            answer = torch.func.jvp(projector, (point,), (direction.expand_as(point).clone(),))[1]
        lengths.append(answer.norm(dim=-1))
    return torch.stack(lengths).mean(0)


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
