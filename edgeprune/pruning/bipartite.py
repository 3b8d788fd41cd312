"""One round of bipartite merging: the tokens in even places join the tokens in odd places that they resemble most.

No scatter with a reduction, which TensorRT refuses: the mean is a product with a matrix of zeros and ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.pruning.orders import inverse, unit
from edgeprune.pruning.selectors import gather_tokens


def merge_round(tokens: Tensor, index: Tensor, drop: int, iota: Tensor) -> tuple[Tensor, Tensor]:
    """The `drop` even tokens of highest cosine to an odd one are averaged into it, all with the same weight.

    Args:
        tokens: (B,T,C). index: (B,T) int64, the patch of each token, -1 for a merged one.
        drop: 0 to T // 2. iota: (N,) int64, 0..N-1, N >= T.

    Returns:
        (B,T-drop,C) and (B,T-drop): the even tokens that are left, by falling cosine, then the odd ones.
    """
    directions = unit(tokens)
    near = torch.matmul(directions[:, ::2], directions[:, 1::2].transpose(1, 2))
    order = torch.topk(near.amax(2), near.shape[1], dim=1).indices
    joins = near.argmax(2).unsqueeze(1) == iota[: near.shape[2]].unsqueeze(1)
    if drop < near.shape[1]:
        joins = joins & (inverse(order) < drop).unsqueeze(1)
    weights, even, odd = joins.to(torch.float32), tokens[:, ::2], tokens[:, 1::2]
    total = odd.to(torch.float32) + torch.matmul(weights, even.to(torch.float32))
    merged = (total / (1 + weights.sum(2, keepdim=True))).to(tokens.dtype)
    places = torch.where(joins.any(2), -1, index[:, 1::2])
    if drop == near.shape[1]:
        return merged, places
    left = order[:, drop:]
    return torch.cat([gather_tokens(even, left), merged], dim=1), torch.cat(
        [torch.gather(index[:, ::2], 1, left), places], dim=1
    )
