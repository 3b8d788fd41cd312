"""All questions of an image in one row behind one shared visual prefix.

A row is: user header, visual tokens, then for each question its text and its answer. A question sees the prefix and
itself, never another question, and its positions start right after the prefix, so training on a row is the same as
training on each question alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch

HEADER = "<|im_start|>user\n"
QUESTION = "\n{question}<|im_end|>\n<|im_start|>assistant\n"
ANSWER = " {answer}<|im_end|>"
END_ID = 2  # <|im_end|>


class Packed(NamedTuple):
    """A batch of rows. T = header + K + text; M = answer tokens of the whole batch.

    text_ids (B, L), positions (B, T), allowed (B, T, T) bool; rows, columns (M,) say where each answer token is
    predicted, labels (M,) what it is, owners which (image, question) it belongs to.
    """

    text_ids: torch.Tensor
    positions: torch.Tensor
    allowed: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    labels: torch.Tensor
    owners: list[tuple[int, int]]


class Packer:
    """Packs questions; `encode` turns text into token ids (special tokens recognised)."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self.encode = encode
        self.header = torch.tensor(encode(HEADER))
        self.segment = functools.cache(self._segment)

    def _segment(self, question: str, answer: str) -> tuple[list[int], int]:
        """Token ids of question and answer, and how many of them are the question."""
        asked = self.encode(QUESTION.format(question=question))
        return asked + self.encode(ANSWER.format(answer=answer)), len(asked)

    def pack(self, questions: list[list[tuple[str, str, str]]], visual: int) -> Packed:
        """questions: per image a list of (type, text, answer); visual: K, the visual tokens of every row."""
        rows = [[self.segment(text, answer) for _, text, answer in asked] for asked in questions]
        prefix = len(self.header) + visual
        longest = max(sum(len(ids) for ids, _ in row) for row in rows)
        text_ids = torch.full((len(rows), longest), END_ID)
        positions = torch.arange(prefix + longest).repeat(len(rows), 1)
        group = torch.full((len(rows), prefix + longest), -1)
        group[:, :prefix] = 0
        targets: list[tuple[int, int, int]] = []
        owners: list[tuple[int, int]] = []
        for image, row in enumerate(rows):
            offset = 0
            for number, (ids, asked) in enumerate(row):
                end = offset + len(ids)
                text_ids[image, offset:end] = torch.tensor(ids)
                group[image, prefix + offset : prefix + end] = number + 1
                positions[image, prefix + offset : prefix + end] = prefix + torch.arange(len(ids))
                targets += [(image, prefix + offset + at - 1, ids[at]) for at in range(asked, len(ids))]
                owners += [(image, number)] * (len(ids) - asked)
                offset = end
        image_rows, columns, labels = torch.tensor(targets).unbind(1)
        return Packed(text_ids, positions, _allowed(group), image_rows, columns, labels, owners)


def _allowed(group: torch.Tensor) -> torch.Tensor:
    """group (B, T): 0 prefix, n question n, -1 padding -> (B, T, T) bool, row may look at column."""
    index = torch.arange(group.shape[1])
    causal = index[None, :] <= index[:, None]
    return causal & ((group[:, None, :] == 0) | (group[:, None, :] == group[:, :, None]))
