"""What a background scorer calls foreground, as an outline around those patches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.manifest import Method
from edgeprune.measure.pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgeprune.runtime.answers import KeptTokens

Patches = np.ndarray[Any, np.dtype[np.bool_]]
_OUTLINE, _WIDTH_PX = (0, 208, 255), 3


@dataclass(frozen=True)
class Labels:
    """Attributes:
    patches: (N,) True where a patch is called foreground.
    complete: every other one is called background; else those that were left out before the encoder are not known.
    """

    patches: Patches
    complete: bool


def carries_labels(method: Method) -> bool:
    """The method's scores tell foreground from background: their sign does where `background` decides alone, not where
    another method behind it (`background@0.5+NAME`) gives the scores."""
    return re.fullmatch(r"background([@:][^+]*)?", method.spec) is not None and method.has_scores


def foreground(tokens: KeptTokens) -> Labels:
    """What has a score above 0, by a method that carries labels.

    A patch that was left out before the encoder has the least score of those that entered: it is background where that
    is, and not known where all that entered are foreground.
    """
    assert tokens.scores is not None
    least = tokens.scores.min()
    patches = tokens.scores > max(least, 0)
    patches[tokens.keep_idx] = tokens.scores[tokens.keep_idx] > 0
    return Labels(patches, bool(least <= 0))


def draw_labels(panel: Image, labels: Labels, boxes: np.ndarray[Any, np.dtype[np.float64]], columns: int) -> None:
    """Outlines the foreground in place: every edge between a foreground patch and another, or the grid's border."""
    pen = pillow("ImageDraw").Draw(panel)
    grid = np.pad(labels.patches.reshape(-1, columns), 1)
    for index in np.flatnonzero(labels.patches):
        row, column = divmod(int(index), columns)
        left, top, right, bottom = (round(float(edge)) for edge in boxes[index])
        sides = (
            ((row, column + 1), (left, top, right, top)),
            ((row + 2, column + 1), (left, bottom, right, bottom)),
            ((row + 1, column), (left, top, left, bottom)),
            ((row + 1, column + 2), (right, top, right, bottom)),
        )
        for neighbour, line in sides:
            if not grid[neighbour]:
                pen.line(line, fill=_OUTLINE, width=_WIDTH_PX)


def label_legend(labels: Labels | None) -> str:
    """How many patches are foreground, or that the method does not say."""
    if labels is None:
        return "no labels: other scores decide"
    count = f"{int(labels.patches.sum())}/{labels.patches.size}"
    return f"foreground (blue outline): {count if labels.complete else f'at least {count}'}"
