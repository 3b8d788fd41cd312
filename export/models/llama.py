"""Llama-type decoder: MHA or GQA, RoPE (default, linear, llama3), RMSNorm, gated MLP.

Parameter names are those of transformers' LlamaModel. Shape letters: B batch, T new positions, P past positions,
S = P + T, D width, H heads, G = H / Hkv query heads per key head, d head width.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeprune.errors import CheckpointError
from edgeprune.export.models.layers import Linear, RMSNorm, activation, attend

ROPE_TYPES: Final = ("default", "linear", "llama3")


def inverse_frequencies(config: Any) -> Tensor:
    """RoPE frequencies (d/2,) float32 as transformers computes them.

    Raises:
        CheckpointError: a rope_type other than ROPE_TYPES, or rotation of a part of the head only.
    """
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise CheckpointError(f"the decoder's rope_type {kind!r} is not served; served are {', '.join(ROPE_TYPES)}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError("the decoder rotates only a part of each head (partial_rotary_factor): not served")
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    inverse = 1.0 / (rope["rope_theta"] ** steps)
    if kind == "linear":
        return inverse / rope["factor"]
    return _llama3(inverse, rope) if kind == "llama3" else inverse


def _llama3(inverse: Tensor, rope: dict[str, Any]) -> Tensor:
    """Llama 3.1: low frequencies are divided by `factor`, high ones kept, those between blended."""
    context, low, high = (
        rope[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    turns = context * inverse / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return inverse * (share + (1 - share) / rope["factor"])


class Attention(nn.Module):
    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.head_width = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
        kv, bias = config.num_key_value_heads * config.head_dim, config.attention_bias
        self.q_proj = Linear(width, inner, bias, dtype)
        self.k_proj = Linear(width, kv, bias, dtype)
        self.v_proj = Linear(width, kv, bias, dtype)
        self.o_proj = Linear(inner, width, bias, dtype)

    def heads(self, x: Tensor) -> Tensor:
        """(B,T,h*d) -> (B,h,T,d)."""
        return x.reshape(*x.shape[:-1], -1, self.head_width).transpose(1, 2)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B,T,D) -> (B,T,D) and the present keys and values, each (B,Hkv,S,d)."""
        q = rotate(self.heads(self.q_proj(x)), rotation)
        keys = torch.cat([past[0], rotate(self.heads(self.k_proj(x)), rotation)], dim=2)
        values = torch.cat([past[1], self.heads(self.v_proj(x))], dim=2)
        mixed = attend(q, keys, values, mask) if self.groups == 1 else self.grouped(q, keys, values, mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), (keys, values)

    def grouped(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attention of (B,H,T,d) over Hkv key heads. The queries of a group are stacked as rows of one matrix, so the
        cache is neither copied per query head nor read once per head."""
        batch, heads, new, width = q.shape
        stacked = q.reshape(batch, heads // self.groups, self.groups * new, width) * width**-0.5
        logits = torch.matmul(stacked, keys.transpose(-1, -2)).float()
        apart = logits.reshape(batch, heads // self.groups, self.groups, new, -1) + mask.unsqueeze(2)
        weights = torch.softmax(apart, dim=-1).to(values.dtype)
        mixed = torch.matmul(weights.reshape(logits.shape), values)
        return mixed.reshape(q.shape)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """RoPE on (B,h,T,d); `rotation` = cosines and sines (B,1,T,d/2)."""
    cos, sin = rotation
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Mlp(nn.Module):
    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, bias, dtype)
        self.up_proj = Linear(width, inner, bias, dtype)
        self.down_proj = Linear(inner, width, bias, dtype)
        self.act = activation(config.hidden_act, "the decoder")

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config, dtype)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, present = self.self_attn(self.input_layernorm(x), rotation, mask, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Llama(nn.Module):
    """Decoder layers and the last norm, without the embedding table."""

    def __init__(self, config: Any, layers: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, dtype) for _ in range(layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.inverse_frequencies: Tensor
        self.register_buffer("inverse_frequencies", inverse_frequencies(config), persistent=False)

    def forward(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(B,T,D) -> hidden state of the last position (B,D) and the present keys and values of every layer."""
        angles = position_ids.unsqueeze(-1).float() * self.inverse_frequencies
        rotation = (angles.cos().unsqueeze(1).to(x.dtype), angles.sin().unsqueeze(1).to(x.dtype))
        mask = additive_mask(attention_mask, x.shape[1])
        presents = []
        for layer, kv in zip(self.layers, past, strict=True):
            x, present = layer(x, rotation, mask, kv)
            presents.append(present)
        return self.norm(x[:, -1]), presents


def additive_mask(attention_mask: Tensor, new: int) -> Tensor:
    """(B,S) int64, 1 = may be attended to -> (B,1,T,S) float32, 0 where key j <= query and not masked."""
    positions = torch.cumsum(torch.ones_like(attention_mask), dim=1)
    queries = positions[:, attention_mask.shape[1] - new :]
    visible = (positions.unsqueeze(1) <= queries.unsqueeze(2)) & (attention_mask > 0).unsqueeze(1)
    hidden = torch.finfo(torch.float32).min
    return torch.where(visible, 0.0, hidden).unsqueeze(1)
