"""A list of tokens thinned in rounds, each of which drops those that most resemble another."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch._higher_order_ops import scan

from edgeprune.pruning.orders import descending, inverse

#: tokens that one round drops at most
PER_ROUND = 8


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
        drop = torch.minimum(torch.minimum(left - goal, torch.floor((left + 1) / 2)), torch.full_like(left, PER_ROUND))
        moved = inverse(descending(key)).to(torch.float32) - drop
        moved = torch.where(moved < 0, moved + 3.0 * size, moved)
        return (torch.where(drop > 0, moved, place), left - drop), place[:, :1].clone()

    left = count.to(torch.float32) + torch.zeros_like(place[:1, :1])
    goal = goal.to(torch.float32)
    (place, _), _ = cast(tuple[tuple[Tensor, Tensor], Tensor], scan(step, (place, left), rounds))
    return place
