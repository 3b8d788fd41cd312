"""Independent NumPy oracles of the methods that read the question, float64, written from the papers' maths."""

from __future__ import annotations

import numpy as np

from tests.pruning.oracles_greedy import Array, picked


def cosines_between(a: Array, b: Array) -> Array:
    """(M,C), (N,C) -> (M,N)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a @ b.T) / np.outer(np.sqrt((a * a).sum(1)), np.sqrt((b * b).sum(1)))


def shares(cosines: Array, temperature: float) -> Array:
    """Softmax of every row."""
    powers = np.exp((cosines - 1) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def mmtok(
    hidden: Array, tokens: Array, text: Array, steps: int, alpha: float, text_temperature: float, temperature: float
) -> tuple[list[int], list[float]]:
    """Facility location on [P / m; alpha Q / N]; text (m,D) without padding. Picks in order, and their margins."""
    p = shares(cosines_between(text, tokens), text_temperature) / len(text)
    q = shares(cosines_between(hidden, hidden), temperature) / len(hidden)
    matrix = np.concatenate([p, alpha * q])

    def score(picks: list[int]) -> Array:
        best = matrix[:, picks].max(axis=1) if picks else np.zeros(len(matrix))
        return np.maximum(matrix - best[:, None], 0).sum(axis=0)

    return picked(len(tokens), steps, score)
