"""The walk through a vision tower whose blocks prune: shapes shrink on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from edgeprune.export.models.vit import Vit
from edgeprune.export.part import PruningPart
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing
from edgeprune.pruning.selectors import gather_tokens, repeat_for_batch

#: (a block before its attention, what came with it) -> visual tokens that leave it
Count = Callable[[BlockView, Passing], int]


def thin_through(
    tower: Vit, method: InEncoder, pixels: Tensor, iota: Tensor, k: int, count: Count, part: PruningPart | None = None
) -> tuple[Tensor, Tensor]:
    """pixels (B,3,S,S) -> visual tokens (B,K,C) behind the last block held, keep_idx (B,K).

    `part` runs what is the pruner's work.

    Exact savings: rows that a gathering method drops need no queries and no MLP; [CLS] needs none in the last block.
    """
    part = PruningPart() if part is None else part
    x = tower.embed(pixels)
    passing = Passing(repeat_for_batch(iota, pixels))
    last = max(index for index, _ in tower.items())
    for index, block in tower.items():
        normed = block.norm1(x)
        keys, values = block.keys(normed), block.values(normed)
        view = BlockView(index, keys, values, partial(block.cls_attention, normed, keys))
        thinned = part(method.thin, view, passing, count(view, passing), k, iota)
        bias = None if passing.sizes is None else torch.log(passing.sizes)[:, None, None]
        if method.gathers:
            x, normed = (part(thinned.rows, rows)[:, int(index == last) :] for rows in (x, normed))
            x = block.attended(x, normed, keys, values, bias)
        else:
            x = part(thinned.rows, block.attended(x, normed, keys, values, bias))[:, int(index == last) :]
        x, passing = block.fed(x), thinned.passing
    order, keep_idx = part(method.finish, passing)
    return (x if order is None else part(gather_tokens, x, order)), keep_idx
