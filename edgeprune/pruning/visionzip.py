"""[CLS], the patches it attends to most, and a few tokens that the others are merged into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, Signal, VisualFeatures
from edgeprune.pruning.contextual import Plan, contextual_rows
from edgeprune.pruning.orders import chosen_first, ranks

_CLS = Signal("cls_hidden")


@dataclass(frozen=True)
class VisionZip(PruningMethod):
    """VisionZip (https://arxiv.org/abs/2412.04467, https://github.com/dvlab-research/VisionZip).

    Emits [CLS], then the dominant patches in raster order, then contextual tokens. The remaining patches in raster
    order give the contextual targets at a fixed step; every other remaining patch joins the target with the most
    similar key (mean over heads, cosine), and a target's token is its feature plus the mean of those that joined.
    K counts all three kinds; keep_idx is -1 for [CLS] and for contextual tokens. K = N is not served.

    Parameters:
        contextual: share of K that is contextual, floor(K contextual) tokens; the paper's budgets are 10 of 64, 20 of
            128 and 30 of 192.
        layer: 0-based encoder block of attention and keys; without it the family's default.
    """

    name: ClassVar[str] = "visionzip"
    summary: ClassVar[str] = "keep [CLS] and what it attends to most, merge the rest into a few contextual tokens"
    source: ClassVar[str] = "arXiv 2412.04467"
    has_mass: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    gathers: ClassVar[bool] = False
    identity_at_full: ClassVar[bool] = False
    contextual: float = 0.15625
    layer: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.contextual < 1:
            raise PruningError(f"visionzip: contextual must be at least 0 and below 1, not {self.contextual:g}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("cls_attention", self.layer), Signal("keys", self.layer), _CLS)

    def valid_k(self, n: int) -> range:
        return range(1, n)

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds, for each K: `dominant` tokens with [CLS], `targets`, and the `step` between targets, (N+1,) each."""
        targets = [int(k * self.contextual) for k in range(n + 1)]
        steps = [max(1, (n + 1 - k + t) // max(1, t)) for k, t in enumerate(targets)]
        dominant = [k - t for k, t in enumerate(targets)]
        table = {"dominant": dominant, "targets": targets, "step": steps}
        return {**super().constants(n), **{key: torch.tensor(row) for key, row in table.items()}}

    def signal(self, features: VisualFeatures) -> Tensor:
        """(B,N) float32 [CLS] attention."""
        return features.signals[self.needs[0]]

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """-1 for [CLS], the dominant patches ascending, -1 for each contextual token; (B,K) int64."""
        assert scores is not None
        kept, iota = keep_slots.shape[0], features.constants["iota"]
        dominant = features.constants["dominant"][kept]
        order = chosen_first(ranks(scores, features.pad_mask) < dominant - 1, iota)
        behind_cls = torch.cat([torch.full_like(order[:, :1], -1), order], dim=1)[:, :kept]
        return torch.where(iota[:kept] < dominant, behind_cls, -1)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        constants, kept = features.constants, keep_idx.shape[1]
        plan = Plan(*(constants[name][kept] for name in ("dominant", "targets", "step")))
        keys = features.signals[self.needs[1]].to(torch.float32).mean(1)
        rows = contextual_rows(tokens, keys, keep_idx, plan, constants["iota"], features.pad_mask)
        return torch.where(constants["iota"][:kept].unsqueeze(1) == 0, features.signals[_CLS], rows)
