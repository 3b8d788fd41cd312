"""Tokens or whole rows of the picture that receive most attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import chosen_first, ranks


@dataclass(frozen=True)
class FoPru(PruningMethod):
    """Adaptation of FoPru (https://arxiv.org/abs/2411.14164; no code found, only the abstract's three steps are known).

    The significance of a patch is the attention it receives, mean over heads and queries; the paper leaves block and
    head reduction open. Kept tokens stay in raster order.

    Parameters:
        mode: "rank" keeps the K most significant patches; "row" the K / columns rows of greatest total significance,
            so K must be a multiple of the columns of a square grid.
        layer: 0-based encoder block, negative from the end; without it the family's default.
    """

    name: ClassVar[str] = "fopru"
    summary: ClassVar[str] = "adaptation of FoPru: keep the tokens (rank) or rows (row) that receive most attention"
    source: ClassVar[str] = "arXiv 2411.14164 (abstract)"
    has_mass: ClassVar[bool] = True
    mode: str = "rank"
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("rank", "row"):
            raise PruningError(f"fopru: mode must be rank or row, not {self.mode!r}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("received_attention", self.layer),)

    @property
    def needs_grid(self) -> bool:
        return self.mode == "row"

    @property
    def honours_padding(self) -> bool:
        return self.mode == "rank"  # a row of the picture may begin and end in padding

    def valid_k(self, n: int) -> Sequence[int]:
        side = math.isqrt(n)
        if self.mode == "rank":
            return super().valid_k(n)
        if side * side != n:
            raise PruningError(f"fopru: mode=row needs a square grid, and {n} visual tokens make none; use mode=rank")
        return range(side, n + 1, side)

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 received attention."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        if self.mode == "rank":
            return super().select(scores, keep_slots, features)
        assert scores is not None
        columns = features.grid[1]
        best = ranks(scores.reshape(scores.shape[0], *features.grid).sum(2)) * columns < keep_slots.shape[0]
        chosen = best.unsqueeze(2).expand(-1, -1, columns).flatten(1)
        return chosen_first(chosen, features.constants["iota"])[:, : keep_slots.shape[0]]
