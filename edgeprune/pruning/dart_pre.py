"""A few tokens of great length, and the tokens that resemble each of them least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.orders import descending, ranks, unit
from edgeprune.pruning.selectors import gather_tokens, raster_order


@dataclass(frozen=True)
class DartPre(PruningMethod):
    """Adaptation of DART (https://arxiv.org/abs/2502.11494, https://github.com/ZichenWen1/DART) to a place before the
    decoder; DART itself works inside it, with pivots by its keys and with pivots in the text. Not to be reported as
    DART.

    The `pivots` projected tokens of greatest L1 norm are kept. By falling norm, each pivot then takes the tokens of
    lowest cosine to it that are not kept yet, all pivots the same number. Ours: no text pivots; K may be any count:
    where K - pivots is no multiple of `pivots`, the first pivots take one token more; K below `pivots` keeps the first
    of them.

    Parameters:
        pivots: 1 to 16; DART has 4 in the image and 4 in the text.
    """

    name: ClassVar[str] = "dart-pre"
    summary: ClassVar[str] = "adaptation of DART: pivots of greatest norm, and what resembles each of them least"
    source: ClassVar[str] = "adaptation of arXiv 2502.11494"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    pivots: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.pivots <= 16:
            raise PruningError(f"{self.name}: pivots must be from 1 to 16, not {self.pivots}")

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `quota` (N+1,P): how many tokens each pivot takes beside itself, for each K."""
        spare = [max(0, k - self.pivots) for k in range(n + 1)]
        quota = [[k // self.pivots + (place < k % self.pivots) for place in range(self.pivots)] for k in spare]
        return {**super().constants(n), "quota": torch.tensor(quota)}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 L1 norm of the projected tokens."""
        assert features.tokens is not None
        return features.tokens.to(torch.float32).abs().sum(2)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        iota, pad = features.constants["iota"], features.pad_mask
        pivots, quota = min(self.pivots, iota.shape[0]), features.constants["quota"][keep_slots.shape[0]]
        directions = unit(features.tokens)
        wanted = gather_tokens(directions, descending(scores, pad)[:, :pivots])
        near = torch.matmul(wanted, directions.transpose(1, 2))
        rank = ranks(scores, pad)
        first = rank < pivots
        kept = first & (rank < keep_slots.shape[0])
        for place in range(pivots):
            left = -near[:, place] if pad is None else (-near[:, place]).masked_fill(pad, -5.0)
            # what is kept stands below every cosine, and below padding
            kept = kept | (ranks(left.masked_fill(first | kept, -9.0)) < quota[place])
        return raster_order(kept, keep_slots, iota)
