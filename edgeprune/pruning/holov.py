"""Attention inside runs of the raster sequence, each run with a budget of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import ranks
from edgeprune.pruning.parameters import importance_signal, require_between
from edgeprune.pruning.selectors import raster_top_k
from edgeprune.pruning.windows import budgets, in_runs, run_constants, within_budget


@dataclass(frozen=True)
class HoloV(PruningMethod):
    """HoloV (https://arxiv.org/abs/2510.02912, https://github.com/obananas/HoloV), its pruning before the decoder.

    The raster sequence is cut into `runs` contiguous runs. A run's score is the mean of `a + variance * scale * v`: a
    is 1000 times the attention, v the variance of a token's cosines to the other projected tokens of its run (as in
    the paper's code the zeroed diagonal counts), scale brings v to the mean of a. Runs share K by score; in each run
    the tokens of highest attention are kept. Ours: raster order instead of falling attention inside a run; what a run
    cannot hold goes to the highest attention elsewhere, where the paper's code emits zero vectors; a run of one token
    has no variance.

    Parameters:
        runs: at least 1, at most N are used.
        variance: 0 to 100, weight of the variance; 0.09 in the paper's code.
        importance: cls or received attention.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "holov"
    summary: ClassVar[str] = "share K between runs of the picture, keep the highest attention of each"
    source: ClassVar[str] = "arXiv 2510.02912"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    runs: int = 16
    variance: float = 0.09
    importance: str = "cls"
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise PruningError(f"{self.name}: runs must be at least 1, not {self.runs}")
        require_between(self.name, "variance", self.variance, 0.0, 100.0)
        importance_signal(self.name, self.importance, self.layer)

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (importance_signal(self.name, self.importance, self.layer),)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `places`, `member` and `slot` of windows.run_constants."""
        return {**super().constants(n), **run_constants(n, self.runs)}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 attention."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        constants, pad = features.constants, features.pad_mask
        attention, member = in_runs(scores, constants["places"]), constants["member"].unsqueeze(0)
        if pad is not None:
            member = member * (1 - in_runs(pad.to(torch.float32), constants["places"]))
        score = self.run_scores(1000 * attention, in_runs(features.tokens, constants["places"]), member)
        budget = budgets(score / (score.sum(1, keepdim=True) + 1e-6), keep_slots)
        chosen = within_budget(attention, budget, member, constants["slot"])
        # the chosen before all others; ranks, because a sum with the attention itself would round it
        priority = scores.shape[1] * chosen.to(torch.float32) - ranks(scores, pad)
        return raster_top_k(priority, keep_slots, constants["iota"], pad)

    def run_scores(self, attention: Tensor, tokens: Tensor, member: Tensor) -> Tensor:
        """Attention (B,R,L), tokens (B,R,L,C), member (B,R,L) or (1,R,L) -> score of each run (B,R)."""
        size = member.sum(2).clamp_min(1)
        others = (size - 1).clamp_min(1).unsqueeze(2)
        pair = member.unsqueeze(3) * member.unsqueeze(2) * (1 - torch.eye(member.shape[2]))
        wide = tokens.to(torch.float32)
        unit = wide / (wide.pow(2).sum(-1, keepdim=True).sqrt() + 1e-6)
        near = torch.matmul(unit, unit.transpose(2, 3)) * pair
        apart = (near - (near.sum(3) / others).unsqueeze(3)).pow(2) * member.unsqueeze(2)
        variance = (apart.sum(3) / others * member).sum(2) / size
        mean = (attention * member).sum(2) / size
        scale = (attention.abs() * member).sum(2) / size / (variance + 1e-6)
        return mean + self.variance * scale * variance
