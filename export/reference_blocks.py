"""The torch reference of methods that prune inside the encoder: transformers' own layers, one after the other, on the
tokens that are left, whole blocks and eager attention. It shares the method's maths with the graphs, and no module.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing


class HfBlock:
    """One layer of a CLIP or DINOv2 tower of transformers, in parts."""

    def __init__(self, layer: Any) -> None:
        parts: dict[str, Any] = dict(layer.named_children())
        clip = "self_attn" in parts
        self.norm1 = parts["layer_norm1" if clip else "norm1"]
        self.norm2 = parts["layer_norm2" if clip else "norm2"]
        self.attention = parts["self_attn" if clip else "attention"]
        self.mlp = parts["mlp"]
        self.scale1 = parts.get("layer_scale1", torch.nn.Identity())
        self.scale2 = parts.get("layer_scale2", torch.nn.Identity())

    def heads(self, x: Tensor, name: str) -> Tensor:
        """What a projection of the attention makes of the normed rows, (B,H,S,d)."""
        made = getattr(self.attention, name)(x)
        return made.reshape(*made.shape[:2], -1, self.attention.head_dim).transpose(1, 2)

    def attend(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B,S,C) behind the attention, and its map (B,H,S,S)."""
        mixed, weights = self.attention(self.norm1(x), attention_mask=bias)
        return x + self.scale1(mixed), weights

    def feed(self, x: Tensor) -> Tensor:
        return x + self.scale2(self.mlp(self.norm2(x)))


def thinned(layers: list[Any], x: Tensor, method: InEncoder, schedule: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Input (B,S,C) of the first layer -> visual tokens (B,K,C) behind the last one, keep_idx (B,K)."""
    iota = torch.arange(x.shape[1] - 1)
    passing = Passing(iota.expand(x.shape[0], -1))
    for index, (layer, count) in enumerate(zip(layers, schedule, strict=True)):
        block = HfBlock(layer)
        bias = None if passing.sizes is None else torch.log(passing.sizes)[:, None, None]
        normed = block.norm1(x)
        x, weights = block.attend(x, bias)
        keys, values = block.heads(normed, "k_proj"), block.heads(normed, "v_proj")
        view = BlockView(index, keys, values, partial(torch.mean, weights[:, :, 0], 1))
        step = method.thin(view, passing, count, schedule[-1], iota)
        x, passing = block.feed(step.rows(x)), step.passing
    order, keep_idx = method.finish(passing)
    tokens = x[:, 1:]
    if order is not None:
        tokens = torch.gather(tokens, 1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return tokens, keep_idx
