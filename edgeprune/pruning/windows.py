"""Window budgets: the raster sequence in contiguous runs, each of which may keep its own number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.pruning.orders import ranks


def run_constants(n: int, count: int) -> dict[str, Tensor]:
    """How N tokens lie in `count` runs (at most N), the first N mod `count` of which hold one token more.

    Returns:
        `places` (R,L) int64: tokens of each run, L being the longest; a shorter run repeats its last token.
        `member` (R,L) float32: 1 for a token, 0 for a repeated one.
        `slot` (N,) int64: where each token lies in the flattened runs.
    """
    count = min(count, n)
    sizes = [n // count + (run < n % count) for run in range(count)]
    longest = max(sizes)
    starts = [sum(sizes[:run]) for run in range(count)]
    at = zip(starts, sizes, strict=True)
    places = [[start + min(place, size - 1) for place in range(longest)] for start, size in at]
    member = [[float(place < size) for place in range(longest)] for size in sizes]
    slot = [run * longest + place for run, size in enumerate(sizes) for place in range(size)]
    return {"places": torch.tensor(places), "member": torch.tensor(member), "slot": torch.tensor(slot)}


def in_runs(values: Tensor, places: Tensor) -> Tensor:
    """(B,N,...) -> (B,R,L,...)."""
    return values.index_select(1, places.flatten()).reshape(values.shape[0], *places.shape, *values.shape[2:])


def budgets(shares: Tensor, keep_slots: Tensor) -> Tensor:
    """Tokens per run: floor(share K), and one more for the runs of largest share until all K are given.

    Args:
        shares: (B,R) float32 >= 0 that sum to at most 1. keep_slots: (K,), only its length counts.

    Returns:
        (B,R) float32; more than a run holds where its share is large.
    """
    given = torch.floor(shares * keep_slots.shape[0])
    return given + (ranks(shares) < keep_slots.shape[0] - given.sum(1, keepdim=True))


def within_budget(scores: Tensor, budget: Tensor, member: Tensor, slot: Tensor) -> Tensor:
    """The tokens (B,N) bool that are among the `budget` (B,R) highest `scores` (B,R,L) of their run.

    `member` (B,R,L) or (1,R,L): 1 for a token that may be chosen. `slot` (N,): of `run_constants`."""
    own = torch.where(member > 0, scores, torch.finfo(scores.dtype).min)
    rank = ranks(own.flatten(0, 1)).reshape(own.shape)
    return (rank < budget.unsqueeze(2)).flatten(1).index_select(1, slot)
