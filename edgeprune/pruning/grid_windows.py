"""Square windows of the grid, each of which makes one token of what it does not keep."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.selectors import raster_order


def windows_of(n: int, size: float, name: str) -> list[int]:
    """Window of every patch of a square grid, windows in raster order.

    Args:
        size: side of a window in patches, may be a fraction. name: the method's, for the error.

    Raises:
        PruningError: `n` patches make no square.
    """
    side = math.isqrt(n)
    if side * side != n:
        raise PruningError(f"{name} needs a square grid, and {n} visual tokens make none")
    across = int((side - 1) / size) + 1
    return [int(i // side / size) * across + int(i % side / size) for i in range(n)]


def window_constants(n: int, size: float, name: str) -> dict[str, Tensor]:
    """`window` (N,) int64 of every patch and `inside` (W,N) float32: 1 where a patch lies in a window."""
    window = torch.tensor(windows_of(n, size, name))
    inside = (window == torch.arange(int(window.max()) + 1).unsqueeze(1)).to(torch.float32)
    return {"window": window, "inside": inside}


def seen_from_afar(attention: Tensor, threshold: float) -> Tensor:
    """Mean attention (B,N) that the patches get from those which themselves receive more than `threshold` times the
    mean of it; from all where none does. `attention` (B,N,N)."""
    received = attention.mean(1)
    far = (received > threshold * received.mean(1, keepdim=True)).to(torch.float32)
    far = torch.where(far.sum(1, keepdim=True) > 0, far, torch.ones_like(far))
    return torch.matmul(far.unsqueeze(1), attention).squeeze(1) / far.sum(1, keepdim=True)


def but_one_of_each(scores: Tensor, inside: Tensor, iota: Tensor) -> Tensor:
    """Scores (B,N), at least 0, with that of the least important patch of every window moved below all others."""
    least = scores.unsqueeze(1).masked_fill(inside == 0, torch.inf).argmin(2)
    return scores.masked_fill((least.unsqueeze(2) == iota).any(1), -1.0)


def groups(kept: Tensor, scores: Tensor, inside: Tensor, iota: Tensor, keep_slots: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,W,N), positive, of the patches of each window that are not kept, 0 elsewhere; and where the K tokens
    stand, (B,K) int64 in raster order: the kept patches and the most important one of each window that has any left.
    """
    # attention may underflow to 0, and a patch of no weight would be lost
    weights = (scores.clamp_min(1e-30) * ~kept).unsqueeze(1) * inside
    best = weights.argmax(2)
    lead = (best.unsqueeze(2) == iota) & (weights.sum(2, keepdim=True) > 0)
    return weights, raster_order(kept | lead.any(1), keep_slots, iota)


def stands_alone(weights: Tensor) -> Tensor:
    """(B,N) bool: patches that are kept, or alone in what their window has left; `weights` of `groups`."""
    left = weights > 0
    alone = left & (left.sum(2, keepdim=True) == 1)
    return (left.sum(1) == 0) | alone.any(1)
