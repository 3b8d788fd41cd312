"""What methods make of the question: its words, and how alike to them each visual token is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.greedy import range_outside
from edgeprune.pruning.orders import unit as unit_length


def words_of(features: VisualFeatures) -> tuple[Tensor, Tensor]:
    """The question's embeddings (B,M,D) float32 and its mask (B,M,1); a padded row is 0, whatever it holds, NaN too."""
    assert features.text_embeds is not None
    assert features.text_mask is not None
    mask = features.text_mask.unsqueeze(2)
    return features.text_embeds.to(torch.float32).masked_fill(mask == 0, 0.0), mask


def likeness_to_question(
    features: VisualFeatures, unit: Callable[[Tensor], Tensor] = unit_length, tokens: Tensor | None = None
) -> Tensor:
    """(B,N) float32: mean cosine of each token with the question's embeddings, 0 for an empty question.

    `unit`: (...,D) -> the same vectors in float32, of length 1. `tokens`: what is compared, by default those of
    `features`.
    """
    tokens = features.tokens if tokens is None else tokens
    assert tokens is not None
    words, mask = words_of(features)
    question = (unit(words) * mask).sum(1) / mask.sum(1).clamp_min(1)
    return torch.matmul(unit(tokens.to(torch.float32)), question.unsqueeze(2)).squeeze(2)


def relevance(likeness: Tensor, pad: Tensor | None, parts: int, weight: float | None) -> Tensor:
    """(B,N) -> (B,N): in each of `parts` runs of a row, scaled to 1e-6 / range .. 1 outside padding, which is like the
    least; 1 where all are alike. With a weight `exp(weight / (2 (1 - weight)) * that)`."""
    runs = likeness.reshape(-1, likeness.shape[1] // parts)
    pad = None if pad is None else pad.reshape(runs.shape)
    low, high = range_outside(runs, pad)  # the scale is the picture's
    runs = runs if pad is None else torch.where(pad, low, runs)
    scaled = ((runs - low + 1e-6) / (high - low).clamp_min(1e-6)).reshape(likeness.shape)
    return scaled if weight is None else torch.exp(scaled * (weight / (2.0 * (1.0 - weight))))


def unit_softened(vectors: Tensor) -> Tensor:
    """(..., D) float32 over its length, which is `sqrt(sum of squares + 1e-6)`."""
    return vectors / (vectors.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt()
