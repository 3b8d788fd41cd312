"""The one place in Python where a keep ratio becomes a count; the runtime has the same rule in C++."""

from __future__ import annotations

import math


def keep_count(tokens: int, ratio: float) -> int:
    """K of N visual tokens: max(1, floor(N * ratio + 0.5)), in double.

    Args:
        tokens: N of one image, before pruning.
        ratio: keep ratio K/N in (0, 1].
    """
    return max(1, math.floor(tokens * ratio + 0.5))
