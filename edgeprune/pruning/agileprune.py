"""Attention with suppression: what resembles a kept token is dropped, the more freely the less attention remains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import cosine, greedy
from edgeprune.pruning.orders import ranks
from edgeprune.pruning.parameters import importance_signal, require_between


@dataclass(frozen=True)
class AgilePrune(PruningMethod):
    """Adaptation of AgilePruner (https://arxiv.org/abs/2603.01236), after the formula of its project page.

    Tokens are visited by falling attention; each one kept suppresses the tokens within cosine distance
    `min(limit, 0.01 * order * complexity / average)` of it, order being its 1-based rank. Where none is left before K,
    the highest attention among the suppressed ones goes on. Ours: complexity is the participation ratio
    `n^2 / sum cos(i, j)^2` of the encoder's features (1 to n), where the paper takes the effective rank, which needs
    singular values; the paper states neither its average nor its limit, so neither default is calibrated.

    Parameters:
        average: 1 to 1e6, the participation ratio at which the factor is 1: the mean over pictures of your own.
        limit: 0 to 2, largest distance that is suppressed; 0 is the top-k of the attention.
        importance: cls or received attention.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "agileprune"
    summary: ClassVar[str] = "adaptation of AgilePruner: attention, suppressing what resembles a kept token"
    source: ClassVar[str] = "adaptation of arXiv 2603.01236"
    reads_tokens: ClassVar[bool] = True
    average: float = 5.0
    limit: float = 0.5
    importance: str = "cls"
    layer: int | None = None

    def __post_init__(self) -> None:
        require_between(self.name, "average", self.average, 1.0, 1e6)
        require_between(self.name, "limit", self.limit, 0.0, 2.0)
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
        iota, pad = features.constants["iota"], features.pad_mask
        near, rank = cosine(features.tokens), ranks(scores, pad).to(torch.float32)
        distance = 0.01 / self.average * (rank + 1) * participation_ratio(near, pad)
        suppresses = (1 - near < distance.clamp_max(self.limit).unsqueeze(2)).to(torch.float32)

        def score(suppressed: Tensor) -> Tensor:
            return -rank - suppressed * iota.shape[0]

        free = torch.zeros_like(rank)
        return greedy(-rank, free, suppresses, score, torch.maximum, keep_slots, iota, pad)


def participation_ratio(near: Tensor, pad_mask: Tensor | None) -> Tensor:
    """Cosines (B,N,N) -> n^2 / sum of their squares over the n tokens outside padding, (B,1)."""
    if pad_mask is None:
        return near.shape[1] ** 2 / near.pow(2).sum((1, 2)).unsqueeze(1)
    inside = (~pad_mask).to(near.dtype)
    squares = (near.pow(2) * inside.unsqueeze(1) * inside.unsqueeze(2)).sum((1, 2))
    return inside.sum(1, keepdim=True).pow(2) / squares.unsqueeze(1)
