"""Checks of method parameters, and parameters that several methods share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from edgeprune.errors import PruningError
from edgeprune.pruning.base import Signal

#: value of a parameter `importance` -> kind of signal
IMPORTANCES: Final = {"cls": "cls_attention", "received": "received_attention"}


def require_choice(method: str, name: str, value: str, choices: Collection[str]) -> None:
    """PruningError unless `value` is one of `choices`."""
    if value not in choices:
        raise PruningError(f"{method}: {name} must be one of {', '.join(choices)}, not {value!r}")


def require_between(method: str, name: str, value: float, low: float, high: float) -> None:
    """PruningError unless low <= value <= high; NaN is refused too."""
    if not low <= value <= high:
        raise PruningError(f"{method}: {name} must lie between {low:g} and {high:g}, not {value:g}")


def importance_signal(method: str, kind: str, layer: int | None) -> Signal:
    """The attention signal that a parameter `importance` names.

    Raises:
        PruningError: `kind` is not a key of IMPORTANCES.
    """
    require_choice(method, "importance", kind, IMPORTANCES)
    return Signal(IMPORTANCES[kind], layer)
