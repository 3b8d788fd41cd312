"""Independent NumPy oracles of the pruning methods, written from the papers' maths, slow and plain."""

from __future__ import annotations

import numpy as np


def softmax_attention(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Attention map (H,S,S) in float64 from q, k (H,S,d)."""
    logits = np.einsum("hid,hjd->hij", q.astype(np.float64), k.astype(np.float64)) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def cls_attention(attention: np.ndarray) -> np.ndarray:
    """Row of [CLS] averaged over heads, [CLS] column dropped, not renormalised: (H,S,S) -> (S-1,)."""
    heads, size, _ = attention.shape
    return np.array([sum(attention[h, 0, j] for h in range(heads)) / heads for j in range(1, size)])


def received_attention(attention: np.ndarray) -> np.ndarray:
    """Mean over heads and all rows, [CLS] row included, [CLS] column dropped: (H,S,S) -> (S-1,)."""
    heads, size, _ = attention.shape
    return np.array([attention[:, :, j].sum() / (heads * size) for j in range(1, size)])


def highest_in_raster_order(scores: np.ndarray, keep: int) -> list[int]:
    """Indices of the `keep` highest scores, ascending."""
    by_score = sorted(range(len(scores)), key=lambda i: -scores[i])
    return sorted(by_score[:keep])


def even_stride(count: int, keep: int) -> list[int]:
    """Centre of each of `keep` equal runs of 0..count-1."""
    return [int((j + 0.5) * count / keep) for j in range(keep)]
