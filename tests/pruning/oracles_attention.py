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


def cosine(x: np.ndarray) -> np.ndarray:
    """Cosines (N,N) of the rows of (N,C), in float64."""
    x = x.astype(np.float64)
    x = x / np.sqrt((x**2).sum(1, keepdims=True))
    return x @ x.T


def visionzip(
    attention: np.ndarray, keys: np.ndarray, cls: np.ndarray, tokens: np.ndarray, keep: int, share: float
) -> tuple[list[int], np.ndarray]:
    """[CLS], dominant patches in raster order, contextual tokens. keys (H,N,d), cls (1,C), tokens (N,C)."""
    contextual = int(keep * share)
    dominant = sorted(descending(attention)[: keep - contextual - 1])
    rest = [i for i in range(len(tokens)) if i not in set(dominant)]
    made, index = [cls[0], *(tokens[i] for i in dominant)], [-1, *dominant] + [-1] * contextual
    if contextual:
        step = max(1, len(rest) // contextual)
        targets = [rest[t * step] for t in range(contextual)]
        alike = cosine(keys.astype(np.float64).mean(0))
        groups: dict[int, list[int]] = {target: [] for target in targets}
        for i in rest:
            if i not in groups:
                groups[max(targets, key=lambda t: alike[i, t])].append(i)
        assert sum(map(len, groups.values())) + keep - 1 == len(tokens)
        wide = tokens.astype(np.float64)
        made += [wide[t] + (wide[groups[t]].mean(0) if groups[t] else 0.0) for t in targets]
    return index, np.stack(made)


def prumerge(
    attention: np.ndarray, keys: np.ndarray, tokens: np.ndarray, keep: int, merged: int
) -> tuple[list[int], np.ndarray]:
    """keep - 1 patches by falling attention, each with its most similar ones added, and one token for the rest."""
    kept = descending(attention)[: keep - 1]
    alike = cosine(np.concatenate(list(keys), axis=1))
    wide, a = tokens.astype(np.float64), attention.astype(np.float64)
    made = []
    for i in kept:
        others = [j for j in np.argsort(-alike[i], kind="stable") if j != i]
        made.append(wide[i] + sum(a[j] * wide[j] for j in others[:merged]))
    made.append(sum((a[j] * wide[j] for j in set(range(len(tokens))) - set(kept)), np.zeros(tokens.shape[1])))
    return [*kept, -1], np.stack(made)


class Tie(Exception):
    """Two resemblances of one round are equal, so that the rule does not say which comes first."""


def vispruner(attention: np.ndarray, tokens: np.ndarray, keep: int, ratio: float) -> list[int]:
    """Important patches by attention, the others thinned on Python lists; ascending.

    Raises:
        Tie: draw other tokens.
    """
    order, important = descending(attention), int(keep * ratio)
    listed, goal, alike = order[important:], keep - important, cosine(tokens)
    while len(listed) > goal:
        even, odd = listed[0::2], listed[1::2]
        best = dict(zip(even, alike[np.ix_(even, odd)].max(axis=1) if odd else np.zeros(len(even)), strict=True))
        if len(set(best.values())) < len(even):
            raise Tie
        drop = min(8, len(listed) - goal, len(even))
        listed = sorted(even, key=lambda a: -best[a])[drop:] + odd
    return sorted(order[:important] + listed)


def pagerank(attention: np.ndarray, keep: int, iterations: int) -> list[int]:
    """`keep` patches of greatest importance, ascending; attention (H,S,S) with [CLS] first."""
    total = np.zeros(attention.shape[1])
    for head in attention.astype(np.float64):
        s = np.full(len(head), 1 / len(head))
        for _ in range(iterations):
            s = head.T @ s
            s = s / s.sum()
        total += s**2
    return sorted(descending(np.sqrt(total / len(attention))[1:])[:keep])


def embedlens(signals: list[np.ndarray], tokens: np.ndarray, keep: int, weight: float) -> list[int]:
    """signals: anchors (A,C), and attention (N,) where `weight` is below 1. Token by token, anchor by anchor."""
    anchors = signals[0].astype(np.float64)
    score = []
    for place, token in enumerate(tokens.astype(np.float64)):
        likest = max(float(token @ a / np.sqrt((token @ token) * (a @ a))) for a in anchors)
        score.append(-weight * likest)
        if weight < 1:
            attention = signals[1].astype(np.float64)
            spread = attention.max() - attention.min() + 1e-6
            score[-1] += (1 - weight) * (attention[place] - attention.min()) / spread
    order = sorted(range(len(tokens)), key=lambda place: -score[place])
    if keep < len(order) and score[order[keep - 1]] - score[order[keep]] < 2e-6:
        raise Tie
    return sorted(order[:keep])
