"""Evenly spaced tokens: no signal at all, full coverage of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.selectors import even_stride, even_stride_among, repeat_for_batch


@dataclass(frozen=True)
class Stride(PruningMethod):
    """Keeps the centre of each of K equal runs of the raster sequence."""

    name: ClassVar[str] = "stride"
    summary: ClassVar[str] = "keep evenly spaced tokens"
    source: ClassVar[str] = "-"
    has_scores: ClassVar[bool] = False

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """floor((2j + 1) N / 2K) for j < K, (B,K) int64; with a padding mask, of the tokens outside padding, K of which
        there must be."""
        if features.pad_mask is not None:
            return even_stride_among(~features.pad_mask, keep_slots, features.constants["iota"])
        return repeat_for_batch(even_stride(keep_slots, features.constants["iota"]), features.batch)
