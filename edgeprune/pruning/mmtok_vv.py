"""Coverage of the image by itself: the text-free half of MMTok."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.greedy import cosine, coverage_gain, greedy, without_padding
from edgeprune.pruning.parameters import require_between


@dataclass(frozen=True)
class MmtokVv(PruningMethod):
    """Adaptation of MMTok (https://arxiv.org/abs/2508.18264, https://github.com/Ironieser/MMTok): its vision-to-vision
    coverage without the text.

    Q_ij = softmax over j of cos(i, j) / temperature, on the encoder's features before the projector. Each pick
    maximises `sum_i max(0, Q_ij - covered_i)`, covered_i being the highest Q_ip of a picked p, 0 before the first
    pick. The paper's factors 1/N and 0.5 are common to all sums and left out.

    Parameters:
        temperature: 0.01 to 100; the paper's value is 0.2.
    """

    name: ClassVar[str] = "mmtok-vv"
    summary: ClassVar[str] = "keep tokens whose similarity covers all others"
    source: ClassVar[str] = "adaptation of arXiv 2508.18264 (no text)"
    has_scores: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    temperature: float = 0.2

    def __post_init__(self) -> None:
        require_between(self.name, "temperature", self.temperature, 0.01, 100.0)

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert features.tokens is not None
        pad = features.pad_mask
        likeness = without_padding(cosine(features.tokens) / self.temperature, pad, torch.finfo(torch.float32).min)
        covers = without_padding(torch.softmax(likeness, dim=2).transpose(1, 2).contiguous(), pad, 0.0)
        uncovered = torch.zeros_like(covers[:, 0])

        def score(covered: Tensor) -> Tensor:
            return coverage_gain(covers, covered)

        iota = features.constants["iota"]
        return greedy(score(uncovered), uncovered, covers, score, torch.maximum, keep_slots, iota, pad)
