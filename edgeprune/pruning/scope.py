"""Saliency times coverage: tokens that stand for much of the image that no kept token stands for yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import cosine, coverage_gain, greedy, without_padding
from edgeprune.pruning.parameters import importance_signal, require_between


@dataclass(frozen=True)
class Scope(PruningMethod):
    """Adaptation of SCOPE after the third-party code in https://github.com/Tencent/AngelSlim.

    Each pick maximises `sum_i max(0, cos(i, j) - covered_i) * attention_j ** alpha` on projected tokens, where
    covered_i is the highest cosine of token i to a picked token, 0 before the first pick.

    Parameters:
        alpha: 0 to 10, weight of the attention; 0 is coverage alone.
        importance: cls or received attention.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "scope"
    summary: ClassVar[str] = "keep tokens of high attention whose projections cover all others"
    source: ClassVar[str] = "adaptation of SCOPE (AngelSlim)"
    has_mass: ClassVar[bool] = True
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    alpha: float = 1.0
    importance: str = "received"
    layer: int | None = None

    def __post_init__(self) -> None:
        require_between(self.name, "alpha", self.alpha, 0.0, 10.0)
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
        near = without_padding(cosine(features.tokens), features.pad_mask, 0.0)
        weight = scores.pow(self.alpha)
        uncovered = torch.zeros_like(scores)

        def score(covered: Tensor) -> Tensor:
            return coverage_gain(near, covered) * weight

        iota = features.constants["iota"]
        return greedy(score(uncovered), uncovered, near, score, torch.maximum, keep_slots, iota, features.pad_mask)
