"""Token merging: in every block of the vision encoder the most alike pairs become one token each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.pruning.base import Signal
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing, Thinned, keep_rows
from edgeprune.pruning.orders import chosen_first, descending, inverse, unit
from edgeprune.pruning.selectors import gather_tokens


@dataclass(frozen=True)
class ToMe(InEncoder):
    """Adaptation of ToMe (https://arxiv.org/abs/2210.09461, https://github.com/facebookresearch/ToMe) to a fixed K.

    Between attention and MLP of each block, every other token (0, 2, ...) looks for the most alike of the rest by the
    cosine of keys averaged over heads; the r most alike pairs become their mean, weighted by how many patches each
    stands for. Later attention adds the logarithm of that size to its logits. [CLS] is never merged. A block gives
    out the unmerged even tokens, then the odd ones.

    Ours: r per block follows from K, in steps as even as halving at most allows; the K tokens are given out in raster
    order of the patch each began as; keep_idx is -1 where a token stands for several.
    """

    name: ClassVar[str] = "tome"
    summary: ClassVar[str] = "merge the most alike tokens in every block of the vision encoder"
    source: ClassVar[str] = "adaptation of ToMe, arXiv 2210.09461"
    where: ClassVar[str] = "in_encoder"
    gathers: ClassVar[bool] = False
    nearest: ClassVar[tuple[str, ...]] = ("visionzip", "stride")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("keys"),)

    def schedule(self, n: int, blocks: int, k: int) -> tuple[int, ...]:
        self.require_blocks(blocks, 1)
        least = -(-n // 2**blocks)
        if k < least:
            raise self.refuse(k, n, least, f"each of the encoder's {blocks} blocks halves them at most")
        even = [n - (n - k) * (block + 1) // blocks for block in range(blocks)]
        # so late in the encoder, no more tokens than halving can still bring down to k
        return tuple(min(count, k * 2 ** (blocks - 1 - block)) for block, count in enumerate(even))

    def thin(self, view: BlockView, passing: Passing, count: int, k: int, iota: Tensor) -> Thinned:
        merged = view.keys.shape[2] - 1 - count
        if merged == 0:
            return Thinned(keep_rows, passing)
        keys = unit(view.keys.float().mean(1))
        even, odd = keys[:, ::2], keys[:, 1::2]
        near = torch.matmul(even, odd.transpose(1, 2))
        # [CLS] is like nothing
        best = torch.cat([torch.full_like(near[:, :1, 0], -2.0), near[:, 1:].amax(2)], dim=1)
        order = descending(best)
        leaving = order[:, :merged]
        target = torch.gather(near.argmax(2), 1, leaving)
        staying = chosen_first(inverse(order) >= merged, iota[: even.shape[1]])[:, : even.shape[1] - merged]
        joins = (target.unsqueeze(1) == iota[: odd.shape[1]].unsqueeze(1)).to(torch.float32)
        ones = torch.ones_like(view.keys[:, 0, :, :1], dtype=torch.float32)
        sizes = ones if passing.sizes is None else passing.sizes.unsqueeze(2)

        def total(x: Tensor) -> Tensor:
            """(B,S,X) -> even rows that stay, odd rows with the sum of those that join them, (B,S',X)."""
            gone = torch.matmul(joins, gather_tokens(x[:, ::2], leaving))
            return torch.cat([gather_tokens(x[:, ::2], staying), x[:, 1::2] + gone], dim=1)

        grown = total(sizes)

        def rows(x: Tensor) -> Tensor:
            return (total(x.float() * sizes) / grown).to(x.dtype)

        led = torch.cat([torch.full_like(passing.places[:, :1], -1), passing.places], dim=1)
        places = torch.cat([torch.gather(led[:, ::2], 1, staying), led[:, 1::2]], dim=1)
        return Thinned(rows, Passing(places[:, 1:], grown.squeeze(2)))

    def finish(self, passing: Passing) -> tuple[Tensor | None, Tensor]:
        if passing.sizes is None:
            return None, passing.places
        order = inverse(passing.places)
        alone = torch.gather(passing.sizes[:, 1:], 1, order) < 1.5
        return order, torch.where(alone, torch.gather(passing.places, 1, order), -1)
