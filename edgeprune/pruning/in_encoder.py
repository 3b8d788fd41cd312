"""Methods that prune inside the vision encoder: what a block shows them, what they pass on, what they decide.

Shape letters: B images, N visual tokens, S = n + 1 encoder tokens that enter a block ([CLS] first), S' that leave it,
C width, H heads, d head width. Shapes shrink from block to block, so K is baked into the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.orders import chosen_first, ranks
from edgeprune.pruning.selectors import gather_tokens


class BlockView(NamedTuple):
    """One block before its attention.

    Attributes:
        block: its 0-based index.
        keys, values: (B,H,S,d).
        cls_attention: () -> (B,S) float32, mean over heads of the [CLS] row; computed only where it is called.
    """

    block: int
    keys: Tensor
    values: Tensor
    cls_attention: Callable[[], Tensor]


class Passing(NamedTuple):
    """What goes from block to block beside the tokens.

    Attributes:
        places: (B,S-1) int64, the patch each row behind [CLS] began as.
        sizes: (B,S) float32, how many tokens a row stands for; None: one each.
        memory: (B,S-1) float32, what the method remembers of each row, or None.
    """

    places: Tensor
    sizes: Tensor | None = None
    memory: Tensor | None = None


class Thinned(NamedTuple):
    """What a method decides in one block.

    Attributes:
        rows: (B,S,X) -> (B,S',X), [CLS] first.
        passing: of the rows that are left.
    """

    rows: Callable[[Tensor], Tensor]
    passing: Passing


@dataclass(frozen=True)
class InEncoder(PruningMethod):
    """A pruning method of the encoder's blocks. `thin` is called once per block, in order; in a method that gathers,
    rows are dropped before queries and MLP run, else between attention and MLP. `needs` says what every block must
    serve; `signal`, `select` and `recycle` are not used."""

    where: ClassVar[str] = "in_encoder"
    dynamic_keep: ClassVar[bool] = False
    has_scores: ClassVar[bool] = False

    @property
    def needs_grid(self) -> bool:
        """[CLS] guides every block and must not be among the visual tokens."""
        return True

    @property
    def honours_padding(self) -> bool:
        """Blocks mix padding into what they merge and measure, so letter-boxed pictures are refused."""
        return False

    def schedule(self, n: int, blocks: int, k: int) -> tuple[int, ...]:
        """Visual tokens that leave each of `blocks` blocks when `n` enter the first; the last number is `k`.

        Raises:
            PruningError: the blocks cannot come from `n` to `k`.
        """
        raise NotImplementedError

    def thin(self, view: BlockView, passing: Passing, count: int, k: int, iota: Tensor) -> Thinned:
        """What becomes of the rows of a block: `count` visual tokens are left.

        Args:
            count: at most the n that enter. k: visual tokens behind the last block. iota: (N,) int64, 0..N-1.
        """
        raise NotImplementedError

    def measured(self, view: BlockView, blocks: int, k: int) -> int:
        """Visual tokens that the paper's rule leaves behind a block for the picture at hand, batch 1."""
        raise NotImplementedError

    def calibrated(self, runs: Sequence[Sequence[int]]) -> InEncoder:
        """The method with the schedule that pictures ask for. `runs`: visual tokens left behind each block, a row per
        picture."""
        raise NotImplementedError

    def finish(self, passing: Passing) -> tuple[Tensor | None, Tensor]:
        """Order (B,K) in which the rows behind [CLS] are given out, None: as they lie; and keep_idx (B,K) int64."""
        return None, passing.places

    def require_blocks(self, blocks: int, least: int) -> None:
        """PruningError unless the features come from at least so many blocks."""
        if blocks < least:
            raise PruningError(
                f"{self.name} prunes inside the vision encoder, in at least {least} of the blocks that make the "
                f"features, and this model uses {blocks or 'none'} of its blocks"
            )

    def refuse(self, k: int, n: int, nearest: int, why: str) -> PruningError:
        """The error for a count that the blocks of this encoder cannot reach."""
        return PruningError(
            f"{self.name} cannot keep {k} of {n} visual tokens: {why}; the nearest count it can is {nearest} "
            f"(keep {nearest / n:g})"
        )


def keep_rows(x: Tensor) -> Tensor:
    """All rows, as they are."""
    return x


def only_highest(scores: Tensor, passing: Passing, count: int, iota: Tensor) -> Thinned:
    """[CLS] and the `count` rows behind it of highest score (B,n) are left, in their order; n is more than `count`."""
    index = chosen_first(ranks(scores) < count, iota[: scores.shape[1]])[:, :count]
    rows = torch.cat([torch.zeros_like(index[:, :1]), index + 1], dim=1)
    places, sizes, memory = passing
    left = Passing(
        torch.gather(places, 1, index),
        None if sizes is None else torch.gather(sizes, 1, rows),
        None if memory is None else torch.gather(memory, 1, index),
    )
    return Thinned(lambda x: gather_tokens(x, rows), left)


def held_between(n: int, blocks: int, steps: Mapping[int, int]) -> tuple[int, ...]:
    """Tokens behind each block when `n` enter the first and block b leaves `steps[b]`; the others leave all."""
    behind = [n]
    for block in range(blocks):
        behind.append(steps.get(block, behind[-1]))
    return tuple(behind[1:])
