"""One pre-norm vision transformer for every tower served; clip.py and dinov2.py describe theirs as a VitSpec.

Shape letters: B images, P patches, S = P + 1 encoder tokens ([CLS] first), C width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.export.models.layers import (
    LayerNorm,
    Leaf,
    Linear,
    Vector,
    activation,
    attend,
    attention_map,
    empty,
)


@dataclass(frozen=True)
class VitSpec:
    """Sizes of a tower.

    Attributes:
        grid: (rows, columns) of patches of one picture.
        stored_grid: rows (= columns) of the checkpoint's position table.
        pre_norm: LayerNorm between the embeddings and the first block.
        layer_scale: the residual branches are scaled per channel.
        table_rank: dimensions of the checkpoint's position table, 2 or 3 (a leading one).
        cls_rank: dimensions of the checkpoint's [CLS] embedding, 1 or 3.
        renames: (pattern, replacement) from the tower's checkpoint names to ours.
    """

    width: int
    heads: int
    head_width: int
    layers: int
    mlp_width: int
    act: str
    eps: float
    patch_px: int
    grid: tuple[int, int]
    stored_grid: int
    pre_norm: bool
    layer_scale: bool
    patch_bias: bool
    qkv_bias: bool
    table_rank: int
    cls_rank: int
    renames: tuple[tuple[str, str], ...]

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


class Patches(Leaf):
    """Pixels to patch embeddings by one convolution."""

    def __init__(self, spec: VitSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(spec.width, 3, spec.patch_px, spec.patch_px, dtype=dtype)
        self.bias = empty(spec.width, dtype=dtype) if spec.patch_bias else None
        self.stride = spec.patch_px

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) -> (B,P,C)."""
        grid = functional.conv2d(pixels.to(self.weight.dtype), self.weight, self.bias, stride=self.stride)
        return grid.flatten(2).transpose(1, 2)


class Positions(Leaf):
    """The position table (1,S,C), resampled once at export where the checkpoint's grid is another."""

    def __init__(self, spec: VitSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(1, spec.patches + 1, spec.width, dtype=dtype)
        self.spec = spec

    def checkpoint_shape(self, name: str) -> tuple[int, ...]:
        shape = (self.spec.stored_grid**2 + 1, self.spec.width)
        return shape if self.spec.table_rank == 2 else (1, *shape)

    def from_checkpoint(self, name: str, tensor: Tensor) -> Tensor:
        table = tensor.reshape(1, -1, self.spec.width)
        side = self.spec.stored_grid
        if self.spec.grid == (side, side):
            return table
        patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        patches = functional.interpolate(patches, size=self.spec.grid, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1].float(), patches.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """x + s1 attention(norm1 x), then x + s2 mlp(norm2 x).

    Split so that queries and MLP may run for some rows only, and keys for a scoring block alone.
    """

    def __init__(self, spec: VitSpec, dtype: torch.dtype) -> None:
        super().__init__()
        inner = spec.heads * spec.head_width
        self.norm1 = LayerNorm(spec.width, spec.eps)
        self.q_proj = Linear(spec.width, inner, spec.qkv_bias, dtype)
        self.k_proj = Linear(spec.width, inner, spec.qkv_bias, dtype)
        self.v_proj = Linear(spec.width, inner, spec.qkv_bias, dtype)
        self.o_proj = Linear(inner, spec.width, True, dtype)
        self.norm2 = LayerNorm(spec.width, spec.eps)
        self.fc1 = Linear(spec.width, spec.mlp_width, True, dtype)
        self.fc2 = Linear(spec.mlp_width, spec.width, True, dtype)
        self.scale1 = Vector(spec.width, dtype) if spec.layer_scale else None
        self.scale2 = Vector(spec.width, dtype) if spec.layer_scale else None
        for scale in filter(None, (self.scale1, self.scale2)):
            scale.stored_shape = (spec.width,)
        self.act = activation(spec.act, "the vision tower")
        self.heads = spec.heads

    def split_heads(self, x: Tensor) -> Tensor:
        """(B,R,H*d) -> (B,H,R,d)."""
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def keys(self, normed: Tensor) -> Tensor:
        return self.split_heads(self.k_proj(normed))

    def values(self, normed: Tensor) -> Tensor:
        return self.split_heads(self.v_proj(normed))

    def queries(self, normed: Tensor) -> Tensor:
        return self.split_heads(self.q_proj(normed))

    def finish(self, x: Tensor, normed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Output of the block for the rows (B,R,C) of `x`; `normed` are the same rows after norm1."""
        return self.fed(self.attended(x, normed, keys, values))

    def attended(self, x: Tensor, normed: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """The first half of `finish`. `bias`: float32, added to the attention logits (B,H,R,S), or None."""
        mixed = attend(self.queries(normed), keys, values, bias)
        mixed = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return x + (mixed if self.scale1 is None else mixed * self.scale1.weight)

    def fed(self, x: Tensor) -> Tensor:
        """The second half of `finish`."""
        mlp = self.fc2(self.act(self.fc1(self.norm2(x))))
        return x + (mlp if self.scale2 is None else mlp * self.scale2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B,S,C) -> (B,S,C), all rows."""
        normed = self.norm1(x)
        return self.finish(x, normed, self.keys(normed), self.values(normed))

    def signal(self, kind: str, normed: Tensor, keys: Tensor) -> Tensor:
        """A kind of `pruning.base.SIGNAL_KINDS` over all S rows, from the block's normed input and its keys."""
        if kind == "keys":
            return keys
        if kind == "attention":
            return attention_map(self.queries(normed), keys)
        made: Tensor = getattr(self, kind)(normed, keys)
        return made

    def cls_attention(self, normed: Tensor, keys: Tensor) -> Tensor:
        """Mean over heads of the [CLS] row, (B,S) float32; no other row is computed."""
        return attention_map(self.queries(normed[:, :1]), keys).mean(1).squeeze(1)

    def received_attention(self, normed: Tensor, keys: Tensor) -> Tensor:
        """Mean over heads and all query rows, (B,S) float32."""
        return attention_map(self.queries(normed), keys).mean((1, 2))

    def wide_cls_attention(self, normed: Tensor, keys: Tensor) -> Tensor:
        """The [CLS] row of the attention of all heads joined to one, (B,S) float32."""
        joined = keys.transpose(1, 2).flatten(2)
        return attention_map(self.q_proj(normed[:, :1]), joined).squeeze(1)


class Vit(nn.Module):
    """The blocks of a tower that are listed; the others are dead code for the features asked for."""

    def __init__(self, spec: VitSpec, blocks: Iterable[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.cls = Vector(spec.width, dtype)
        self.cls.stored_shape = (1,) * (spec.cls_rank - 1) + (spec.width,)
        self.patches = Patches(spec, dtype)
        self.positions = Positions(spec, dtype)
        self.pre_norm = LayerNorm(spec.width, spec.eps) if spec.pre_norm else None
        self.blocks = nn.ModuleDict({str(index): Block(spec, dtype) for index in blocks})
        self.spec = spec

    def embed(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) -> (B,S,C), input of block 0."""
        patches = self.patches(pixels)
        cls = self.cls.weight.expand(patches.shape[0], 1, -1)
        x = torch.cat([cls, patches], dim=1) + self.positions.weight
        return x if self.pre_norm is None else self.pre_norm(x)

    def items(self) -> Iterator[tuple[int, Block]]:
        """(index, block) of the blocks held, in order."""
        return ((int(index), cast(Block, block)) for index, block in self.blocks.items())
