"""Selectors that several methods share. K is always the length of `keep_slots`, so that it stays an ordinary dynamic
dimension of the exported graph. Only ops that ONNX Runtime and TensorRT both take; N <= 3840 (TensorRT's TopK).
"""

from __future__ import annotations

import torch
from torch import Tensor


def raster_top_k(scores: Tensor, keep_slots: Tensor, iota: Tensor, pad_mask: Tensor | None = None) -> Tensor:
    """Indices of the K highest scores, in ascending (raster) order.

    Args:
        scores: (B,N) float32, without ties.
        keep_slots: (K,) float32, only its length counts; 1 <= K <= N.
        iota: (N,) int64, 0..N-1.
        pad_mask: (B,N) bool, True for tokens that are kept only after all others, or None.

    Returns:
        (B,K) int64.
    """
    count = scores.shape[1]
    if pad_mask is not None:
        scores = scores.masked_fill(pad_mask, torch.finfo(scores.dtype).min)
    order = torch.topk(scores, count, dim=1).indices
    rank = torch.topk(order.to(torch.float32), count, dim=1, largest=False).indices
    return raster_order(rank < keep_slots.shape[0], keep_slots, iota)


def raster_order(kept: Tensor, keep_slots: Tensor, iota: Tensor) -> Tensor:
    """(B,N) bool with K True in every row -> their indices (B,K) int64, ascending."""
    positions = iota.to(torch.float32)
    # kept tokens sort before all others and among themselves by position; float32 is exact far beyond any N
    key = torch.where(kept, positions, positions + iota.shape[0])
    order = torch.topk(key, iota.shape[0], dim=1, largest=False).values
    return order[:, : keep_slots.shape[0]].to(torch.int64)


def even_stride(keep_slots: Tensor, iota: Tensor) -> Tensor:
    """Centres of K equal runs of the raster sequence: floor((2j + 1) N / 2K), (K,) int64, strictly ascending."""
    kept, count = keep_slots.shape[0], iota.shape[0]
    return torch.div((2 * iota[:kept] + 1) * count, 2 * kept, rounding_mode="floor")


def even_stride_among(chosen: Tensor, keep_slots: Tensor, iota: Tensor) -> Tensor:
    """`even_stride` of the raster sequence of the chosen tokens (B,N) bool, of which there are at least K; (B,K)."""
    positions, kept = iota.to(torch.float32), keep_slots.shape[0]
    sequence = torch.topk(torch.where(chosen, positions, positions + iota.shape[0]), iota.shape[0], largest=False)
    count = chosen.to(torch.int64).sum(1, keepdim=True)
    place = torch.div((2 * iota[:kept] + 1) * count, 2 * kept, rounding_mode="floor")
    return torch.gather(sequence.indices, 1, place)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """(B,N,C) gathered at (B,K) -> (B,K,C)."""
    return torch.gather(tokens, 1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def repeat_for_batch(index: Tensor, batch: Tensor) -> Tensor:
    """(K,) -> (B,K), B being the first dimension of `batch`."""
    return index.unsqueeze(0).expand(batch.shape[0], -1)
