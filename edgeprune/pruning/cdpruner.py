"""Conditional diversity: tokens that differ from each other and have to do with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.dpp import greedy_determinant
from edgeprune.pruning.orders import unit
from edgeprune.pruning.parameters import require_between, require_choice
from edgeprune.pruning.question import likeness_to_question, relevance, unit_softened

PRESETS: Final = ("llm", "openvino-split", "paper")
_SPACE: Final = Signal("text_space")


@dataclass(frozen=True)
class CDPruner(PruningMethod):
    """Adaptation of CDPruner (https://arxiv.org/abs/2506.10967, https://github.com/Theia-4869/CDPruner). By default it
    reads the question as the decoder's own embeddings, after https://github.com/openvinotoolkit/openvino.genai.

    Relevance of a token: mean over the question's tokens of the cosine with its projection, scaled to 0..1 over the
    image (1e-6 / range at its least), then `exp(weight / (2 (1 - weight)) * relevance)`. The picks maximise greedily
    the determinant of `relevance_i * cos(i, j) * relevance_j`. The paper reads the question with CLIP's text tower and
    takes the negated mean over its segments of the cosine with the token's visual projection.

    Parameters:
        preset: llm; openvino-split does the same in each half of the raster sequence by itself, K / 2 tokens of each;
            paper needs a text encoder (`export --text-encoder`).
        weight: 0 (similarity alone) to 0.99, of the relevance; default: 0.5 as in that code, and for the paper's preset
            the scaled relevance itself as in its own.
    """

    name: ClassVar[str] = "cdpruner"
    summary: ClassVar[str] = "keep projected tokens that differ and are relevant to the question (DPP)"
    source: ClassVar[str] = "adaptation of arXiv 2506.10967"
    where: ClassVar[str] = "after_projector"
    text: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    preset: str = "llm"
    weight: float | None = None

    def __post_init__(self) -> None:
        require_choice(self.name, "preset", self.preset, PRESETS)
        require_between(self.name, "weight", self.weight or 0.0, 0.0, 0.99)

    @property
    def text_encoder(self) -> bool:
        return self.preset == "paper"

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (_SPACE,) if self.text_encoder else ()

    @property
    def parts(self) -> int:
        """Into how many runs of the raster sequence the tokens are divided."""
        return 2 if self.preset == "openvino-split" else 1

    def valid_k(self, n: int) -> Sequence[int]:
        if n % self.parts:
            raise PruningError(f"{self.name}: {self.preset} halves the tokens, and {n} of them have no halves")
        return range(self.parts, n + 1, self.parts)

    def constants(self, n: int) -> dict[str, Tensor]:
        """`iota` (N/parts,) of one run, and the `starts` (parts,1) of the runs, int64."""
        size = n // self.parts
        return {"iota": torch.arange(size), "starts": torch.arange(0, n, size).unsqueeze(1)}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 relevance: above 0, with a weight at least 1."""
        paper = self.text_encoder
        space = features.signals[_SPACE] if paper else None
        likeness = likeness_to_question(features, unit if paper else unit_softened, space)
        weight = 0.5 if self.weight is None and not paper else self.weight
        return relevance(-likeness if paper else likeness, features.pad_mask, self.parts, weight)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        runs = scores.shape[0] * self.parts, scores.shape[1] // self.parts
        tokens = (unit if self.text_encoder else unit_softened)(features.tokens.float()).reshape(*runs, -1)
        relevant = scores.reshape(runs)
        kernel = torch.matmul(tokens, tokens.transpose(1, 2)) * relevant.unsqueeze(1) * relevant.unsqueeze(2)
        pad = None if features.pad_mask is None else features.pad_mask.reshape(runs)
        kept = greedy_determinant(kernel, keep_slots[:: self.parts], features.constants["iota"], pad)
        return (kept.reshape(scores.shape[0], self.parts, -1) + features.constants["starts"]).flatten(1)
