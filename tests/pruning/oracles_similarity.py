"""Independent NumPy oracles of methods that compare tokens with each other, float64, from the papers' maths.

Each raises Tie where float32 may decide otherwise: draw other tokens.
"""

from __future__ import annotations

import itertools

import numpy as np

from tests.pruning.oracles_attention import Tie, cosine, descending

#: cosines and norms (relative) nearer than this count as equal
NEAR = 1e-6


def agileprune(attention: np.ndarray, tokens: np.ndarray, keep: int, average: float, limit: float) -> list[int]:
    """By falling attention, each kept token suppressing what lies nearer than its threshold; ascending."""
    alike, order = cosine(tokens), descending(attention)
    complexity = len(tokens) ** 2 / (alike**2).sum()
    kept: list[int] = []
    suppressed: set[int] = set()
    for place, i in enumerate(order, start=1):
        if i in suppressed or len(kept) == keep:
            continue
        kept.append(i)
        threshold = min(limit, 0.01 * place * complexity / average)
        for j in order:
            if j in suppressed or j in kept:
                continue
            if abs(1 - alike[i, j] - threshold) < NEAR and len(kept) < keep:
                raise Tie
            if 1 - alike[i, j] < threshold:
                suppressed.add(j)
    return sorted(kept + [i for i in order if i not in set(kept)][: keep - len(kept)])


def dart_pre(tokens: np.ndarray, keep: int, pivots: int) -> list[int]:
    """Tokens of greatest L1 norm, and for each in turn its share of those least like it; ascending."""
    norm = np.abs(tokens.astype(np.float64)).sum(1)
    order = descending(norm)
    if np.min(-np.diff(norm[order[: pivots + 1]])) < NEAR * norm.max():
        raise Tie
    chosen, alike = order[:pivots], cosine(tokens)
    if keep <= pivots:
        return sorted(chosen[:keep])
    kept, rest = list(chosen), set(range(len(tokens))) - set(chosen)
    for place, pivot in enumerate(chosen):
        quota = (keep - pivots) // pivots + (1 if place < (keep - pivots) % pivots else 0)
        ranked = sorted(rest, key=lambda j: alike[pivot, j])
        if 0 < quota < len(ranked) and alike[pivot, ranked[quota]] - alike[pivot, ranked[quota - 1]] < NEAR:
            raise Tie
        kept += ranked[:quota]
        rest -= set(ranked[:quota])
    return sorted(kept)


def merge_round(rows: list[tuple[int, np.ndarray]], drop: int) -> list[tuple[int, np.ndarray]]:
    """One bipartite round on (patch or -1, token): the even places with the best match join their odd place."""
    alike = cosine(np.stack([row for _, row in rows]))
    even, odd = range(0, len(rows), 2), range(1, len(rows), 2)
    match, best = {}, {}
    for a in even:
        ranked = sorted(odd, key=lambda b: -alike[a, b])
        match[a], best[a] = ranked[0], alike[a, ranked[0]]
        if len(ranked) > 1 and best[a] - alike[a, ranked[1]] < NEAR:
            raise Tie
    order = sorted(even, key=lambda a: -best[a])
    if drop < len(order) and min(best[a] - best[b] for a, b in itertools.pairwise(order)) < NEAR:
        raise Tie
    made = [rows[a] for a in order[drop:]]
    for b in odd:
        joined = [rows[a][1] for a in order[:drop] if match[a] == b]
        made.append((-1, np.mean([rows[b][1], *joined], axis=0)) if joined else rows[b])
    return made


def aim_merge(tokens: np.ndarray, keep: int, rounds: int) -> tuple[list[int], np.ndarray]:
    """Rounds that take away N / 2, N / 4 ... tokens until `keep` are left."""
    rows = [(i, row) for i, row in enumerate(tokens.astype(np.float64))]
    for i in range(1, rounds + 1):
        if len(rows) == keep:
            break
        rows = merge_round(rows, min(len(tokens) // 2**i, len(rows) // 2))
    assert len(rows) == keep
    return [index for index, _ in rows], np.stack([row for _, row in rows])
