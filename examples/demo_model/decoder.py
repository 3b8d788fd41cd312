"""SmolLM2 for training on a CPU: LoRA merged into the weights once per step, hand-written gradients.

Training computes in bf16 where the processor multiplies bf16 itself (AMX tiles or AVX-512 BF16: four times as fast as
float32 there) and in float32 elsewhere: emulated bf16 is eight times slower than float32. Scoring computes in float32,
as the shipped checkpoint does. The forward pass of a merged LoRA layer is one matrix product, its backward pass one
product for the input and two thin ones for A and B: nothing of the size of a frozen weight is ever differentiated.
q, k and v share one LoRA, as do gate and up.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

RANK, ALPHA = 16, 32
LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH = 30, 576, 9, 3, 64
EPSILON, ROPE_THETA, MASKED = 1e-5, 100000.0, -30000.0
FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def training_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it itself, else float32."""
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


class _FrozenProduct(torch.autograd.Function):
    """x (M, i) -> x W^T (M, o) with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.weight = weight
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        return grad @ ctx.weight, None


class _MergedProduct(torch.autograd.Function):
    """x (..., i) -> x (W + s B A)^T (..., o), with gradients for x, A (r, i) and B (o, r)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, _a: torch.Tensor, _b: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return F.linear(x, layer.merged)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        (x,), layer = ctx.saved_tensors, ctx.layer
        grad_rows, x_rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = (grad_rows @ layer.merged).view_as(x)
        grad_a = (grad_rows @ layer.rounded_b).t() @ x_rows
        grad_b = grad_rows.t() @ (x_rows @ layer.rounded_a.t())
        return grad_x, grad_a.float() * layer.scale, grad_b.float() * layer.scale, None


class LoraLinear(nn.Module):
    """One frozen matrix (o, i) with a float32 LoRA of rank r; call `merge` after every change of the LoRA."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype, rank: int = RANK, alpha: int = ALPHA) -> None:
        super().__init__()
        out_width, in_width = weight.shape
        self.scale = alpha / rank
        self.base = weight.to(dtype)
        self.merged = self.base.clone()
        self.lora_a = nn.Parameter(torch.randn(rank, in_width) / math.sqrt(in_width))
        self.lora_b = nn.Parameter(torch.zeros(out_width, rank))
        self.merge()

    @torch.no_grad()
    def merge(self) -> None:
        """Recompute the merged weights from the LoRA rounded to bf16 (which is how it ships)."""
        self.rounded_a, self.rounded_b = (x.bfloat16().to(self.base.dtype) for x in (self.lora_a, self.lora_b))
        torch.addmm(self.base, self.rounded_b, self.rounded_a, alpha=self.scale, out=self.merged)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., i) -> (..., o)."""
        return _MergedProduct.apply(x, self.lora_a, self.lora_b, self)


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype)


def _add_norm(x: torch.Tensor, update: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x + update
    return x, _rms_norm(x, weight)


def _gated(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def _split_heads(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """qkv (B, T, 960), cos and sin (B, T, 64) -> rotated q, k and v, each (B, 9, T, 64), k and v repeated."""
    batch, length, _ = qkv.shape
    heads = qkv.view(batch, length, HEADS + 2 * KV_HEADS, HEAD_WIDTH)
    rotating, value = heads[:, :, : HEADS + KV_HEADS], heads[:, :, HEADS + KV_HEADS :].transpose(1, 2)
    low, high = rotating.chunk(2, -1)
    rotated = rotating * cos[:, :, None] + torch.cat((-high, low), -1) * sin[:, :, None]
    rotated = rotated.transpose(1, 2)
    query = rotated[:, :HEADS].contiguous()
    shape = (batch, KV_HEADS, HEADS // KV_HEADS, length, HEAD_WIDTH)
    key, value = (x.unsqueeze(2).expand(shape).reshape(query.shape) for x in (rotated[:, HEADS:], value))
    return query, key, value


def _masked_softmax(scores: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (scores.float() * HEAD_WIDTH**-0.5 + bias).softmax(-1).to(scores.dtype)


_POINTWISE = {
    "rms_norm": _rms_norm,
    "add_norm": _add_norm,
    "gated": _gated,
    "split_heads": _split_heads,
    "masked_softmax": _masked_softmax,
}


class Decoder(nn.Module):
    """The decoder's layers over a prepared sequence of embeddings.

    Args:
        state: float32 weights under LlamaModel names (`edgeprune.export.demo.decoder_state`).
        dtype: of the frozen and merged weights and of the sequence.
        compiled: fuse the element-wise parts with torch.compile; slower to start, faster afterwards.
    """

    def __init__(self, state: dict[str, torch.Tensor], dtype: torch.dtype, compiled: bool = False) -> None:
        super().__init__()
        self.embedding = state["embed_tokens.weight"].to(dtype)
        self.layers = nn.ModuleList()
        self.norms: list[torch.Tensor] = []
        for index in range(LAYERS):
            prefix = f"layers.{index}."
            linears = {
                key: LoraLinear(torch.cat([state[f"{prefix}{name}.weight"] for name in names]), dtype)
                for key, names in FUSED.items()
            }
            self.layers.append(nn.ModuleDict(linears))
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.norms.append(state[f"{prefix}{norm}.weight"].to(dtype))
        self.norms.append(state["norm.weight"].to(dtype))
        self.frequencies = ROPE_THETA ** -(torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
        self.ops = {name: torch.compile(op, dynamic=True) if compiled else op for name, op in _POINTWISE.items()}

    def merge(self) -> None:
        """Bring every merged weight up to date with its LoRA."""
        for layer in self.layers:
            for linear in layer.values():
                linear.merge()

    def _rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[..., None].float() * self.frequencies
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(self.embedding.dtype), angles.sin().to(self.embedding.dtype)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """x (B, T, 576), positions (B, T), allowed (B, T, T) bool -> last hidden state after its norm."""
        batch, length, width = x.shape
        ops, (cos, sin) = self.ops, self._rotation(positions)
        bias = torch.zeros(batch, 1, length, length).masked_fill_(~allowed[:, None], MASKED)
        hidden = ops["rms_norm"](x, self.norms[0])
        for index, layer in enumerate(self.layers):
            query, key, value = ops["split_heads"](layer["qkv"](hidden), cos, sin)
            mixed = ops["masked_softmax"](query @ key.transpose(-1, -2), bias) @ value
            mixed = mixed.transpose(1, 2).reshape(batch, length, width)
            x, hidden = ops["add_norm"](x, layer["out"](mixed), self.norms[2 * index + 1])
            mixed = layer["down"](ops["gated"](layer["gate_up"](hidden)))
            x, hidden = ops["add_norm"](x, mixed, self.norms[2 * index + 2])
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (M, 576) -> float32 logits (M, 49152); give it only the positions that matter."""
        return _FrozenProduct.apply(hidden.contiguous(), self.embedding).float()
