"""Diversity from a pivot: the token of highest [CLS] attention, then tokens unlike all picked ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import Update, cosine, greedy
from edgeprune.pruning.parameters import require_choice
from edgeprune.pruning.selectors import repeat_for_batch

#: objective -> (state before the first pick, update); both minimise the state
_OBJECTIVES: Final[dict[str, tuple[float, Update]]] = {"max-sum": (0.0, torch.add), "k-center": (-2.0, torch.maximum)}


@dataclass(frozen=True)
class ToDRE(PruningMethod):
    """Adaptation of stage 1 of ToDRE (https://arxiv.org/abs/2505.18757); its stage 2 works inside the decoder.

    Cosine similarity of projected tokens. The paper does not say in which order kept tokens go on: raster order here.

    Parameters:
        objective: max-sum (v2 of the paper): least sum of similarities to the picked tokens; k-center (v1): least
            similarity to the nearest picked token.
        pivot: cls: highest [CLS] attention; random: a position fixed by `seed`, for encoders without [CLS].
        layer: 0-based encoder block of the [CLS] attention, negative from the end; the paper takes the last.
        seed: of the random pivot.
    """

    name: ClassVar[str] = "todre"
    summary: ClassVar[str] = "start at the token [CLS] attends to most, add projected tokens unlike all kept ones"
    source: ClassVar[str] = "adaptation of arXiv 2505.18757 (stage 1)"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    objective: str = "max-sum"
    pivot: str = "cls"
    layer: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice(self.name, "objective", self.objective, _OBJECTIVES)
        require_choice(self.name, "pivot", self.pivot, ("cls", "random"))

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("cls_attention", self.layer),) if self.pivot == "cls" else ()

    def constants(self, n: int) -> dict[str, Tensor]:
        if self.pivot == "cls":
            return super().constants(n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed)).to(torch.float32) / n
        return {**super().constants(n), "order": order}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32, highest at the pivot: [CLS] attention, or a fixed random order."""
        if self.pivot == "cls":
            return features.signals[self.needs[0]]
        return repeat_for_batch(features.constants["order"], features.batch)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        start, update = _OBJECTIVES[self.objective]
        near, state = cosine(features.tokens), torch.full_like(scores, start)
        iota = features.constants["iota"]
        return greedy(scores, state, near, torch.neg, update, keep_slots, iota, features.pad_mask)
