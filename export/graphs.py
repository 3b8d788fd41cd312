"""The three graphs of a bundle as modules with fixed, documented inputs and outputs.

Shape letters: B images or sequences, N visual tokens per image, K kept, C vision width, D language width, T new
positions, P past positions, S = P + T, V vocabulary, Hkv key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeprune.export.models.background import BackgroundModules
from edgeprune.export.models.layers import Linear, Table, TableRows
from edgeprune.export.models.llama import Llama
from edgeprune.export.models.projector import Projector
from edgeprune.export.models.text_encoder import TextSpace
from edgeprune.export.models.vit import Block, Vit, VitSpec
from edgeprune.export.part import add_pruning_part
from edgeprune.export.passes.repeat import Run
from edgeprune.export.thinning import thin_through
from edgeprune.pruning.base import OUTPUT_KINDS, PruningMethod, Signal, VisualFeatures, output_signal, visual_part
from edgeprune.pruning.in_encoder import InEncoder
from edgeprune.pruning.selectors import gather_tokens


@dataclass(frozen=True)
class VisionPath:
    """Which blocks of the tower a graph runs, and where.

    Attributes:
        feature_block: 0-based block whose output are the features; -1: the embeddings.
        signal_blocks: 0-based block that serves each signal.
        first_token: 1 drops [CLS] from the visual tokens, 0 keeps it.
        prunes_in_blocks: shapes change from block to block, so no two blocks are alike.
        survivors: how many patches enter the blocks, where a stage before them fixes it; None: all, or K.
    """

    feature_block: int
    signal_blocks: dict[Signal, int]
    first_token: int
    prunes_in_blocks: bool = False
    survivors: int | None = None

    @property
    def last_signal(self) -> int:
        """The block after whose keys the keep set is known; -1: known from the start."""
        return max(self.signal_blocks.values(), default=-1)

    @property
    def whole_last_block(self) -> bool:
        """The last block is needed to its end, because it makes the features or a signal that is its output."""
        ends = {block for signal, block in self.signal_blocks.items() if signal.kind in OUTPUT_KINDS}
        return self.blocks - 1 in {self.feature_block, *ends}

    @property
    def signals_in_last_block(self) -> bool:
        """The keep set is known only behind the last block."""
        return any(s.kind in OUTPUT_KINDS and b == self.blocks - 1 for s, b in self.signal_blocks.items())

    @property
    def blocks(self) -> int:
        """How many blocks the graph holds; later ones are dead code."""
        return max(self.feature_block, self.last_signal) + 1

    @property
    def runs(self) -> tuple[Run, ...]:
        """The blocks in order, alike ones together: every run but those of one block can be traced as one."""
        special = {self.feature_block, self.blocks - 1, *self.signal_blocks.values()}
        if self.prunes_in_blocks:
            special = set(range(self.blocks))
        starts = [i for i in range(self.blocks) if i in special or i == 0 or i - 1 in special]
        ends = [*starts[1:], self.blocks]
        return tuple(Run("vision_tower.blocks", a, b - a) for a, b in zip(starts, ends, strict=True))


#: a block that waits for the keep set: itself, its input (B,S,C), the same after norm1, its keys
Waiting = tuple[Block, Tensor, Tensor, Tensor]


class VisionGraph(nn.Module):
    """pixel_values (B,3,S,S) float32 [, keep_slots (K,) float32, only its length counts]
    -> visual_embeds (B,K,D), keep_idx (B,K) int64 [, scores (B,N) float32].

    Exact savings: blocks behind the later of feature and score block are absent; of the scoring block only the needed
    attention rows are computed; once the keep set is known, the last used block runs queries and MLP for kept tokens
    only; the projector runs on kept tokens only, except for methods that select on projected tokens. Methods that
    prune inside the encoder bring their own walk (`thinning`), and K is fixed.
    """

    def __init__(
        self,
        tower: Vit,
        projector: Projector,
        method: PruningMethod,
        path: VisionPath,
        static_keep: int | None,
        anchors: Mapping[str, TableRows] | None = None,
        background: BackgroundModules | None = None,
        text_space: TextSpace | None = None,
    ) -> None:
        """`anchors`: `anchors_name` of a signal -> the rows it asks for. `text_space`: where the method reads the
        question through a text encoder."""
        super().__init__()
        self.vision_tower = tower
        self.background = background
        self.text_space = text_space
        self.pruning = add_pruning_part(self)
        self.multi_modal_projector = projector
        self.method = method
        self.path = path
        self.static_keep = static_keep
        for name, rows in (anchors or {}).items():
            self.add_module(name, rows)
        tokens = visual_tokens(tower.spec, path)
        self.constant_names = sorted(method.constants(tokens))
        for name in self.constant_names:
            self.register_buffer(f"constant_{name}", method.constants(tokens)[name], persistent=False)
        for signal in filter(is_sensitivity, path.signal_blocks):
            directions = signal.unit_directions(tower.spec.width)
            self.register_buffer(f"directions_{signal.directions}_{signal.seed}", directions, persistent=False)
        if isinstance(method, InEncoder):
            assert static_keep is not None
            self.schedule = method.schedule(tokens, path.blocks, static_keep)
        if static_keep is not None:
            self.register_buffer("static_slots", torch.zeros(static_keep), persistent=False)

    def forward(self, pixel_values: Tensor, keep_slots: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.answer(pixel_values, keep_slots, None)

    def answer(self, pixels: Tensor, keep_slots: Tensor | None, pad_mask: Tensor | None) -> tuple[Tensor, ...]:
        """`pad_mask` (B,N) bool, or None; -> the outputs."""
        slots = cast(Tensor, self.static_slots) if keep_slots is None else keep_slots
        tokens, keep_idx, scores = self.encode(pixels, slots, pad_mask)
        embeds = tokens if self.projects_all() else self.multi_modal_projector(tokens)
        return (embeds, keep_idx) if scores is None else (embeds, keep_idx, scores)

    def encode(
        self, pixels: Tensor, slots: Tensor, pad_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """-> kept tokens (B,K,C), projected ones (B,K,D) if `projects_all`, keep_idx (B,K), scores (B,N) or None."""
        if isinstance(self.method, InEncoder):
            return (*self.thin_through(self.method, pixels), None)
        given = {} if self.background is None else self.pruning(self.background.before, self.method.needs, pixels)
        return self.through_blocks(self.vision_tower.embed(pixels), pixels, given, slots, pad_mask)

    def through_blocks(
        self, x: Tensor, pixels: Tensor, given: dict[Signal, Tensor], slots: Tensor, pad_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """`encode` from the embeddings (B,S,C) on; `given`: signals that are known already."""
        tokens, signals, waiting = self.see(x, given)
        if waiting is not None:
            keep_idx, scores = self.pruning(self.choose, self.features(signals, None, pixels, pad_mask), slots)
            return self.kept_rows(*waiting, keep_idx), keep_idx, scores
        assert tokens is not None
        features = self.features(signals, tokens, pixels, pad_mask)
        keep_idx, scores = self.pruning(self.choose, features, slots)
        return self.pruning(self.method.recycle, tokens, keep_idx, features), keep_idx, scores

    def see(self, x: Tensor, given: dict[Signal, Tensor]) -> tuple[Tensor | None, dict[Signal, Tensor], Waiting | None]:
        """From the embeddings (B,S,C) -> tokens (B,N,C), projected ones (B,N,D) if `projects_all`, and signals; or,
        where the last block waits for the keep set, no tokens and what `kept_rows` takes."""
        path = self.path
        signals = {**given, **self.pruning(self.outputs_of, -1, x)}
        tokens = x[:, path.first_token :] if path.feature_block < 0 else None
        for index, block in self.vision_tower.items():
            last = index == path.blocks - 1
            if not last and index not in path.signal_blocks.values():
                x = block(x)
            else:
                normed = block.norm1(x)
                keys = block.keys(normed)
                signals.update(self.pruning(self.signals_of, index, block, normed, keys))
                if last and index == path.feature_block and self.prunes_inside():
                    return None, signals, (block, x, normed, keys)
                if last and not path.whole_last_block:
                    break
                x = block.finish(x, normed, keys, block.values(normed))
                signals.update(self.pruning(self.outputs_of, index, x))
            tokens = x[:, path.first_token :] if index == path.feature_block else tokens
        assert tokens is not None
        return self.multi_modal_projector(tokens) if self.projects_all() else tokens, signals, None

    def thin_through(self, method: InEncoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """-> tokens (B,K,C) and keep_idx (B,K) of a method that prunes in the blocks."""
        iota = cast(Tensor, self.constant_iota)
        kept = self.schedule[-1]
        counts = (lambda view, _: self.schedule[view.block], self.pruning)
        return thin_through(self.vision_tower, method, pixels, iota, kept, *counts)

    def unread(self) -> tuple[str, ...]:
        """Prefixes of parameters that no output depends on: a last block that only scores needs keys, and queries."""
        if self.path.whole_last_block:
            return ()
        block = f"vision_tower.blocks.{self.path.blocks - 1}."
        return tuple(block + part for part in ("v_proj", "o_proj", "norm2", "fc1", "fc2", "scale1", "scale2"))

    def projects_all(self) -> bool:
        """Selection reads projected tokens, so the projector runs on all N."""
        return self.method.where == "after_projector"

    def prunes_inside(self) -> bool:
        """The keep set is known before the last used block computes its rows."""
        return self.method.gathers and not self.method.reads_tokens and not self.path.signals_in_last_block

    def signals_of(self, index: int, block: Block, normed: Tensor, keys: Tensor) -> dict[Signal, Tensor]:
        """Signals that the attention of this block serves."""
        wanted = [s for s, at in self.path.signal_blocks.items() if at == index and s.kind not in OUTPUT_KINDS]
        return {s: visual_part(block.signal(s.kind, normed, keys), s.kind, self.path.first_token) for s in wanted}

    def outputs_of(self, index: int, x: Tensor) -> dict[Signal, Tensor]:
        """Signals that are the output (B,S,C) of this block; -1: of the embeddings."""
        wanted = [s for s, at in self.path.signal_blocks.items() if at == index and s.kind in OUTPUT_KINDS]
        found = {s: self.output_of(s, x) for s in wanted}
        return found if self.background is None else self.background.behind(index, found)

    def output_of(self, signal: Signal, x: Tensor) -> Tensor:
        """One signal that is made of the output (B,S,C) of a block."""
        first = self.path.first_token
        if signal.kind == "anchor_embeddings":
            return cast(TableRows, self.get_submodule(anchors_name(signal))).weight.unsqueeze(0)
        if signal.kind == "text_space":
            assert self.text_space is not None
            return self.text_space(x[:, first:])
        if not is_sensitivity(signal):
            return output_signal(signal.kind, x, first)
        directions = getattr(self, f"directions_{signal.directions}_{signal.seed}")
        return self.multi_modal_projector.sensitivity(x[:, first:], directions)

    def features(
        self, signals: dict[Signal, Tensor], tokens: Tensor | None, pixels: Tensor, pad_mask: Tensor | None
    ) -> VisualFeatures:
        """What the method is given."""
        constants = {name: getattr(self, f"constant_{name}") for name in self.constant_names}
        return VisualFeatures(tokens, signals, self.vision_tower.spec.grid, constants, batch=pixels, pad_mask=pad_mask)

    def choose(self, features: VisualFeatures, slots: Tensor) -> tuple[Tensor, Tensor | None]:
        """-> keep_idx (B,K), scores (B,N) or None."""
        scores = self.method.signal(features)
        return self.method.select(scores, slots, features), scores

    def kept_rows(self, block: Block, x: Tensor, normed: Tensor, keys: Tensor, keep_idx: Tensor) -> Tensor:
        """Output of a block for the kept tokens only: keys and values of all tokens, queries and MLP of K."""
        values = block.values(normed)
        if self.method.where == "nowhere":
            rows = slice(self.path.first_token, None)
            return block.finish(x[:, rows], normed[:, rows], keys, values)
        index = keep_idx + self.path.first_token
        kept, normed = (self.pruning(gather_tokens, every, index) for every in (x, normed))
        return block.finish(kept, normed, keys, values)


def is_sensitivity(signal: Signal) -> bool:
    """The signal comes from the projector, not from a block."""
    return signal.kind == "projector_sensitivity"


def anchors_name(signal: Signal) -> str:
    """Name of the module that holds the rows of an `anchor_embeddings` signal."""
    return "_".join(["anchors", *map(str, signal.anchors)])


class LetterboxedVisionGraph(VisionGraph):
    """The same with pad_mask (B,N) float32, 1 where a patch is padding, as the second input."""

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, pad_mask: Tensor, keep_slots: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.answer(pixel_values, keep_slots, pad_mask > 0.5)


def visual_tokens(spec: VitSpec, path: VisionPath) -> int:
    """N, the visual tokens of one picture that the method behind the encoder chooses from."""
    return spec.patches + 1 - path.first_token if path.survivors is None else path.survivors


class EmbeddingGraph(nn.Module):
    """input_ids (B,L) int64 -> inputs_embeds (B,L,D)."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.embed_tokens = table

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embed_tokens(input_ids)


class DecoderGraph(nn.Module):
    """inputs_embeds (B,T,D), position_ids (B,T) int64, attention_mask (B,S) int64, past keys and values (B,Hkv,P,d)
    per layer, P >= 0 -> logits (B,1,V) of the last position, present keys and values (B,Hkv,S,d) per layer.

    One graph serves prefill and decode. A tied output head reads the embedding table as it lies.
    """

    def __init__(self, model: Llama, head: Linear | Table) -> None:
        super().__init__()
        self.language_model = model
        if isinstance(head, Table):
            self.embed_tokens = head
        else:
            self.lm_head = head
        self.tied = isinstance(head, Table)

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        last, presents = self.language_model(inputs_embeds, position_ids, attention_mask, past)
        logits = self.embed_tokens.logits(last) if self.tied else self.lm_head(last)
        return logits.unsqueeze(1), presents
