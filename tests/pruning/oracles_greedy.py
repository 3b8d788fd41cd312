"""Independent NumPy oracles of the greedy methods, float64, written from the papers' maths: every step recomputes its
score over the whole set of picks from the definition, nothing is carried along.

Each returns the picks in the order in which they are made, and for every pick by how much it won.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
#: picks so far -> score of every token, higher is picked
Score = Callable[[list[int]], Array]


def cosines(tokens: Array) -> Array:
    """(N,C) -> (N,N)."""
    wide = tokens.astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=1))
    return wide @ wide.T / np.outer(length, length)


def picked(count: int, steps: int, score: Score) -> tuple[list[int], list[float]]:
    """Takes the best token that is not taken yet, `steps` times.

    Returns:
        The picks, and the margin of each: lead over the runner-up, relative to the largest |score|.
    """
    picks: list[int] = []
    margins: list[float] = []
    for _ in range(steps):
        values = score(picks)
        free = np.setdiff1d(np.arange(count), picks)
        ranked = free[np.argsort(-values[free], kind="stable")]
        scale = max(float(np.abs(values[free]).max()), 1e-300)
        margins.append(np.inf if len(ranked) == 1 else float(values[ranked[0]] - values[ranked[1]]) / scale)
        picks.append(int(ranked[0]))
    return picks, margins


def divprune(tokens: Array, steps: int) -> tuple[list[int], list[float]]:
    """First: the largest second-smallest entry of its column of distances. Then: the largest least distance."""
    distance = 1.0 - cosines(tokens)

    def score(picks: list[int]) -> Array:
        return distance[picks].min(axis=0) if picks else np.sort(distance, axis=0)[1]

    return picked(len(tokens), steps, score)


def todre(tokens: Array, pivot: Array, steps: int, objective: str) -> tuple[list[int], list[float]]:
    """First: the highest `pivot`. Then the least sum of cosines to all picks, or the least highest one."""
    near = cosines(tokens)

    def score(picks: list[int]) -> Array:
        if not picks:
            return pivot.astype(np.float64)
        return -near[picks].sum(axis=0) if objective == "max-sum" else (1.0 - near[picks]).min(axis=0)

    return picked(len(tokens), steps, score)


def mmr(tokens: Array, importance: Array, steps: int, balance: float) -> tuple[list[int], list[float]]:
    """First: most important. Then: balance * scaled importance - (1 - balance) * highest cosine to a pick."""
    near, raw = cosines(tokens), importance.astype(np.float64)
    scaled = (raw - raw.min()) / (raw.max() - raw.min() + 1e-6)

    def score(picks: list[int]) -> Array:
        return balance * scaled - (1 - balance) * near[picks].max(axis=0) if picks else scaled

    return picked(len(tokens), steps, score)


def scope(tokens: Array, attention: Array, steps: int, alpha: float) -> tuple[list[int], list[float]]:
    """sum over i of max(0, cos(i, j) - highest cosine of i to a pick, at least 0), times attention_j ** alpha."""
    near, weight = cosines(tokens), attention.astype(np.float64) ** alpha

    def score(picks: list[int]) -> Array:
        covered = np.maximum(near[:, picks].max(axis=1), 0) if picks else np.zeros(len(near))
        return np.maximum(near - covered[:, None], 0).sum(axis=0) * weight

    return picked(len(tokens), steps, score)


def mmtok_vv(tokens: Array, steps: int, temperature: float) -> tuple[list[int], list[float]]:
    """Facility location over alpha * softmax_j(cos(i, j) / temperature) / N with alpha = 0.5."""
    powers = np.exp(cosines(tokens) / temperature)
    matrix = 0.5 * powers / powers.sum(axis=1, keepdims=True) / len(tokens)

    def score(picks: list[int]) -> Array:
        best = matrix[:, picks].max(axis=1) if picks else np.zeros(len(matrix))
        return np.maximum(matrix - best[:, None], 0).sum(axis=0)

    return picked(len(tokens), steps, score)


def zoo(tokens: Array, sensitivity: Array, steps: int) -> tuple[list[int], list[float]]:
    """First: most sensitive. Then: sensitivity, scaled to 0..1, times the least distance to a pick."""
    distance, raw = 1.0 - cosines(tokens), sensitivity.astype(np.float64)
    scaled = (raw - raw.min()) / (raw.max() - raw.min() + 1e-8)

    def score(picks: list[int]) -> Array:
        return scaled * distance[picks].min(axis=0) if picks else scaled

    return picked(len(tokens), steps, score)
