"""Contextual tokens: what is not kept merges into a few targets that lie at a fixed step in the raster sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgeprune.pruning.orders import chosen_first, inverse, unit
from edgeprune.pruning.selectors import gather_tokens


class Plan(NamedTuple):
    """Where contextual tokens stand. Scalars int64: the `first` contextual slot of K, how many `targets` there are,
    and the `step` between them in the raster sequence of what is not kept."""

    first: Tensor
    targets: Tensor
    step: Tensor


def contextual_rows(
    tokens: Tensor, keys: Tensor, keep_idx: Tensor, plan: Plan, iota: Tensor, pad_mask: Tensor | None
) -> Tensor:
    """Kept tokens gathered, and for each contextual slot its target plus the mean of those that joined it.

    Args:
        tokens: (B,N,C). keys: (B,N,d), by whose cosine the others join. keep_idx: (B,K), -1 where no patch is kept.

    Returns:
        (B,K,C).
    """
    slot = iota[: keep_idx.shape[1]].unsqueeze(1)
    joined, target = assignment(keys, keep_idx, plan, iota, pad_mask)
    member = (joined.unsqueeze(1) + plan.first == slot).to(torch.float32)
    base = (target.unsqueeze(1) + plan.first == slot).to(torch.float32)
    weights = base + member / member.sum(2, keepdim=True).clamp_min(1)
    merged = torch.matmul(weights, tokens.to(torch.float32)).to(tokens.dtype)
    return torch.where(slot < plan.first, gather_tokens(tokens, keep_idx.clamp_min(0)), merged)


def assignment(
    keys: Tensor, keep_idx: Tensor, plan: Plan, iota: Tensor, pad_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Contextual token that each patch joins, and that it is the target of; (B,N) int64 each, -N - 1: none."""
    step, targets = plan.step, plan.targets
    chosen = (keep_idx.unsqueeze(2) == iota).any(1)
    if pad_mask is not None:  # neither targets nor merged into one
        left = (~(chosen | pad_mask)).sum(1, keepdim=True)
        step = torch.div(left, targets.clamp_min(1), rounding_mode="floor").clamp_min(1)
        chosen = chosen | pad_mask
    rest = inverse(chosen_first(~chosen, iota))  # place among the remaining patches
    nearest = rest // step
    is_target = ~chosen & (nearest * step == rest) & (nearest < targets)
    nowhere = torch.full_like(rest, -iota.shape[0] - 1)
    target = torch.where(is_target, nearest, nowhere)
    likeness = torch.matmul(unit(keys), unit(keys).transpose(1, 2)).masked_fill(~is_target.unsqueeze(1), -2.0)
    joined = torch.gather(target, 1, likeness.argmax(2))
    return torch.where(chosen | is_target, nowhere, joined), target
