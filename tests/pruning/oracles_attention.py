"""Independent NumPy oracles of the attention and key based methods, written from the papers' maths, slow and plain."""

from __future__ import annotations

import numpy as np


def descending(scores: np.ndarray) -> list[int]:
    """Indices by falling score."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def hiprune(middle: np.ndarray, deep: np.ndarray, keep: int, columns: int, alpha: float) -> list[int]:
    """Anchors by `middle`, their clamped neighbours, registers by `deep`; ascending."""
    count = len(deep)
    anchors = descending(middle)[: round(keep * alpha / 5)]
    near = set()
    for a in anchors:
        for neighbour in (a, a - 1, a + 1, a - columns, a + columns):
            near.add(min(max(neighbour, 0), count - 1))
    if len(near) > keep:  # more neighbours than places: the deep block decides among them
        return sorted(sorted(near, key=lambda i: -deep[i])[:keep])
    registers = [i for i in descending(deep) if i not in near][: keep - len(near)]
    return sorted([*near, *registers])


def fopru_rows(scores: np.ndarray, keep: int, columns: int) -> list[int]:
    """All tokens of the keep / columns rows with the greatest sum; ascending."""
    rows = range(len(scores) // columns)
    total = {row: sum(float(s) for s in scores[row * columns : (row + 1) * columns]) for row in rows}
    best = sorted(rows, key=lambda row: -total[row])[: keep // columns]
    return sorted(row * columns + column for row in best for column in range(columns))
