"""Maximal marginal relevance: important tokens that are unlike those already kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import cosine, greedy, scaled_to_one
from edgeprune.pruning.parameters import importance_signal, require_between


@dataclass(frozen=True)
class Mmr(PruningMethod):
    """Adaptation of IDPruner (https://github.com/Tencent/AngelSlim), whose importance is a trained scorer; here it is
    attention. One pick per step.

    The first pick is the most important token; each later one maximises
    `balance * importance - (1 - balance) * max cosine to a picked token`, on projected tokens, importance scaled to
    0..1 per image.

    Parameters:
        balance: 0 to 1; 1 is top-k of the importance, 0 is max-min diversity after the first pick.
        importance: cls or received attention.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "mmr"
    summary: ClassVar[str] = "keep tokens of high attention whose projection is unlike those already kept"
    source: ClassVar[str] = "adaptation of IDPruner (AngelSlim)"
    has_mass: ClassVar[bool] = True
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    balance: float = 0.5
    importance: str = "cls"
    layer: int | None = None

    def __post_init__(self) -> None:
        require_between(self.name, "balance", self.balance, 0.0, 1.0)
        importance_signal(self.name, self.importance, self.layer)

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (importance_signal(self.name, self.importance, self.layer),)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 attention."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        scaled, pad = scaled_to_one(scores, features.pad_mask, 1e-6), features.pad_mask
        gain, cost = self.balance * scaled, 1.0 - self.balance
        nothing = torch.full_like(scores, -2.0)  # below every cosine
        iota, near = features.constants["iota"], cosine(features.tokens)

        def score(nearest: Tensor) -> Tensor:
            return gain - cost * nearest

        return greedy(scaled, nothing, near, score, torch.maximum, keep_slots, iota, pad)
