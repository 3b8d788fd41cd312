"""Attention of far-seeing patches; what is not kept is averaged window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning import grid_windows
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import ranks
from edgeprune.pruning.parameters import require_between
from edgeprune.pruning.selectors import gather_tokens


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

    def valid_k(self, n: int) -> Sequence[int]:
        return range(max(grid_windows.windows_of(n, self.window, self.name)) + 1, n + 1)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `window` (N,) int64 and `inside` (W,N) float32: 1 where a patch lies in a window."""
        return {**super().constants(n), **grid_windows.window_constants(n, self.window, self.name)}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 importance."""
        attention = features.signals[self.needs[0]].to(torch.float32).mean(1)
        cls = attention.shape[2] - features.constants["iota"].shape[0]
        return grid_windows.seen_from_afar(attention[:, cls:, cls:], self.threshold)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order, -1 for a token made of several."""
        assert scores is not None
        inside, iota = features.constants["inside"], features.constants["iota"]
        kept = ranks(grid_windows.but_one_of_each(scores, inside, iota)) < keep_slots.shape[0] - inside.shape[0]
        weights, place = grid_windows.groups(kept, scores, inside, iota, keep_slots)
        return torch.where(torch.gather(grid_windows.stands_alone(weights), 1, place), place, -1)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        constants, scores = features.constants, self.signal(features)
        inside, iota = constants["inside"], constants["iota"]
        kept = (keep_idx.unsqueeze(2) == iota).any(1)
        weights, place = grid_windows.groups(kept, scores, inside, iota, keep_idx[0].to(torch.float32))
        merged = torch.matmul(weights / weights.sum(2, keepdim=True).clamp_min(1e-30), tokens.to(torch.float32))
        made = gather_tokens(merged.to(tokens.dtype), constants["window"][place])
        return torch.where((keep_idx >= 0).unsqueeze(2), gather_tokens(tokens, place), made)
