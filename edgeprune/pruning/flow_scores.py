"""How FlowCut (arXiv 2505.19536) scores the patches in a block of the encoder, and how many it would leave."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def flow(attention: Tensor, values: Tensor) -> Tensor:
    """Scores (B,n) of the patches from their [CLS] attention (B,n) and the values (B,H,n+1,d) of all tokens."""
    alike = torch.softmax(torch.matmul(values[:, :, :1], values.transpose(2, 3)), dim=-1).mean(1)[:, 0, 1:]
    length = values.mean(1)[:, 1:].abs().sum(2)
    return (attention / attention.sum(1, keepdim=True) + alike / alike.sum(1, keepdim=True)) * length


def left_by_entropy(attention: Tensor, k: int, blocks_left: int) -> int:
    """Patches that a block leaves: the more even their [CLS] attention (B,n), the more of them.

    Args:
        k: patches wanted in the end, below n. blocks_left: up to the last that drops; 0 leaves k.
    """
    if blocks_left == 0:
        return k
    entering = attention.shape[1]
    share = attention / attention.sum(1, keepdim=True)
    evenness = -(share * torch.log(share)).sum(1) / math.log(entering)
    dropped = float(((entering - k) / math.sqrt(blocks_left) * (1 - evenness**2)).max())
    return max(entering - round(dropped), k)


def dropping_blocks(blocks: int) -> range:
    """Every second block; the last of them lies right before the block that makes the features."""
    return range(blocks % 2, blocks - 1, 2)
