"""Independent NumPy oracles of the methods that read the question, float64, written from the papers' maths.

Each returns the picks in the order in which they are made, and for every pick by how much it won.
"""

from __future__ import annotations

import numpy as np

from tests.pruning.oracles_greedy import picked

Array = np.ndarray


def length(vectors: Array) -> Array:
    """Length of each row, as the code that the spec names takes it."""
    return np.sqrt((vectors * vectors).sum(axis=1) + 1e-6)


def relevance(tokens: Array, words: Array, weight: float) -> Array:
    """(N,D) and (M,D) -> (N,): the mean cosine of a token with the words, scaled and weighted."""
    x, t = tokens.astype(np.float64), words.astype(np.float64)
    cosine = (x @ t.T) / np.outer(length(x), length(t))
    mean = cosine.mean(axis=1)
    scaled = (mean - mean.min() + 1e-6) / (mean.max() - mean.min())
    return np.exp(weight / (2 * (1 - weight)) * scaled)


def kernel(tokens: Array, words: Array, weight: float) -> Array:
    """relevance_i * cosine_ij * relevance_j."""
    x = tokens.astype(np.float64)
    r = relevance(tokens, words, weight)
    return r[:, None] * (x @ x.T / np.outer(length(x), length(x))) * r[None, :]


def cdpruner(tokens: Array, words: Array, steps: int, weight: float) -> tuple[list[int], list[float]]:
    """Each pick has the largest gain: what is left of its row of the kernel, on the diagonal, when the picks are
    projected out of it (the Schur complement), solved anew in every step."""
    matrix = kernel(tokens, words, weight)

    def score(picks: list[int]) -> Array:
        if not picks:
            return np.diag(matrix)
        across = matrix[np.ix_(picks, np.arange(len(matrix)))]
        return np.diag(matrix) - (across * np.linalg.solve(matrix[np.ix_(picks, picks)], across)).sum(axis=0)

    return picked(len(tokens), steps, score)


def cdpruner_by_determinants(tokens: Array, words: Array, steps: int, weight: float) -> list[int]:
    """The definition itself, for few tokens: every candidate's determinant, in every step."""
    matrix = kernel(tokens, words, weight)
    picks: list[int] = []
    for _ in range(steps):
        others = [i for i in range(len(matrix)) if i not in picks]
        picks.append(max(others, key=lambda i: np.linalg.det(matrix[np.ix_([*picks, i], [*picks, i])])))
    return picks


def cdpruner_in_halves(tokens: Array, words: Array, steps: int, weight: float) -> tuple[list[int], list[float]]:
    """Each half of the tokens by itself; picks of both in turn, so that the first K are K / 2 of each."""
    half = len(tokens) // 2
    first, second = (cdpruner(part, words, steps // 2, weight) for part in (tokens[:half], tokens[half:]))
    picks = [pick for pair in zip(first[0], [half + p for p in second[0]], strict=True) for pick in pair]
    return picks, [margin for pair in zip(first[1], second[1], strict=True) for margin in pair]
