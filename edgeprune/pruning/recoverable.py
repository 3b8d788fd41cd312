"""What resembles the whole picture, what the question brings back, and the rest merged: Recoverable Compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.contextual import Plan, contextual_rows
from edgeprune.pruning.orders import chosen_first, ranks, unit
from edgeprune.pruning.question import likeness_to_question

_HIDDEN, _CLS = Signal("hidden"), Signal("cls_hidden")


@dataclass(frozen=True)
class Recoverable(PruningMethod):
    """Adaptation of Recoverable Compression (https://arxiv.org/abs/2409.01179) with counts fixed by K: its code was
    not read, only the abstract is known; its adaptive cuts and its clustering are replaced.

    K is three parts: patches of highest cosine with [CLS] in the encoder's features; of the others, those whose
    projection has the highest mean cosine with the question's embeddings; and contextual tokens, into which the
    rest merges as in VisionZip, by cosine of the encoder's features. Patches come in raster order, contextual tokens
    (keep_idx -1) behind them. K = N is not served.

    Parameters:
        question: share of K that the question brings back, floor(K question) tokens.
        merged: share of K that is contextual, floor(K merged) tokens; both together below 1.
    """

    name: ClassVar[str] = "recoverable"
    summary: ClassVar[str] = "keep what resembles [CLS], recover what resembles the question, merge the rest"
    source: ClassVar[str] = "adaptation of arXiv 2409.01179"
    where: ClassVar[str] = "after_projector"
    text: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    gathers: ClassVar[bool] = False
    identity_at_full: ClassVar[bool] = False
    question: float = 0.25
    merged: float = 0.125

    def __post_init__(self) -> None:
        if not (self.question >= 0 and self.merged >= 0 and self.question + self.merged < 1):
            raise PruningError(f"{self.name}: question and merged must be at least 0 and together below 1")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (_HIDDEN, _CLS)

    def valid_k(self, n: int) -> range:
        return range(1, n)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds, for each K: tokens like [CLS] `seen`, `first` contextual slot, `targets`, their `step`; (N+1,) each."""
        targets = [int(k * self.merged) for k in range(n + 1)]
        first = [k - t for k, t in enumerate(targets)]
        seen = [f - int(k * self.question) for k, f in enumerate(first)]
        steps = [max(1, (n - f) // max(1, t)) for f, t in zip(first, targets, strict=True)]
        table = {"seen": seen, "first": first, "targets": targets, "step": steps}
        return {**super().constants(n), **{key: torch.tensor(row) for key, row in table.items()}}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 cosine with [CLS]."""
        return (unit(features.signals[_HIDDEN]) * unit(features.signals[_CLS])).sum(2)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """Patches ascending, then -1 for each contextual token; (B,K) int64."""
        assert scores is not None
        kept, pad, constants = keep_slots.shape[0], features.pad_mask, features.constants
        seen, first, iota = constants["seen"][kept], constants["first"][kept], constants["iota"]
        like_cls = ranks(scores, pad) < seen
        asked = likeness_to_question(features)
        if pad is not None:
            asked = asked.masked_fill(pad, -2.0)  # below every cosine, and above what is already kept
        patches = like_cls | (ranks(asked.masked_fill(like_cls, -3.0)) < first - seen)
        return torch.where(iota[:kept] < first, chosen_first(patches, iota)[:, :kept], -1)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        constants, kept = features.constants, keep_idx.shape[1]
        plan = Plan(*(constants[name][kept] for name in Plan._fields))
        return contextual_rows(tokens, features.signals[_HIDDEN], keep_idx, plan, constants["iota"], features.pad_mask)
