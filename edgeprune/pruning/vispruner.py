"""The patches that [CLS] attends to most, and of the others those that resemble one another least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import ranks, unit
from edgeprune.pruning.rounds import PER_ROUND, thinned
from edgeprune.pruning.selectors import raster_top_k


@dataclass(frozen=True)
class VisPruner(PruningMethod):
    """VisPruner (https://arxiv.org/abs/2412.01818v2, https://github.com/Theia-4869/VisPruner).

    int(K important_ratio) patches by [CLS] attention; the others, listed by falling attention, are thinned in rounds:
    of the list's even places the (at most 8) tokens that most resemble a token of its odd places are dropped; the next
    list is what is left of the even places by falling resemblance, then the odd places. Resemblance is the cosine of
    the encoder's features. Lists of odd length, which the paper's code does not expect, give the even places one more;
    a round never drops more than the even places. Kept tokens are in raster order.

    Parameters:
        important_ratio: share of K chosen by attention, in [0, 1).
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "vispruner"
    summary: ClassVar[str] = "keep what [CLS] attends to most, and the least alike of the other patches"
    source: ClassVar[str] = "arXiv 2412.01818v2"
    has_mass: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    stable: ClassVar[bool] = False
    important_ratio: float = 0.5
    layer: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.important_ratio < 1:
            raise PruningError(
                f"vispruner: important_ratio must be at least 0 and below 1, not {self.important_ratio:g}"
            )

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("cls_attention", self.layer),)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `important` (N+1,): how many for each K; `rounds` (R,): enough rounds for K = 1."""
        important = [int(k * self.important_ratio) for k in range(n + 1)]
        # eight a round, and below fifteen tokens half of the list
        rounds = torch.zeros(-(-n // PER_ROUND) + 4)
        return {**super().constants(n), "important": torch.tensor(important), "rounds": rounds}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 [CLS] attention."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        assert scores is not None
        assert features.tokens is not None
        constants, kept = features.constants, keep_slots.shape[0]
        important = constants["important"][kept]
        rank = ranks(scores, features.pad_mask)
        likeness = unit(features.tokens)
        likeness = torch.matmul(likeness, likeness.transpose(1, 2))
        # places in the list; the important ones have none
        place = (rank - important).to(torch.float32)
        place = torch.where(place < 0, place + 2 * scores.shape[1], place)
        # padding has the last places by rank: behind the list's end
        listed = constants["iota"].shape[0] if features.pad_mask is None else (~features.pad_mask).sum(1, keepdim=True)
        place = thinned(place, likeness, kept - important, listed - important, constants["rounds"])
        wanted = (rank < important) | (place < kept - important)
        return raster_top_k(wanted.to(torch.float32), keep_slots, constants["iota"])
