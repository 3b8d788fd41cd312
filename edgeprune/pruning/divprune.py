"""Max-min diversity: keep tokens that are as far from each other as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.greedy import cosine, greedy, without_padding


@dataclass(frozen=True)
class DivPrune(PruningMethod):
    """DivPrune (https://arxiv.org/abs/2503.02175, https://github.com/vbdi/divprune).

    Distance is 1 - cosine of projected tokens. The first pick is the token whose nearest other token is farthest; each
    later one is farthest from its nearest picked token. Computed on similarities, whose order is the opposite one and
    which lose no digits to `1 -`. A picked token is excluded; the paper's code leaves it in at distance 0, which is the
    same until only duplicates are left.
    """

    name: ClassVar[str] = "divprune"
    summary: ClassVar[str] = "keep projected tokens that are farthest from each other (max-min)"
    source: ClassVar[str] = "arXiv 2503.02175"
    where: ClassVar[str] = "after_projector"
    has_scores: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert features.tokens is not None
        near = cosine(features.tokens)
        # the first column is the token itself; a lone token has no other
        others = without_padding(near, features.pad_mask, -2.0)
        first = -torch.topk(others, min(2, near.shape[1]), dim=2).values[:, :, -1]
        nothing = torch.full_like(first, -2.0)  # below every cosine
        return greedy(
            first, nothing, near, torch.neg, torch.maximum, keep_slots, features.constants["iota"], features.pad_mask
        )
