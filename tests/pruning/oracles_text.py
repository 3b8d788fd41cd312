"""Independent NumPy oracles of the methods that read the question, float64, written from the papers' maths.

Each returns the picks in the order in which they are made, and for every pick by how much it won.
"""

from __future__ import annotations

import numpy as np

from tests.pruning.oracles_greedy import cosines, picked

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


def relevance_of_the_paper(space: Array, segments: Array, weight: float | None = None) -> Array:
    """(N,E) visual tokens and (M,E) segments of the question in CLIP's space -> (N,): the negated cosine of a token
    with each segment, averaged over the segments, then scaled over the picture."""
    negated = [[-float(v @ s) / (np.linalg.norm(v) * np.linalg.norm(s)) for s in segments.astype(np.float64)]
               for v in space.astype(np.float64)]  # fmt: skip
    mean = np.mean(negated, axis=1)
    scaled = (mean - mean.min() + 1e-6) / (mean.max() - mean.min())
    return scaled if weight is None else np.exp(weight / (2 * (1 - weight)) * scaled)


def cdpruner_of_the_paper(
    space: Array, tokens: Array, segments: Array, steps: int, weight: float | None = None
) -> tuple[list[int], list[float]]:
    """The same picks on plain cosines of the projected tokens and the relevance of the paper."""
    r = relevance_of_the_paper(space, segments, weight)
    return by_gain(r[:, None] * cosines(tokens) * r[None, :], steps)


def cdpruner(tokens: Array, words: Array, steps: int, weight: float) -> tuple[list[int], list[float]]:
    """The picks of `kernel`."""
    return by_gain(kernel(tokens, words, weight), steps)


def by_gain(matrix: Array, steps: int) -> tuple[list[int], list[float]]:
    """Each pick has the largest gain: what is left of its row of the kernel, on the diagonal, when the picks are
    projected out of it (the Schur complement), solved anew in every step."""

    def score(picks: list[int]) -> Array:
        if not picks:
            return np.diag(matrix)
        across = matrix[np.ix_(picks, np.arange(len(matrix)))]
        return np.diag(matrix) - (across * np.linalg.solve(matrix[np.ix_(picks, picks)], across)).sum(axis=0)

    return picked(len(matrix), steps, score)


def by_determinants(matrix: Array, steps: int) -> list[int]:
    """The definition itself, for few tokens: every candidate's determinant, in every step."""
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
