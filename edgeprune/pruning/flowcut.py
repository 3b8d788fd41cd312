"""Tokens dropped step by step inside the vision encoder, by attention and values that add up over its blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import Signal
from edgeprune.pruning.flow_scores import flow, left_by_entropy
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing, Thinned, held_between, keep_rows
from edgeprune.pruning.orders import chosen_first, ranks
from edgeprune.pruning.selectors import gather_tokens


@dataclass(frozen=True)
class FlowCut(InEncoder):
    """Adaptation of FlowCut (https://arxiv.org/abs/2505.19536, https://github.com/TungChintao/FlowCut) to fixed counts.

    A block scores a patch by (a / sum a + s / sum s) * d: a its [CLS] attention, s the softmax over all keys of
    v_cls . v, both averaged over heads, d the 1-norm of its value averaged over heads. Scores halve with every block.
    Every second block, the last before the features' one among them, drops the lowest.

    Ours: the paper reads from each picture's attention entropy how many a block drops; here these numbers are
    measured once, at export, by the paper's rule on calibration pictures, and their mean is baked in.

    Parameters:
        counts: visual tokens left behind each block that drops, as in 500-300-58; the last is K. Empty: measured at
            export.
    """

    name: ClassVar[str] = "flowcut"
    summary: ClassVar[str] = "drop tokens of low attention and value in every second block of the vision encoder"
    source: ClassVar[str] = "adaptation of FlowCut, arXiv 2505.19536"
    where: ClassVar[str] = "in_encoder"
    nearest: ClassVar[tuple[str, ...]] = ("fastervlm", "received-attention", "stride")
    counts: str = ""

    def __post_init__(self) -> None:
        if not all(part.isdigit() for part in self.counts.split("-") if self.counts):
            raise PruningError(f"flowcut: counts must be numbers joined by -, such as 500-300-58, not {self.counts!r}")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return (Signal("cls_attention"),)

    @property
    def uncalibrated(self) -> bool:
        return not self.counts

    def schedule(self, n: int, blocks: int, k: int) -> tuple[int, ...]:
        """Even steps as long as nothing has been measured."""
        if blocks < 2:
            raise PruningError(
                "flowcut drops tokens before the block that makes the features, and this model uses none of its blocks"
            )
        stages = [block for block in range(blocks) if _left(block, blocks) in range(0, blocks, 2)]
        even = [n - (n - k) * (place + 1) // len(stages) for place in range(len(stages))]
        counts = [int(part) for part in self.counts.split("-")] if self.counts else even
        if len(counts) != len(stages) or counts[-1] != k or sorted([n, *counts], reverse=True) != [n, *counts]:
            raise PruningError(
                f"flowcut: counts={self.counts} does not fit; {len(stages)} blocks of this encoder drop tokens, "
                f"from {n} down to {k} at this keep"
            )
        return held_between(n, blocks, dict(zip(stages, counts, strict=True)))

    def thin(self, view: BlockView, passing: Passing, count: int, k: int, iota: Tensor) -> Thinned:
        entering = view.keys.shape[2] - 1
        if entering == k:
            return Thinned(keep_rows, passing)
        score = flow(view.cls_attention()[:, 1:], view.values.float())
        memory = score if passing.memory is None else 0.5 * passing.memory + 0.5 * score
        if count == entering:
            return Thinned(keep_rows, passing._replace(memory=memory))
        index = chosen_first(ranks(memory) < count, iota[:entering])[:, :count]
        rows = torch.cat([torch.zeros_like(index[:, :1]), index + 1], dim=1)
        left = Passing(torch.gather(passing.places, 1, index), None, torch.gather(memory, 1, index))
        return Thinned(lambda x: gather_tokens(x, rows), left)

    def measured(self, view: BlockView, blocks: int, k: int) -> int:
        """The paper's rule for one picture: what its attention entropy leaves behind a block."""
        entering, left = view.keys.shape[2] - 1, _left(view.block, blocks)
        if entering == k or left < 0 or left % 2:
            return entering
        return left_by_entropy(view.cls_attention()[:, 1:], k, left)

    def calibrated(self, runs: Sequence[Sequence[int]]) -> FlowCut:
        """With the mean over pictures of the visual tokens left behind each block."""
        blocks = len(runs[0])
        means = [math.floor(sum(behind) / len(runs) + 0.5) for behind in zip(*runs, strict=True)]
        kept = [means[block] for block in range(blocks) if _left(block, blocks) in range(0, blocks, 2)]
        return dataclasses.replace(self, counts="-".join(map(str, kept)))


def _left(block: int, blocks: int) -> int:
    """Blocks between this one and the last that drops, which lies before the features' block."""
    return blocks - 2 - block
