"""Coverage of the question and of the image: MMTok."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.greedy import coverage_gain, greedy
from edgeprune.pruning.orders import unit
from edgeprune.pruning.parameters import require_between
from edgeprune.pruning.question import words_of

_HIDDEN = Signal("hidden")


@dataclass(frozen=True)
class MMTok(PruningMethod):
    """MMTok (https://arxiv.org/abs/2508.18264, https://github.com/Ironieser/MMTok).

    P_ij = softmax over j of cos(z_i, x_j) / text_temperature, z the embeddings of the question's m tokens, x the
    projected visual tokens; Q_ij = softmax over j of cos(i, j) / temperature on the encoder's features. Each pick
    maximises the coverage it adds, `sum_i max(0, M_ij - covered_i)` over the rows of M = [P / m; alpha Q / N];
    covered_i is the highest M_ip of a picked p, 0 before the first pick. Rows of padding (text_mask 0) cover nothing.
    Which words of the question count is up to the caller; the paper's LLaVA code leaves out function words.

    Parameters:
        alpha: 0 to 100, weight of the image's coverage; 0.5 in the paper.
        text_temperature: 0.001 to 100; 0.02 in the paper's LLaVA code, 0.01 for Qwen.
        temperature: 0.01 to 100; 0.2 in the paper.
    """

    name: ClassVar[str] = "mmtok"
    summary: ClassVar[str] = "keep tokens that cover the question and the image"
    source: ClassVar[str] = "arXiv 2508.18264"
    where: ClassVar[str] = "after_projector"
    text: ClassVar[bool] = True
    has_scores: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    nearest: ClassVar[tuple[str, ...]] = ("mmtok-vv", "stride")
    alpha: float = 0.5
    text_temperature: float = 0.02
    temperature: float = 0.2

    def __post_init__(self) -> None:
        require_between(self.name, "alpha", self.alpha, 0.0, 100.0)
        require_between(self.name, "text_temperature", self.text_temperature, 0.001, 100.0)
        require_between(self.name, "temperature", self.temperature, 0.01, 100.0)

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (_HIDDEN,)

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in raster order."""
        assert features.tokens is not None
        pad, hidden = features.pad_mask, features.signals[_HIDDEN]
        question, mask = words_of(features)
        words = softmax_of_cosines(question, features.tokens, self.text_temperature, pad)
        words = words * mask / mask.sum(1, keepdim=True).clamp_min(1)
        patches = softmax_of_cosines(hidden, hidden, self.temperature, pad) * self.alpha
        if pad is None:
            patches = patches / hidden.shape[1]
        else:  # padding of the picture is nothing to cover
            inside = (~pad).to(torch.float32).unsqueeze(2)
            patches = patches * inside / inside.sum(1, keepdim=True)
        covers = torch.cat([words, patches], dim=1).transpose(1, 2).contiguous()
        uncovered = torch.zeros_like(covers[:, 0])

        def score(covered: Tensor) -> Tensor:
            return coverage_gain(covers, covered)

        iota = features.constants["iota"]
        return greedy(score(uncovered), uncovered, covers, score, torch.maximum, keep_slots, iota, pad)


def softmax_of_cosines(rows: Tensor, columns: Tensor, temperature: float, pad_mask: Tensor | None) -> Tensor:
    """(B,M,C), (B,N,C) -> softmax over the N outside padding of cosine / temperature, (B,M,N) float32; a row of zeros
    resembles all alike."""
    near = torch.matmul(unit(rows), unit(columns).transpose(1, 2)) / temperature
    if pad_mask is not None:
        near = near.masked_fill(pad_mask.unsqueeze(1), torch.finfo(torch.float32).min)
    return torch.softmax(near, dim=2)
