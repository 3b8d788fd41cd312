"""What methods make of the question: its words, and how alike to them each visual token is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.orders import unit as unit_length


def words_of(features: VisualFeatures) -> tuple[Tensor, Tensor]:
    """The question's embeddings (B,M,D) float32 and its mask (B,M,1); a padded row is 0, whatever it holds, NaN too."""
    assert features.text_embeds is not None
    assert features.text_mask is not None
    mask = features.text_mask.unsqueeze(2)
    return features.text_embeds.to(torch.float32).masked_fill(mask == 0, 0.0), mask


def likeness_to_question(features: VisualFeatures, unit: Callable[[Tensor], Tensor] = unit_length) -> Tensor:
    """(B,N) float32: mean cosine of each token with the question's embeddings, 0 for an empty question.

    `unit`: (...,D) -> the same vectors in float32, of length 1.
    """
    assert features.tokens is not None
    words, mask = words_of(features)
    question = (unit(words) * mask).sum(1) / mask.sum(1).clamp_min(1)
    return torch.matmul(unit(features.tokens.to(torch.float32)), question.unsqueeze(2)).squeeze(2)
