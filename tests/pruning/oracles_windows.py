"""Independent NumPy oracles of methods that work in windows of the picture, written from the papers' maths."""

from __future__ import annotations

import math

import numpy as np

from tests.pruning.oracles_attention import Tie, descending


def runs_of(count: int, runs: int) -> list[list[int]]:
    """0..count-1 in contiguous runs, the first count mod runs of them one longer."""
    made, start = [], 0
    for run in range(runs):
        size = count // runs + (1 if run < count % runs else 0)
        made.append(list(range(start, start + size)))
        start += size
    return made


def holov_budgets(
    attention: np.ndarray, tokens: np.ndarray, keep: int, runs: list[list[int]], weight: float
) -> list[int]:
    """Tokens that each run may keep.

    Raises:
        Tie: a share of K lies so near an integer, or two shares so near each other, that rounding decides.
    """
    scores = []
    for run in runs:
        a = [1000.0 * float(attention[i]) for i in run]
        wide = tokens[run].astype(np.float64)
        unit = wide / (np.linalg.norm(wide, axis=1, keepdims=True) + 1e-6)
        n, v = len(run), []
        for i in range(n):
            row = unit @ unit[i]
            row[i] = 0.0
            mean = row.sum() / (n - 1)
            v.append(((row - mean) ** 2).sum() / (n - 1))  # the zeroed diagonal adds mean ** 2
        gamma = np.mean(np.abs(a)) / (np.mean(np.abs(v)) + 1e-6)
        scores.append(float(np.mean([x + weight * gamma * y for x, y in zip(a, v, strict=True)])))
    shares = [score / (sum(scores) + 1e-6) for score in scores]
    if any(abs(share * keep - round(share * keep)) < 1e-4 for share in shares):
        raise Tie
    given = [math.floor(share * keep) for share in shares]
    ranked = sorted(shares, reverse=True)
    left = keep - sum(given)
    if 0 < left < len(runs) and ranked[left - 1] - ranked[left] < 1e-6:
        raise Tie
    for run in descending(np.array(shares))[:left]:
        given[run] += 1
    assert sum(given) == keep
    return given


def holov(attention: np.ndarray, tokens: np.ndarray, keep: int, runs: int, weight: float) -> list[int]:
    """The highest attention of every run within its budget, then the highest of all for what did not fit; ascending."""
    windows = runs_of(len(tokens), runs)
    kept: list[int] = []
    for run, budget in zip(windows, holov_budgets(attention, tokens, keep, windows, weight), strict=True):
        kept += sorted(run, key=lambda i: -attention[i])[:budget]
    rest = [i for i in descending(attention) if i not in set(kept)]
    return sorted(kept + rest[: keep - len(kept)])


def vflowopt(
    attention: np.ndarray, tokens: np.ndarray, keep: int, threshold: float, window: float
) -> tuple[list[int], np.ndarray]:
    """Patches of greatest importance, and every window's others averaged at the most important one's place; ascending.

    attention (H,S,S) with [CLS] first; a square grid. The least important patch of a window is never kept as it is.

    Raises:
        Tie: a patch receives almost exactly the threshold, or two of nearly equal importance compete for a place.
    """
    count = len(tokens)
    side, wide = math.isqrt(count), tokens.astype(np.float64)
    mean = attention.astype(np.float64).mean(0)[-count:, -count:]
    received = mean.mean(0)
    limit = threshold * received.mean()
    if np.abs(received - limit).min() < 1e-6 * limit:
        raise Tie
    far = [q for q in range(count) if received[q] > limit] or list(range(count))
    importance = np.array([sum(mean[q, j] for q in far) / len(far) for j in range(count)])
    members: dict[tuple[int, int], list[int]] = {}
    for i in range(count):
        members.setdefault((math.floor(i // side / window), math.floor(i % side / window)), []).append(i)
    never = {min(group, key=lambda i: importance[i]) for group in members.values()}
    ranked = sorted((i for i in range(count) if i not in never), key=lambda i: -importance[i])
    free = keep - len(members)
    if 0 < free < len(ranked) and importance[ranked[free - 1]] - importance[ranked[free]] < 1e-6 * importance.max():
        raise Tie
    made = {i: (i, wide[i]) for i in ranked[:free]}
    for group in members.values():
        rest = [i for i in group if i not in made]
        lead = max(rest, key=lambda i: importance[i])
        weight = importance[rest] / importance[rest].sum()
        made[lead] = (lead if len(rest) == 1 else -1, weight @ wide[rest])
    assert len(made) == keep
    return [made[i][0] for i in sorted(made)], np.stack([made[i][1] for i in sorted(made)])
