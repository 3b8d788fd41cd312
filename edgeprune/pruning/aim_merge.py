"""Halving by merging: in every round one half of the tokens joins what it resembles most in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.bipartite import merge_round
from edgeprune.pruning.selectors import repeat_for_batch


@dataclass(frozen=True)
class AimMerge(PruningMethod):
    """The merging before the decoder of AIM (https://github.com/LaVi-Lab/AIM); its pruning inside the decoder is not.

    Round i merges N / 2^i of the projected tokens (at most half of those that are left): the even places of the list
    whose best cosine to an odd place is highest are averaged into that odd token. The list goes on as the even ones
    that are left, by falling cosine, then the odd ones; that is also the order of the output. K is N or a length
    after one of the rounds. keep_idx is -1 for a merged token.

    Parameters:
        rounds: 1 to 8, how many rounds the graph holds; the paper takes 2 for video and 3 for pictures.
    """

    name: ClassVar[str] = "aim-merge"
    summary: ClassVar[str] = "merge alike projected tokens in rounds that halve them"
    source: ClassVar[str] = "AIM (LaVi-Lab), its merging before the decoder"
    where: ClassVar[str] = "after_projector"
    has_scores: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    gathers: ClassVar[bool] = False
    rounds: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 8:
            raise PruningError(f"{self.name}: rounds must be from 1 to 8, not {self.rounds}")

    @property
    def honours_padding(self) -> bool:
        return False  # tokens of the padding would merge with those of the picture

    def drops(self, n: int) -> list[int]:
        """How many tokens each round removes; rounds that would remove none are left out."""
        made, left = [], n
        for i in range(1, self.rounds + 1):
            made.append(min(n >> i, left // 2))
            left -= made[-1]
        return [drop for drop in made if drop]

    def valid_k(self, n: int) -> Sequence[int]:
        drops = self.drops(n)
        return [n - sum(drops[:done]) for done in range(len(drops), -1, -1)]

    def constants(self, n: int) -> dict[str, Tensor]:
        """Adds `start` (N+1,): where the list of length K begins among the lists of all lengths, one after another."""
        lengths = self.valid_k(n)[::-1]
        start = [sum(lengths[: lengths.index(k)]) if k in lengths else 0 for k in range(n + 1)]
        return {**super().constants(n), "start": torch.tensor(start)}

    def signal(self, features: VisualFeatures) -> None:
        return None

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """(B,K) int64 in the order of the list, -1 for a merged token."""
        assert features.tokens is not None
        index = self.lists(features.tokens, features)[1]
        return index[:, _part(keep_slots.shape[0], features)]

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        return self.lists(tokens, features)[0][:, _part(keep_idx.shape[1], features)]

    def lists(self, tokens: Tensor, features: VisualFeatures) -> tuple[Tensor, Tensor]:
        """The lists before and after every round, one after another: tokens (B,L,C) and patches (B,L)."""
        iota = features.constants["iota"]
        made = [(tokens, repeat_for_batch(iota, features.batch))]
        for drop in self.drops(iota.shape[0]):
            made.append(merge_round(*made[-1], drop, iota))
        return torch.cat([x for x, _ in made], dim=1), torch.cat([index for _, index in made], dim=1)


def _part(kept: int, features: VisualFeatures) -> Tensor:
    """Places (K,) of the list of length K among all lists."""
    return features.constants["start"][kept] + features.constants["iota"][:kept]
