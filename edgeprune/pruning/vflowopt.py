"""Attention of far-seeing patches; what is not kept is averaged window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import ranks
from edgeprune.pruning.parameters import require_between
from edgeprune.pruning.selectors import gather_tokens, raster_order


@dataclass(frozen=True)
class VFlowOpt(PruningMethod):
    """Adaptation of stage 0 of VFlowOpt (https://arxiv.org/abs/2508.05211, https://github.com/sihany077/VFlowOpt); its
    later stages work inside the decoder.

    A token's importance is the mean attention it gets, over heads and over the patches that themselves receive more
    than `threshold` times the mean. K - W tokens of highest importance are kept; in each of W square windows of the
    grid all others become one token, their mean weighted by importance, at the place of the most important of them.
    Raster order; keep_idx is -1 for a token made of several. Ours: every window gives one token (the paper's number of
    windows with anything to merge depends on the picture), for which its least important patch is never kept as it
    is; where no patch exceeds the threshold all count; [CLS], if any, attends to nothing and gets nothing. The entropy
    term, which the paper's settings switch off, is left out.

    Parameters:
        threshold: 0 to 1e4; 39.26 in the paper at 10 % of the tokens, 34.76 at 25 %, 28.68 at 50 %.
        window: 1 to 1e4, side in patches, may be a fraction; 17.39, 15.58 and 11.76 there.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "vflowopt"
    summary: ClassVar[str] = (
        "adaptation of VFlowOpt: keep what far-seeing patches attend to, average the rest by window"
    )
    source: ClassVar[str] = "adaptation of arXiv 2508.05211 (stage 0)"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    gathers: ClassVar[bool] = False
    threshold: float = 39.26
    window: float = 17.39
    layer: int | None = None

    def __post_init__(self) -> None:
        require_between(self.name, "threshold", self.threshold, 0.0, 1e4)
        require_between(self.name, "window", self.window, 1.0, 1e4)

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("attention", self.layer),)

    @property
    def needs_grid(self) -> bool:
        return True

    @property
    def honours_padding(self) -> bool:
        return False  # a window may lie in padding altogether

    def windows(self, n: int) -> list[int]:
        """Window of every patch of a square grid."""
        side = math.isqrt(n)
        if side * side != n:
            raise PruningError(f"{self.name} needs a square grid, and {n} visual tokens make none")
        across = int((side - 1) / self.window) + 1
        return [int(i // side / self.window) * across + int(i % side / self.window) for i in range(n)]

    def valid_k(self, n: int) -> Sequence[int]:
        return range(max(self.windows(n)) + 1, n + 1)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `window` (N,) int64 and `inside` (W,N) float32: 1 where a patch lies in a window."""
        window = torch.tensor(self.windows(n))
        inside = (window == torch.arange(int(window.max()) + 1).unsqueeze(1)).to(torch.float32)
        return {**super().constants(n), "window": window, "inside": inside}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 importance."""
        attention = features.signals[self.needs[0]].to(torch.float32).mean(1)
        cls = attention.shape[2] - features.constants["iota"].shape[0]
        attention = attention[:, cls:, cls:]
        received = attention.mean(1)
        far = (received > self.threshold * received.mean(1, keepdim=True)).to(torch.float32)
        far = torch.where(far.sum(1, keepdim=True) > 0, far, torch.ones_like(far))
        return torch.matmul(far.unsqueeze(1), attention).squeeze(1) / far.sum(1, keepdim=True)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order, -1 for a token made of several."""
        assert scores is not None
        inside, iota = features.constants["inside"], features.constants["iota"]
        least = scores.unsqueeze(1).masked_fill(inside == 0, torch.inf).argmin(2)
        order = ranks(scores.masked_fill((least.unsqueeze(2) == iota).any(1), -1.0))
        kept = order < keep_slots.shape[0] - inside.shape[0]
        weights, lead = groups(kept, scores, inside, iota)
        place = raster_order(kept | lead, keep_slots, iota)
        alone = (weights > 0).sum(1) == 0
        single = ((weights > 0).sum(2, keepdim=True) == 1) & (weights > 0)
        return torch.where(torch.gather(alone | single.any(1), 1, place), place, -1)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        constants, scores = features.constants, self.signal(features)
        kept = (keep_idx.unsqueeze(2) == constants["iota"]).any(1)
        weights, lead = groups(kept, scores, constants["inside"], constants["iota"])
        place = raster_order(kept | lead, keep_idx[0].to(torch.float32), constants["iota"])
        merged = torch.matmul(weights / weights.sum(2, keepdim=True).clamp_min(1e-30), tokens.to(torch.float32))
        made = gather_tokens(merged.to(tokens.dtype), constants["window"][place])
        return torch.where((keep_idx >= 0).unsqueeze(2), gather_tokens(tokens, place), made)


def groups(kept: Tensor, scores: Tensor, inside: Tensor, iota: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,W,N), positive, of the patches of each window that are not kept, 0 elsewhere; and the most important
    one of every window that has any, (B,N) bool."""
    # attention may underflow to 0, and a patch of no weight would be lost
    weights = (scores.clamp_min(1e-30) * ~kept).unsqueeze(1) * inside
    best = weights.argmax(2)
    lead = (best.unsqueeze(2) == iota) & (weights.sum(2, keepdim=True) > 0)
    return weights, lead.any(1)
