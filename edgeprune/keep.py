"""The one place in Python where a keep ratio becomes a count; runtime/src/keep_count.cpp is the same rule in C++."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeprune.errors import UserError


def keep_count(visual_tokens: int, ratio: float) -> int:
    """K of N visual tokens: max(1, floor(N * ratio + 0.5)), in double.

    Args:
        visual_tokens: N of one image, before pruning; at least 1.
        ratio: keep ratio K/N, greater than 0 and at most 1.

    Raises:
        UserError: the ratio lies outside, or is not a number.
        ValueError: N is below 1, which no family can have.
    """
    if visual_tokens < 1:
        raise ValueError(f"an image has at least one visual token, not {visual_tokens}")
    if not 0.0 < ratio <= 1.0:
        raise UserError(f"The keep ratio is {ratio}; give a number greater than 0 and at most 1.")
    return max(1, math.floor(visual_tokens * ratio + 0.5))


def count_runs(counts: Sequence[int]) -> list[dict[str, int]]:
    """Ascending counts as runs of equal steps, {"first", "last", "step"} each, for the manifest.

    A run of one count has step 1.
    """
    runs: list[dict[str, int]] = []
    for count in counts:
        run = runs[-1] if runs else None
        if run and run["first"] == run["last"]:
            run |= {"last": count, "step": count - run["first"]}
        elif run and count == run["last"] + run["step"]:
            run["last"] = count
        else:
            runs.append({"first": count, "last": count, "step": 1})
    return runs
