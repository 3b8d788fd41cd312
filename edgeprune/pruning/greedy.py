"""The K-step greedy selection that many methods share: pick the best token, update what is known, repeat.

Exported, the K steps are one ONNX `Scan` over `keep_slots`, never an unrolled graph, so K stays an ordinary dynamic
dimension. A method states what the first pick maximises, what later ones maximise, and how a pick changes the state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from edgeprune.pruning.selectors import raster_order

#: state (B,M) -> scores (B,N), higher is picked
Score = Callable[[Tensor], Tensor]
#: state (B,M), row of the picked token (B,M) -> state (B,M)
Update = Callable[[Tensor, Tensor], Tensor]
Carry = tuple[Tensor, Tensor, Tensor]


def greedy(
    first: Tensor,
    state: Tensor,
    rows: Tensor,
    score: Score,
    update: Update,
    keep_slots: Tensor,
    iota: Tensor,
    pad_mask: Tensor | None = None,
) -> Tensor:
    """Picks K tokens one after the other: the first by `first`, each later one by `score` of the updated state.

    Ties go to the lowest index. A token is never picked twice.

    Args:
        first: (B,N) float32, what the first pick maximises.
        state: (B,M) float32, what is known before the first pick.
        rows: (B,N,M) float32, what a pick tells: row p updates the state when token p is picked.
        score, update: pure functions of tensors; one score for all later picks, one update after each pick.
        keep_slots: (K,) float32, only its length counts; 1 <= K <= N.
        iota: (N,) int64, 0..N-1.
        pad_mask: (B,N) bool, True for tokens that are picked only after all others, or None.

    Returns:
        (B,K) int64 in raster order.
    """

    def masked(scores: Tensor, taken: Tensor) -> Tensor:
        if pad_mask is not None:
            scores = scores.masked_fill(pad_mask, torch.finfo(scores.dtype).min)
        return scores.masked_fill(taken, -torch.inf)

    def step(carry: Carry, _: Tensor) -> tuple[Carry, Tensor]:
        now, known, taken = carry
        pick = now.argmax(dim=1, keepdim=True)
        row = torch.gather(rows, 1, pick.unsqueeze(-1).expand(-1, 1, rows.shape[2])).squeeze(1)
        known, taken = update(known, row), taken | (iota == pick)
        return (masked(score(known), taken), known, taken), pick.clone()

    none = torch.zeros_like(first, dtype=torch.bool)
    carry = (masked(first, none), state, none)
    if torch.compiler.is_exporting():
        carry = scan(step, carry, keep_slots)[0]
    else:
        for slot in keep_slots:
            carry = step(carry, slot)[0]
    return raster_order(carry[2], keep_slots, iota)


def cosine(tokens: Tensor) -> Tensor:
    """(B,N,C) of any dtype -> cosine similarity (B,N,N) float32; a zero vector is similar to nothing."""
    wide = tokens.float()
    unit = wide / wide.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-8)
    return torch.matmul(unit, unit.transpose(1, 2))


def without_padding(rows: Tensor, pad_mask: Tensor | None, value: float) -> Tensor:
    """(B,N,M) with `value` at every item m that lies in padding, `pad_mask` (B,M): padding is no item to stand for."""
    return rows if pad_mask is None else rows.masked_fill(pad_mask.unsqueeze(1), value)


def range_outside(scores: Tensor, pad_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Least and highest of the scores (B,N) outside padding, (B,1) each."""
    low = scores if pad_mask is None else scores.masked_fill(pad_mask, torch.inf)
    high = scores if pad_mask is None else scores.masked_fill(pad_mask, -torch.inf)
    return low.amin(1, keepdim=True), high.amax(1, keepdim=True)


def scaled_to_one(scores: Tensor, pad_mask: Tensor | None, eps: float) -> Tensor:
    """Scores (B,N) moved and scaled so that those outside padding run from 0 to 1; all alike, they are 0."""
    least, most = range_outside(scores, pad_mask)
    return (scores - least) / (most - least + eps)


def coverage_gain(covers: Tensor, covered: Tensor) -> Tensor:
    """Coverage that each token would add: sum over m of max(0, covers[b,n,m] - covered[b,m]), (B,N).

    Args:
        covers: (B,N,M), how well token n stands for item m. covered: (B,M), how well the picked tokens do.
    """
    return torch.relu(covers - covered.unsqueeze(1)).sum(2)
