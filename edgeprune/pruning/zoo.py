"""Tokens to which the projector answers strongly and that are unlike those already kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import cosine, greedy, scaled_to_one
from edgeprune.pruning.parameters import require_between, require_choice

SENSITIVITIES: Final = ("jvp", "norm")


@dataclass(frozen=True)
class Zoo(PruningMethod):
    """ZOO-Prune (https://arxiv.org/abs/2509.24837, https://github.com/AIM-SKKU/ZOO-Prune).

    The first pick is the token of highest sensitivity, scaled to 0..1 per image; each later one maximises
    `sensitivity * (1 - max cosine to a picked token)` on projected tokens. Sensitivity is the mean length of the
    projector's answer to fixed random unit directions. The paper estimates it by finite differences; here it is their
    limit, the exact Jacobian-vector product, which has no step size to lose in rounding.

    Parameters:
        sensitivity: jvp; or norm, the length of the projected token, a cheap stand-in that is not the paper's.
        directions: 1 to 1024, how many; the paper's code takes 64.
        seed: which directions.
    """

    name: ClassVar[str] = "zoo"
    summary: ClassVar[str] = "keep tokens the projector is sensitive to and whose projection is unlike those kept"
    source: ClassVar[str] = "arXiv 2509.24837"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    sensitivity: str = "jvp"
    directions: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice(self.name, "sensitivity", self.sensitivity, SENSITIVITIES)
        require_between(self.name, "directions", self.directions, 1, 1024)
        require_between(self.name, "seed", self.seed, 0, 2**31)

    @property
    def needs(self) -> tuple[Signal, ...]:
        if self.sensitivity == "norm":
            return ()
        return (Signal("projector_sensitivity", directions=self.directions, seed=self.seed),)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 sensitivity."""
        if self.needs:
            return features.signals[self.needs[0]]
        assert features.tokens is not None
        return features.tokens.float().pow(2).sum(-1).sqrt()

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        pad = features.pad_mask
        scaled = scaled_to_one(scores, pad, 1e-8)
        seen = scaled if pad is None else scaled.masked_fill(pad, 0.0)
        # where all are alike, diversity alone decides
        scaled = scaled.masked_fill(seen.amax(1, keepdim=True) <= 0, 1.0)
        nothing = torch.full_like(scores, -2.0)  # below every cosine
        iota, near = features.constants["iota"], cosine(features.tokens)

        def score(nearest: Tensor) -> Tensor:
            return scaled * (1.0 - nearest)

        return greedy(scaled, nothing, near, score, torch.maximum, keep_slots, iota, pad)
