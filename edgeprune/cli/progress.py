"""A progress bar for verbs that have no other packages at hand; on a terminal only."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

_WIDTH = 30


def bar(label: str) -> Callable[[int, int], None]:
    """A function (done, total) that draws `LABEL [####----] done/total` on stderr and wipes it at the end.

    It does nothing where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        columns = shutil.get_terminal_size().columns
        line = text(label, done, total)[: max(1, columns - 1)]
        print(f"\r{line}\x1b[K" if done < total else "\r\x1b[K", end="", file=sys.stderr, flush=True)

    return show


def text(label: str, done: int, total: int) -> str:
    """The bar as one line."""
    filled = _WIDTH * done // max(1, total)
    return f"{label} [{'#' * filled}{'-' * (_WIDTH - filled)}] {done}/{total}"
