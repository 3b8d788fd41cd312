"""No pruning: every visual token, in raster order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.selectors import repeat_for_batch


@dataclass(frozen=True)
class NoPruning(PruningMethod):
    """Keeps all N tokens; the baseline every other method is compared with."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "keep every visual token"
    source: ClassVar[str] = "-"
    where: ClassVar[str] = "nowhere"
    dynamic_keep: ClassVar[bool] = False
    has_scores: ClassVar[bool] = False

    def valid_k(self, n: int) -> Sequence[int]:
        return (n,)

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """All indices, (B,N) int64."""
        return repeat_for_batch(features.constants["iota"], features.batch)
