"""Greedy choice of a diverse set: each pick makes the determinant of the kernel over the picks as large as it can.

The recurrence of Chen et al. (https://arxiv.org/abs/1709.05135): one Cholesky row per pick, so a step costs K N instead
of a determinant per candidate. Exported, the K steps are one ONNX `Scan`.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from edgeprune.pruning.selectors import raster_order

#: gains at or below this share of the largest are rounding: to divide by their square root would blow it up
LEAST_GAIN: Final = 1e-6

Carry = tuple[Tensor, Tensor, Tensor]


def greedy_determinant(kernel: Tensor, keep_slots: Tensor, iota: Tensor, pad_mask: Tensor | None = None) -> Tensor:
    """Picks K tokens one after the other, each of the largest gain `det(kernel over picks and token) / det(picks)`.

    Ties go to the lowest index. A token is never picked twice. Beyond the rank of the kernel there is nothing left to
    gain, and the other tokens follow in the order of what rounding left of their gains.

    Args:
        kernel: (B,N,N) float32, symmetric, positive semidefinite.
        keep_slots: (K,) float32, only its length counts; 1 <= K <= N.
        iota: (N,) int64, 0..N-1.
        pad_mask: (B,N) bool, True for tokens that are picked only after all others, or None.

    Returns:
        (B,K) int64 in raster order.
    """
    numbers = iota[: keep_slots.shape[0]].to(torch.float32)

    def step(carry: Carry, number: Tensor) -> tuple[Carry, Tensor]:
        gains, rows, taken = carry
        open_gains = gains if pad_mask is None else gains.masked_fill(pad_mask, torch.finfo(gains.dtype).min)
        pick = open_gains.masked_fill(taken, -torch.inf).argmax(dim=1, keepdim=True)
        of_pick = torch.gather(kernel, 1, pick.unsqueeze(2).expand(-1, 1, kernel.shape[2])).squeeze(1)
        known = torch.gather(rows, 2, pick.unsqueeze(2).expand(-1, rows.shape[1], 1))
        gain = torch.gather(gains, 1, pick)
        new = (of_pick - (known * rows).sum(1)) / torch.maximum(gain, least).sqrt()
        new = torch.where(gain > least, new, 0.0)
        here = (numbers == number).to(torch.float32).reshape(1, -1, 1)
        return (gains - new * new, rows + here * new.unsqueeze(1), taken | (iota == pick)), pick.clone()

    gains = torch.diagonal(kernel, dim1=1, dim2=2).clone()
    least = (gains.amax(1, keepdim=True) * LEAST_GAIN).clamp_min(1e-30)
    carry = (
        gains,
        gains.new_zeros(gains.shape[0], keep_slots.shape[0], gains.shape[1]),
        torch.zeros_like(gains, dtype=torch.bool),
    )
    if torch.compiler.is_exporting():
        carry = scan(step, carry, numbers)[0]
    else:
        for number in numbers:
            carry = step(carry, number)[0]
    return raster_order(carry[2], keep_slots, iota)
