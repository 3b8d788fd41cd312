"""What every worker asks and how it talks to the run: JSON lines. Standard library and NumPy, since each worker has an
environment of its own and is started by path.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

IMAGE_PX = 336
#: one question for all; about 20 tokens with its template
QUESTION = "describe the image. what is on the road?"
KEEP = 0.1
NEW_TOKENS = 16
THREADS = 2

#: name of a trial -> the work; returns {name of a figure: milliseconds}
Cases = dict[str, Callable[[], dict[str, float]]]


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(336,336,3) RGB: ramps, a checkerboard and noise, equal on every call."""
    rows, columns = np.mgrid[0:IMAGE_PX, 0:IMAGE_PX]
    board = ((columns // 56 + rows // 56) % 2) * 200
    drawn = np.stack([columns * 255 / IMAGE_PX, rows * 255 / IMAGE_PX, board], axis=-1)
    noise = np.random.default_rng(0).integers(0, 30, drawn.shape)
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


def serve(facts: dict[str, Any], cases: Cases) -> None:
    """Says what it is and which cases it has, then runs the case that each line of stdin names."""
    # Libraries print to stdout; the lines of the protocol go to a copy of it that they do not know.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=lines, flush=True)

    say({"facts": facts, "cases": sorted(cases)})
    for line in sys.stdin:
        say(cases[line.strip()]())
