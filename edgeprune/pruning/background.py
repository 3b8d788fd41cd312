"""Background-aware pruning: a small scorer labels every patch, and background patches never enter the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, Stage, VisualFeatures
from edgeprune.pruning.selectors import repeat_for_batch

#: logit of foreground minus logit of background by the scorer, known before the encoder runs
FOREGROUND: Final = Signal("foreground")


@dataclass(frozen=True)
class Background(PruningMethod):
    """Adaptation of BAViT (https://arxiv.org/abs/2410.09324), of which no code and no details are public.

    The paper puts a small vision transformer that labels tokens in front of a detector and drops background tokens.
    Here it stands in front of the encoder of a vision-language model: position embeddings are added first, then the K
    patches of highest foreground logit and [CLS] go through the encoder. `background@RATIO` fixes how many patches
    enter; K of them, by the same logit, leave. Sizes, labels, loss and the fixed count are our own.

    Parameters:
        gate: keep foreground patches first and background patches last, each in the order of [CLS] attention; the
            whole encoder runs, or with `@RATIO` the patches that enter it.
        trunk: take the logit from a linear head on the output of this encoder block (0-based, negative from the end)
            instead of the scorer; tokens are dropped behind the encoder.
        layer: encoder block of the [CLS] attention of `gate`, negative from the end; default: the family's.
    """

    name: ClassVar[str] = "background"
    summary: ClassVar[str] = "drop patches that a small scorer calls background, before the encoder"
    source: ClassVar[str] = "adaptation of BAViT, arXiv 2410.09324"
    where: ClassVar[str] = "before_encoder"
    nearest: ClassVar[tuple[str, ...]] = ("fastervlm", "received-attention", "stride")
    gate: bool = False
    trunk: int | None = None
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and not self.gate:
            raise PruningError("background: layer belongs to gate=true, which reads [CLS] attention; leave it out")
        if self.gate or self.trunk is not None:
            object.__setattr__(self, "where", "before_projector")

    @property
    def needs(self) -> tuple[Signal, ...]:
        foreground = Signal("foreground", self.trunk)
        return (foreground, Signal("cls_attention", self.layer)) if self.gate else (foreground,)

    @property
    def needs_grid(self) -> bool:
        return True

    def stage(self, n: int) -> Stage | None:
        return Stage(None, AllSurvivors()) if self.where == "before_encoder" else None

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32: the logit; with `gate` [CLS] attention of foreground, and that less 1 of background."""
        foreground = features.signals[self.needs[0]]
        if not self.gate:
            return foreground
        attention = features.signals[self.needs[1]]
        return torch.where(foreground > 0, attention, attention - 1)


@dataclass(frozen=True)
class AllSurvivors(PruningMethod):
    """What follows a stage that has already chosen the K tokens: nothing more is dropped."""

    name: ClassVar[str] = "all-survivors"
    summary: ClassVar[str] = "keep what the stage before the encoder let through"
    source: ClassVar[str] = "part of background"
    where: ClassVar[str] = "nowhere"
    has_scores: ClassVar[bool] = False

    def signal(self, features: VisualFeatures) -> None:
        """No scores of its own."""

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """0..K-1, (B,K) int64."""
        return repeat_for_batch(features.constants["iota"][: keep_slots.shape[0]], features.batch)
