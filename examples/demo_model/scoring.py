"""Exact-match scoring of the trainable model over cached features, by question type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import scenes
import torch
from model import Cache, DemoModel

Pick = Callable[[int], torch.Tensor | None]  # scene index -> kept tokens (K,) in raster order; None for no image
BATCH = 8


def everything() -> Pick:
    """All 256 visual tokens."""
    return lambda _index: torch.arange(256)


def nothing() -> Pick:
    """No visual tokens: the text-only floor."""
    return lambda _index: None


def cls_attention(cache: Cache, block: int, count: int) -> Pick:
    """The `count` tokens with the highest [CLS] attention in a block."""
    return lambda index: cache.cls_top(index, block, count)


def at_random(count: int, seed: int) -> Pick:
    """`count` tokens at random, the same for a scene whenever the seed is the same."""

    def pick(index: int) -> torch.Tensor:
        draw = torch.Generator().manual_seed(seed * 100_003 + index)
        return torch.randperm(256, generator=draw)[:count].sort().values

    return pick


def answer_scenes(model: DemoModel, cache: Cache, indices: Iterable[int], pick: Pick) -> list[dict[str, Any]]:
    """One record {scene, number, type, right} per question; right when every token of the answer is the arg-max.

    Teacher-forced arg-max on all answer tokens and the end token is the same event as greedy generation of exactly
    the expected answer.
    """
    records, indices = [], list(indices)
    for first in range(0, len(indices), BATCH):
        batch = indices[first : first + BATCH]
        asked = [cache.get("questions", index) for index in batch]
        kept = [pick(index) for index in batch]
        hidden = None
        if kept[0] is not None:
            hidden = torch.stack([cache.get("hidden", index)[rows] for index, rows in zip(batch, kept, strict=True)])
        packed = model.packer.pack(asked, 0 if hidden is None else hidden.shape[1])
        with torch.no_grad():
            hits = (model(hidden, packed).argmax(-1) == packed.labels).tolist()
        right: dict[tuple[int, int], bool] = {}
        for owner, hit in zip(packed.owners, hits, strict=True):
            right[owner] = right.get(owner, True) and hit
        for (image, number), correct in right.items():
            kind = asked[image][number][0]
            records.append({"scene": batch[image], "number": number, "type": kind, "right": correct})
    return records


class Tally:
    """Right and asked per question type."""

    KEYS = ("all", *scenes.QUESTION_TYPES)

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.right = dict.fromkeys(self.KEYS, 0)
        self.asked = dict.fromkeys(self.KEYS, 0)
        for record in records:
            for key in ("all", record["type"]):
                self.right[key] += record["right"]
                self.asked[key] += 1

    def counts(self) -> list[tuple[int, int]]:
        """(right, asked) in the order of KEYS."""
        return [(self.right[key], self.asked[key]) for key in self.KEYS]

    @classmethod
    def format(cls, counts: list) -> str:
        """One line of figures."""
        parts = zip(cls.KEYS, counts, strict=True)
        return ", ".join(f"{key} {right / max(1, asked):.3f} ({asked:.0f})" for key, (right, asked) in parts)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Accuracy and number of questions per type."""
        return {
            key: {"accuracy": round(self.right[key] / max(1, self.asked[key]), 4), "questions": self.asked[key]}
            for key in self.KEYS
        }
