"""PageRank on the attention map: patches attended to by tokens that are attended to themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures


@dataclass(frozen=True)
class PageRank(PruningMethod):
    """Adaptation of the importance signal of Zero-TPrune (abstract and a summary read, no code).

    In each head the importance of all encoder tokens, [CLS] included, starts even and is spread along the attention
    map `iterations` times: s <- A^T s, divided by its sum. Heads are joined by the root of their mean square, which
    favours patches that matter much in few heads. The paper prunes inside the encoder, drops heads by the range of
    their variance and prunes by similarity as well; none of that is done here, and the number of iterations in a late
    block is an assumption.

    Parameters:
        iterations: at least 1.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "pagerank"
    summary: ClassVar[str] = "adaptation of Zero-TPrune's signal: keep the patches with the highest PageRank"
    source: ClassVar[str] = "Zero-TPrune (abstract)"
    has_mass: ClassVar[bool] = True
    iterations: int = 5
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise PruningError(f"pagerank: iterations must be at least 1, not {self.iterations}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("attention", self.layer),)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 importance."""
        attention = features.signals[self.needs[0]]
        importance = torch.ones_like(attention[:, :, :1]) / attention.shape[3]
        for _ in range(self.iterations):
            importance = torch.matmul(importance, attention)
            importance = importance / importance.sum(3, keepdim=True)
        joined = torch.sqrt((importance * importance).mean(1)).squeeze(1)
        # visual tokens are the last N, whether [CLS] is one of them or not
        return joined[:, joined.shape[1] - features.constants["iota"].shape[0] :]
