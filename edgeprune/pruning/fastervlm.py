"""[CLS] attention: keep the patches that the [CLS] token of the vision encoder attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures


@dataclass(frozen=True)
class FasterVLM(PruningMethod):
    """Based on FasterVLM (https://arxiv.org/abs/2412.01818v1, https://github.com/Theia-4869/FasterVLM).

    The score is the [CLS] row of the attention map of one encoder block, averaged over the heads and not
    renormalised after the [CLS] column is dropped. The projector runs on the kept tokens only, which changes nothing:
    it works token by token.

    Parameters:
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "fastervlm"
    summary: ClassVar[str] = "keep the patches the [CLS] token attends to most"
    source: ClassVar[str] = "arXiv 2412.01818v1"
    has_mass: ClassVar[bool] = True
    layer: int | None = None

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("cls_attention", self.layer),)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 [CLS] attention."""
        return features.signals[self.needs[0]]
