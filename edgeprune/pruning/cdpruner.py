"""Conditional diversity: tokens that differ from each other and have to do with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.dpp import greedy_determinant
from edgeprune.pruning.greedy import range_outside
from edgeprune.pruning.parameters import require_between, require_choice
from edgeprune.pruning.question import likeness_to_question

PRESETS: Final = ("llm", "openvino-split")


@dataclass(frozen=True)
class CDPruner(PruningMethod):
    """Adaptation of CDPruner (https://arxiv.org/abs/2506.10967, https://github.com/Theia-4869/CDPruner) that reads the
    question as the decoder's own embeddings, after https://github.com/openvinotoolkit/openvino.genai.

    Relevance of a token: mean over the question's tokens of the cosine with its projection, scaled to 0..1 over the
    image (1e-6 / range at its least), then `exp(weight / (2 (1 - weight)) * relevance)`. The picks maximise greedily
    the determinant of `relevance_i * cos(i, j) * relevance_j`. The paper reads the question with CLIP's text tower.

    Parameters:
        preset: llm; openvino-split does the same in each half of the raster sequence by itself, K / 2 tokens of each.
        weight: 0 (similarity alone) to 0.99, of the relevance; that code's default is 0.5.
    """

    name: ClassVar[str] = "cdpruner"
    summary: ClassVar[str] = "keep projected tokens that differ and are relevant to the question (DPP)"
    source: ClassVar[str] = "adaptation of arXiv 2506.10967"
    where: ClassVar[str] = "after_projector"
    text: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    preset: str = "llm"
    weight: float = 0.5

    def __post_init__(self) -> None:
        require_choice(self.name, "preset", self.preset, PRESETS)
        require_between(self.name, "weight", self.weight, 0.0, 0.99)

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
        """(B,N) float32 weighted relevance, at least 1."""
        likeness = likeness_to_question(features, unit)
        mean = likeness.reshape(-1, likeness.shape[1] // self.parts)
        pad = None if features.pad_mask is None else features.pad_mask.reshape(mean.shape)
        low, high = range_outside(mean, pad)  # the scale is the picture's
        mean = mean if pad is None else torch.where(pad, low, mean)
        # where all are alike, none is more relevant
        scaled = (mean - low + 1e-6) / (high - low).clamp_min(1e-6)
        power = self.weight / (2.0 * (1.0 - self.weight))
        return torch.exp(scaled * power).reshape(likeness.shape)

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert scores is not None
        assert features.tokens is not None
        iota, parts = features.constants["iota"], self.parts
        images, count = scores.shape[0], scores.shape[1] // parts
        tokens = unit(features.tokens.float()).reshape(images * parts, count, -1)
        relevance = scores.reshape(images * parts, count)
        kernel = torch.matmul(tokens, tokens.transpose(1, 2)) * relevance.unsqueeze(1) * relevance.unsqueeze(2)
        pad = None if features.pad_mask is None else features.pad_mask.reshape(images * parts, count)
        kept = greedy_determinant(kernel, keep_slots[::parts], iota, pad)
        return (kept.reshape(images, parts, -1) + features.constants["starts"]).flatten(1)


def unit(vectors: Tensor) -> Tensor:
    """(..., D) float32 over its length, which is `sqrt(sum of squares + 1e-6)`."""
    return vectors / (vectors.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt()
