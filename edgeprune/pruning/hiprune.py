"""Anchors of a middle block with their neighbours, then the tokens that a deep block attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.orders import ranks
from edgeprune.pruning.selectors import raster_top_k


@dataclass(frozen=True)
class HiPrune(PruningMethod):
    """HiPrune (https://arxiv.org/abs/2508.00553, https://github.com/Danielement321/HiPrune).

    round(alpha K / 5) anchors are the patches that receive most attention in a middle block; they and their four
    neighbours are kept, and the rest of K goes to the patches that receive most attention in a deep block. As in the
    paper's code a neighbour beyond the row's end is the next row's, one beyond the picture is the first or last patch.

    Parameters:
        alpha: share of K that anchors and neighbours get, in [0, 1].
        object_layer: 0-based middle block; without it the block behind a third of the encoder, which is block 8 of
            CLIP ViT-L as in the paper's code; for other depths the rule is an adaptation.
        layer: 0-based deep block; without it the family's default.
    """

    name: ClassVar[str] = "hiprune"
    summary: ClassVar[str] = "keep anchors of a middle block, their neighbours, and what a deep block attends to"
    source: ClassVar[str] = "arXiv 2508.00553"
    has_mass: ClassVar[bool] = True
    alpha: float = 0.1
    object_layer: int | None = None
    layer: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise PruningError(f"hiprune: alpha must be from 0 to 1, not {self.alpha:g}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        middle = Signal("received_attention", self.object_layer, 1 / 3 if self.object_layer is None else None)
        return (middle, Signal("received_attention", self.layer))

    @property
    def needs_grid(self) -> bool:
        return True

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `anchors` (N+1,): how many for each K, rounded as Python does (half to even)."""
        anchors = [round(k * self.alpha / 5) for k in range(n + 1)]
        return {**super().constants(n), "anchors": torch.tensor(anchors, dtype=torch.int64)}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 attention received in the deep block."""
        return features.signals[self.needs[1]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        assert scores is not None
        wanted = features.constants["anchors"][keep_slots.shape[0]]
        anchors = ranks(features.signals[self.needs[0]], features.pad_mask) < wanted
        kept = neighbourhood(anchors, features.grid[1], features.constants["iota"])
        # the neighbourhood before all others; ranks, because a sum with the attention itself would round it
        priority = scores.shape[1] * kept - ranks(scores, features.pad_mask)
        return raster_top_k(priority, keep_slots, features.constants["iota"], features.pad_mask)


def neighbourhood(marked: Tensor, columns: int, iota: Tensor) -> Tensor:
    """(B,N) bool -> (B,N) float32, 1 at i, i - 1, i + 1, i - columns, i + columns (clamped to 0..N-1) of every mark."""
    mark = marked.to(torch.float32)
    count = iota.shape[0]
    padded = functional.pad(mark, (columns, columns))
    shifted = [padded[:, columns + step : columns + step + count] for step in (0, 1, -1, columns, -columns)]
    near = torch.stack(shifted).amax(0)
    first = mark[:, :columns].amax(1, keepdim=True) * (iota == 0)
    last = mark[:, count - columns :].amax(1, keepdim=True) * (iota == count - 1)
    return torch.maximum(near, torch.maximum(first, last))
