"""The patches that [CLS] attends to most, and of the others those that resemble one another least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch._higher_order_ops import scan

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import descending, inverse, ranks, unit
from edgeprune.pruning.selectors import raster_top_k

#: tokens that one round drops at most
_PER_ROUND = 8


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
        rounds = torch.zeros(-(-n // _PER_ROUND) + 4)
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


def thinned(place: Tensor, likeness: Tensor, goal: Tensor, count: Tensor, rounds: Tensor) -> Tensor:
    """The list after all rounds.

    Args:
        place: (B,N) float32, 0..count-1 in the list, N and more outside it.
        likeness: (B,N,N) cosines.
        goal, count: tokens wanted, () int64, and tokens in the list, () or (B,1) int64.
        rounds: (R,) float32, only its length counts.

    Returns:
        (B,N) float32: 0..goal-1 in the list, more outside it.
    """
    size = place.shape[1]

    def step(carry: tuple[Tensor, Tensor], _: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        place, left = carry
        listed, odd = place < left, torch.floor(place / 2) * 2 < place
        best = torch.where((listed & odd).unsqueeze(1), likeness, -1.5).amax(2)
        # even places by resemblance (at least -1.5), then odd ones by place, then what is out
        key = torch.where(odd, -2.0 - place, best)
        key = torch.where(listed, key, -2.0 - size - place)
        drop = torch.minimum(torch.minimum(left - goal, torch.floor((left + 1) / 2)), torch.full_like(left, _PER_ROUND))
        moved = inverse(descending(key)).to(torch.float32) - drop
        moved = torch.where(moved < 0, moved + 3.0 * size, moved)
        return (torch.where(drop > 0, moved, place), left - drop), place[:, :1].clone()

    left = count.to(torch.float32) + torch.zeros_like(place[:1, :1])
    goal = goal.to(torch.float32)
    (place, _), _ = cast(tuple[tuple[Tensor, Tensor], Tensor], scan(step, (place, left), rounds))
    return place
