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


def recoverable(
    hidden: Array, cls: Array, tokens: Array, text: Array, keep: int, question: float, merged: float
) -> tuple[list[int], Array, float]:
    """Three parts of K: nearest to [CLS], nearest to the question among the others, and merged groups of the rest.
    cls (1,C), text (m,D) without padding. -> keep_idx, features, and the narrowest decision on the way."""
    groups, asked = int(keep * merged), int(keep * question)
    margins = [np.inf]

    def best(scores: Array, among: list[int], wanted: int) -> list[int]:
        falling = sorted(among, key=lambda i: -scores[i])
        if 0 < wanted < len(falling):
            margins.append(scores[falling[wanted - 1]] - scores[falling[wanted]])
        return falling[:wanted]

    kept = best(cosines_between(hidden, cls)[:, 0], list(range(len(tokens))), keep - groups - asked)
    others = [i for i in range(len(tokens)) if i not in kept]
    kept = sorted(kept + best(cosines_between(text, tokens).mean(axis=0), others, asked))
    rest, wide, alike = [i for i in others if i not in kept], tokens.astype(np.float64), cosines_between(hidden, hidden)
    every = max(1, len(rest) // max(1, groups))
    joined: dict[int, list[int]] = {rest[group * every]: [] for group in range(groups)}
    for i in rest:
        if joined and i not in joined:
            target = best(alike[i], list(joined), 1)[0]
            joined[target].append(i)
    sums = [wide[target] + (wide[members].mean(axis=0) if members else 0.0) for target, members in joined.items()]
    return kept + [-1] * groups, np.array([*wide[kept], *sums]), float(min(margins))
