"""Random tokens, the baseline a method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.selectors import repeat_for_batch


@dataclass(frozen=True)
class RandomTokens(PruningMethod):
    """A fixed random order of the positions, the same for every image; a larger K keeps a superset.

    Parameters:
        seed: which order. Use several seeds for an interval.
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "keep tokens at random positions, fixed by seed"
    source: ClassVar[str] = "-"
    seed: int = 0

    def constants(self, n: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(n, generator=generator).to(torch.float32) / n
        return {**super().constants(n), "order": order}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N): place of each position in the random order, divided by N."""
        return repeat_for_batch(features.constants["order"], features.batch)
