"""What an export works on: a recipe with everything it names looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeprune.export.background_weights import BackgroundWeights
from edgeprune.export.checkpoint import Checkpoint
from edgeprune.export.models.background import KIND
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.reference import reference_bytes
from edgeprune.export.text_encoder import TextEncoderWeights
from edgeprune.export.weights import WeightSource
from edgeprune.export.writer import GraphSet
from edgeprune.machine import memory_bytes
from edgeprune.pruning.base import PruningMethod
from edgeprune.recipe import ExportRecipe


@dataclass(frozen=True)
class Job:
    """A recipe with everything it names looked up.

    Attributes:
        processor: preprocessor_config.json, letter-boxing where the recipe does.
        preprocess: what the manifest says of it.
        methods: key (its name in the bundle) -> method and K at the default keep ratio.
        notes: sentences for the manifest.
    """

    recipe: ExportRecipe
    checkpoint: Checkpoint
    family: ModelFamily
    processor: dict[str, Any]
    preprocess: dict[str, Any]
    methods: dict[str, tuple[PruningMethod, int]]
    graphs: GraphSet
    background: BackgroundWeights | None
    text_encoder: TextEncoderWeights | None = None
    notes: tuple[str, ...] = ()

    @property
    def default(self) -> str:
        return next(iter(self.methods))

    @property
    def max_keep(self) -> float:
        """The largest keep ratio a request may ask for: what a stage before the encoder lets through caps it."""
        return min(self.recipe.keep_range[1], max(method.max_keep for method, _ in self.methods.values()))

    def source(self) -> WeightSource:
        """Weights of the checkpoint, text encoder and background scorer. PruningError: heads of another encoder."""
        source = self.checkpoint.source(self.family.canonical)
        if self.text_encoder is not None:
            source = self.text_encoder.source(source)
        if self.background is None:
            return source
        joined = self.background.source(source, self.preprocess)
        blocks = {
            b for m, _ in self.methods.values() for s, b in self.family.path(m).signal_blocks.items() if s.kind == KIND
        }
        if blocks:
            self.background.require_heads(blocks, self.checkpoint.id, self.family.patch_embedding(source))
        return joined

    def reference_bytes(self) -> int:
        """Memory that the torch reference needs."""
        return reference_bytes(self.family) + (0 if self.text_encoder is None else 2 * self.text_encoder.bytes())

    def reason_without_reference(self) -> str | None:
        """Why the torch reference cannot run here, or None."""
        need, free = self.reference_bytes(), memory_bytes()[1]
        if need <= free:
            return None
        return f"the torch reference needs about {need >> 20} MiB of memory and {free >> 20} MiB are free"
