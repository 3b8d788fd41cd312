"""Patches that the last block's [CLS] attends to most, each joined by what resembles it, and one token for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import descending, unit
from edgeprune.pruning.selectors import gather_tokens


@dataclass(frozen=True)
class PruMerge(PruningMethod):
    """Adaptation of LLaVA-PruMerge (https://arxiv.org/abs/2403.15388, https://github.com/42Shawn/LLaVA-PruMerge).

    The paper's code takes as many tokens as its attention has outliers; here K is given: K - 1 patches by falling
    [CLS] attention (which is also their order), and one extra token behind them. Attention and keys are those of
    the projections of a late block with all heads joined. A kept patch becomes x_i + sum a_j x_j over the `merged`
    patches with the most similar keys (cosine), the extra token sum a_j x_j over all patches not kept; a is not
    normalised. keep_idx is -1 for the extra token. K = N is not served.

    Parameters:
        merged: patches that join each kept one.
        layer: 0-based encoder block; by default the last, as in the paper's code.
    """

    name: ClassVar[str] = "prumerge"
    summary: ClassVar[str] = "adaptation of PruMerge with K fixed: merge similar patches into those kept"
    source: ClassVar[str] = "arXiv 2403.15388"
    has_mass: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    gathers: ClassVar[bool] = False
    identity_at_full: ClassVar[bool] = False
    merged: int = 32
    layer: int = -1

    def __post_init__(self) -> None:
        if self.merged < 1:
            raise PruningError(f"prumerge: merged must be at least 1, not {self.merged}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("wide_cls_attention", self.layer), Signal("keys", self.layer))

    def valid_k(self, n: int) -> range:
        return range(1, n)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 [CLS] attention of the joined heads."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """Patches by falling score, then -1; (B,K) int64."""
        assert scores is not None
        kept = keep_slots.shape[0]
        patch = features.constants["iota"][:kept] + 1 < kept
        return torch.where(patch, descending(scores, features.pad_mask)[:, :kept], -1)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        iota, weight, pad = features.constants["iota"], features.signals[self.needs[0]].unsqueeze(1), features.pad_mask
        if pad is not None:
            weight = weight.masked_fill(pad.unsqueeze(1), 0.0)
        patch = (keep_idx >= 0).unsqueeze(2)
        index = keep_idx.clamp_min(0)
        itself = index.unsqueeze(2) == iota
        keys = unit(features.signals[self.needs[1]].transpose(1, 2).flatten(2))
        likeness = torch.matmul(gather_tokens(keys, index), keys.transpose(1, 2)).masked_fill(itself, -2.0)
        if pad is not None:
            likeness = likeness.masked_fill(pad.unsqueeze(1), -2.0)
        similar = torch.topk(likeness, min(self.merged, iota.shape[0] - 1), dim=2).indices
        joins = torch.zeros_like(likeness).scatter(2, similar, 1.0)
        dropped = ~(itself & patch).any(1, keepdim=True)
        weights = torch.where(patch, joins * weight + itself, dropped * weight)
        return torch.matmul(weights, tokens.to(torch.float32)).to(tokens.dtype)
