"""The vision graph with a stage before the encoder: background patches never enter it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from edgeprune.export.graphs import LetterboxedVisionGraph, VisionGraph, VisionPath
from edgeprune.export.models.background import BackgroundModules
from edgeprune.export.models.layers import TableRows
from edgeprune.export.models.projector import Projector
from edgeprune.export.models.vit import Vit
from edgeprune.pruning.background import FOREGROUND
from edgeprune.pruning.base import Stage
from edgeprune.pruning.selectors import raster_top_k
from edgeprune.pruning.stages import on_grid, rows_of, spread


class StagedVisionGraph(VisionGraph):
    """As VisionGraph, on the K1 patches of highest foreground logit and [CLS].

    Position embeddings are added first, so survivors keep their places; every block then runs on K1 + 1 tokens.
    `method` is the one behind the encoder: it sees K1 tokens in raster order. `keep_idx` and `scores` refer to the
    original grid.
    """

    def __init__(
        self,
        tower: Vit,
        projector: Projector,
        stage: Stage,
        path: VisionPath,
        static_keep: int | None,
        anchors: Mapping[str, TableRows] | None,
        background: BackgroundModules,
    ) -> None:
        super().__init__(tower, projector, stage.method, path, static_keep, anchors, background)
        self.register_buffer("grid_iota", torch.arange(tower.spec.patches, dtype=torch.int64), persistent=False)
        slots = None if stage.kept is None else torch.zeros(stage.kept)
        self.register_buffer("stage_slots", slots, persistent=False)

    def encode(
        self, pixels: Tensor, slots: Tensor, pad_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert self.background is not None
        logits = self.pruning(self.background.before, (FOREGROUND,), pixels)[FOREGROUND]
        entering = slots if self.stage_slots is None else cast(Tensor, self.stage_slots)
        places = self.pruning(raster_top_k, logits, entering, cast(Tensor, self.grid_iota), pad_mask)
        given = {FOREGROUND: torch.gather(logits, 1, places)}
        x = self.pruning(rows_of, self.vision_tower.embed(pixels), places)
        # gathered as numbers: TensorRT gathers no truth values
        among = None if pad_mask is None else torch.gather(pad_mask.float(), 1, places) > 0.5
        tokens, keep_idx, scores = self.through_blocks(x, pixels, given, slots, among)
        found = self.pruning(self.original, keep_idx, places), self.pruning(self.scores_of, scores, logits, places)
        return tokens, *found

    def scores_of(self, scores: Tensor | None, logits: Tensor, places: Tensor) -> Tensor | None:
        """(B,N): the logits, known of every patch, where they decide; else the survivors' scores, spread."""
        if self.stage_slots is None or self.method.needs == (FOREGROUND,):
            return logits
        return None if scores is None else spread(scores, places, logits.shape[1])

    def original(self, keep_idx: Tensor, places: Tensor) -> Tensor:
        """Indices into the survivors -> indices into the grid (B,K)."""
        if self.stage_slots is None:
            return places
        return torch.gather(places, 1, keep_idx) if self.method.gathers else on_grid(keep_idx, places)


class LetterboxedStagedVisionGraph(StagedVisionGraph):
    """The same with pad_mask (B,N) float32 as the second input: padding enters the encoder after all else."""

    forward = LetterboxedVisionGraph.forward  # type: ignore[assignment]
