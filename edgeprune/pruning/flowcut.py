"""Tokens dropped step by step inside the vision encoder, by attention and values that add up over its blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.base import Signal
from edgeprune.pruning.flow_scores import dropping_blocks, flow, left_by_entropy
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing, Thinned, held_between, keep_rows, only_highest


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
        self.require_blocks(blocks, 2)
        stages = dropping_blocks(blocks)
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
        return only_highest(memory, passing._replace(memory=memory), count, iota)

    def measured(self, view: BlockView, blocks: int, k: int) -> int:
        """The paper's rule for one picture: what its attention entropy leaves behind a block."""
        entering, stages = view.keys.shape[2] - 1, dropping_blocks(blocks)
        if entering == k or view.block not in stages:
            return entering
        return left_by_entropy(view.cls_attention()[:, 1:], k, stages[-1] - view.block)

    def calibrated(self, runs: Sequence[Sequence[int]]) -> FlowCut:
        """With the mean over pictures of the visual tokens left behind each block."""
        means = [math.floor(sum(behind) / len(runs) + 0.5) for behind in zip(*runs, strict=True)]
        kept = [means[block] for block in dropping_blocks(len(means))]
        return dataclasses.replace(self, counts="-".join(map(str, kept)))
