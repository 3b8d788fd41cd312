"""Tokens that project close to a few vocabulary entries, which carry no picture, go first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import scaled_to_one
from edgeprune.pruning.orders import unit
from edgeprune.pruning.parameters import require_between

#: vocabulary entries an export looks at per token, how many become anchors at most, and the share of tokens they need
NEAREST: Final = 3
ANCHORS: Final = 3
SHARE: Final = 0.05


@dataclass(frozen=True)
class EmbedLens(PruningMethod):
    """Adaptation of EmbedLens (https://github.com/EIT-NLP/EmbedLens), an analysis, to a fixed K.

    There, a projected token is a sink or dead, and removed, if one of a few anchors is among the 3 vocabulary entries
    nearest to it. Which and how many that are depends on picture and model. Ours: tokens are ranked by their highest
    cosine to an anchor's embedding, lowest kept; anchors are measured per checkpoint: the entries, 3 at most, that are
    among the nearest 3 of most tokens of the calibration pictures, each of at least 5 % of them.

    Parameters:
        anchors: token ids joined by -, as in 1141-26673-30296 (LLaVA-1.5-7B's in the source). Empty: measured at
            export.
        weight: 0 to 1, of the likeness to anchors; the rest goes to [CLS] attention, scaled to 0..1 per image.
        layer: 0-based encoder block of the attention; without it the family's default.
    """

    name: ClassVar[str] = "embedlens"
    summary: ClassVar[str] = "drop tokens whose projection is like the vocabulary entries that sinks are like"
    source: ClassVar[str] = "adaptation of EmbedLens (EIT-NLP)"
    where: ClassVar[str] = "after_projector"
    reads_tokens: ClassVar[bool] = True
    anchors: str = ""
    weight: float = 1.0
    layer: int | None = None

    def __post_init__(self) -> None:
        require_between(self.name, "weight", self.weight, 0.0, 1.0)
        if not all(part.isdigit() for part in self.anchors.split("-") if self.anchors):
            raise PruningError(f"embedlens: anchors must be token ids joined by -, such as 7-42, not {self.anchors!r}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        ids = tuple(int(part) for part in self.anchors.split("-")) if self.anchors else (0,) * ANCHORS
        attention = () if self.weight == 1 else (Signal("cls_attention", self.layer),)
        return (Signal("anchor_embeddings", anchors=ids), *attention)

    @property
    def uncalibrated(self) -> bool:
        return not self.anchors

    def calibrated(self, nearest: Tensor) -> EmbedLens:
        """With the anchors that `nearest` (tokens, 3) int64, the vocabulary entries nearest to many tokens, tell.

        Raises:
            PruningError: no entry is near to enough of them.
        """
        counts = torch.bincount(nearest.flatten())
        best = torch.sort(counts, descending=True, stable=True).indices[:ANCHORS]
        ids = [str(int(index)) for index in best if counts[index] >= SHARE * len(nearest)]
        if not ids:
            raise PruningError(f"embedlens finds no vocabulary entry that {SHARE:.0%} of the visual tokens are like")
        return dataclasses.replace(self, anchors="-".join(ids))

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32, higher is further from every anchor."""
        assert features.tokens is not None
        anchors = unit(features.signals[self.needs[0]])
        far = -torch.matmul(unit(features.tokens), anchors.transpose(1, 2)).amax(2)
        if self.weight == 1:
            return far
        attention = scaled_to_one(features.signals[self.needs[1]], features.pad_mask, 1e-6)
        return self.weight * far + (1 - self.weight) * attention
