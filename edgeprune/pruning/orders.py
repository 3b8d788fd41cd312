"""Orders and masks that attention-based methods share. Everything is a TopK over the whole row, so that K may stay a
free dimension; N <= 3840 (TensorRT's TopK). Ties are not resolved in any promised way.
"""

from __future__ import annotations

import torch
from torch import Tensor


def descending(scores: Tensor, pad_mask: Tensor | None = None) -> Tensor:
    """(B,N) -> indices (B,N) int64, highest score first; tokens in padding (True in `pad_mask`) behind all others."""
    if pad_mask is not None:
        scores = scores.masked_fill(pad_mask, torch.finfo(scores.dtype).min)
    return torch.topk(scores, scores.shape[1], dim=1).indices


def inverse(order: Tensor) -> Tensor:
    """Place of every index in a permutation (B,N), int64."""
    return torch.topk(order.to(torch.float32), order.shape[1], dim=1, largest=False).indices


def ranks(scores: Tensor, pad_mask: Tensor | None = None) -> Tensor:
    """(B,N) -> 0 for the highest score, N - 1 for the lowest, int64."""
    return inverse(descending(scores, pad_mask))


def chosen_first(chosen: Tensor, iota: Tensor) -> Tensor:
    """Indices (B,N) int64: the chosen ones (B,N) bool in raster order, then the others in raster order."""
    count = iota.shape[0]
    place = iota.to(torch.float32)
    # float32 counts exactly far beyond any N
    key = torch.where(chosen, place, place + count)
    return torch.topk(key, count, dim=1, largest=False).indices


def unit(x: Tensor) -> Tensor:
    """(...,C) in float32, each vector of length 1."""
    x = x.to(torch.float32)
    return x / torch.sqrt((x * x).sum(-1, keepdim=True)).clamp_min(1e-12)
