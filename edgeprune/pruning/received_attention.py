"""Received attention: keep the patches that all tokens attend to most. Needs no [CLS] token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures


@dataclass(frozen=True)
class ReceivedAttention(PruningMethod):
    """Top-k of the attention each patch receives; the definition is HiPrune's (https://arxiv.org/abs/2508.00553).

    The score is the mean over heads and over all query rows ([CLS] included) of the attention map of one encoder
    block, [CLS] column dropped.

    Parameters:
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "received-attention"
    summary: ClassVar[str] = "keep the patches that receive most attention from all tokens"
    source: ClassVar[str] = "arXiv 2508.00553 (signal)"
    has_mass: ClassVar[bool] = True
    layer: int | None = None

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("received_attention", self.layer),)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 received attention."""
        return features.signals[self.needs[0]]
