"""The background scorer: a small vision transformer that labels every patch of a picture, and its linear relatives.

It computes in float32 whatever the dtype of the encoder, so that half precision does not change which patches go on.
Shape letters: B pictures, N patches, S encoder tokens, W width of the scorer, C width of the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeprune.export.models.layers import LayerNorm, Leaf, Linear, empty
from edgeprune.export.models.vit import Block, Patches, VitSpec
from edgeprune.pruning.base import Signal

#: float32 whatever the graph's dtype is
DTYPE: Final = torch.float32
#: the kind of signal that these modules serve
KIND: Final = "foreground"


@dataclass(frozen=True)
class ScorerSpec:
    """Sizes of a scorer and the pixels it was trained on.

    Attributes:
        grid: (rows, columns) of patches. patch_px: side of a patch.
        width, heads, layers, mlp_width: of the transformer.
        mean, std: what its pixels were normalised with, per channel, in units of 0..1.
    """

    grid: tuple[int, int]
    patch_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int = 128
    heads: int = 4
    layers: int = 2
    mlp_width: int = 512

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def vit(self) -> VitSpec:
        """The same sizes as the blocks of a tower read them."""
        return VitSpec(
            width=self.width, heads=self.heads, head_width=self.width // self.heads, layers=self.layers,
            mlp_width=self.mlp_width, act="gelu", eps=1e-6, patch_px=self.patch_px, grid=self.grid,
            stored_grid=self.grid[0], pre_norm=False, layer_scale=False, patch_bias=True, qkv_bias=True,
            table_rank=3, cls_rank=1, renames=(),
        )  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ScorerSpec:
        """The inverse of `to_json`. ValueError, TypeError: it is none."""
        fields: dict[str, Any] = json.loads(text)
        lists: dict[str, Any] = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**(fields | lists))


class PatchTable(Leaf):
    """A position table (1,N,W) without [CLS]."""

    def __init__(self, spec: ScorerSpec) -> None:
        super().__init__()
        self.weight = empty(1, spec.patches, spec.width, dtype=DTYPE)


class Scorer(nn.Module):
    """Patch embedding, positions, pre-norm blocks, norm, one logit per patch."""

    def __init__(self, spec: ScorerSpec) -> None:
        super().__init__()
        vit = spec.vit()
        self.patches = Patches(vit, DTYPE)
        self.positions = PatchTable(spec)
        self.blocks = nn.ModuleList(Block(vit, DTYPE) for _ in range(spec.layers))
        self.norm = LayerNorm(spec.width, vit.eps)
        self.head = Linear(spec.width, 1, True, DTYPE)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) float32 -> (B,N) float32: logit of foreground minus logit of background, raster order."""
        x = self.patches(pixels) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).squeeze(-1)


class TrunkHead(nn.Module):
    """One logit per patch from a hidden state of the encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, 1, True, DTYPE)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B,N,C) of any dtype -> (B,N) float32."""
        return self.linear(hidden.to(DTYPE)).squeeze(-1)


class BackgroundModules(nn.Module):
    """What serves the signal `foreground` of a method: the scorer, or a head per encoder block that it reads."""

    def __init__(self, needs: Iterable[Signal], spec: ScorerSpec, width: int, blocks: Mapping[Signal, int]) -> None:
        """`width`: C of the encoder; `blocks`: the block behind which a signal is read."""
        super().__init__()
        wanted = [signal for signal in needs if signal.kind == KIND]
        heads = sorted({blocks[signal] for signal in wanted if signal.layer is not None})
        self.scorer = Scorer(spec) if any(signal.layer is None for signal in wanted) else None
        self.trunk = nn.ModuleDict({str(block): TrunkHead(width) for block in heads})

    def before(self, needs: Iterable[Signal], pixels: Tensor) -> dict[Signal, Tensor]:
        """The scorer's logits (B,N), where a method wants them."""
        if self.scorer is None:
            return {}
        return {signal: self.scorer(pixels) for signal in needs if signal == Signal(KIND)}

    def behind(self, block: int, found: Mapping[Signal, Tensor]) -> dict[Signal, Tensor]:
        """Signals behind a block; of `foreground` its output (B,N,C) becomes logits (B,N)."""
        return {s: self.trunk[str(block)](value) if s.kind == KIND else value for s, value in found.items()}
