"""Scores of the visual tokens as colours over the picture: dark blue for the lowest, through red, to yellow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.measure.pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgeprune.runtime.answers import KeptTokens

Boxes = np.ndarray[Any, np.dtype[np.float64]]
#: how much of the picture shines through
_PICTURE = 0.35
#: colours at equal steps from the lowest score to the highest; each is brighter than the one before it
_RAMP = np.array([(8, 12, 72), (78, 20, 128), (168, 40, 104), (232, 96, 56), (252, 176, 48), (252, 248, 160)])


def colours(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N,) scores -> (N,3) colours; the lowest and the highest are the ends of the ramp, equal scores its beginning."""
    low, high = float(scores.min()), float(scores.max())
    places = (scores - low) / (high - low) if high > low else np.zeros(len(scores))
    steps = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(places, steps, _RAMP[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def draw_heat(picture: Image, tokens: KeptTokens, boxes: Boxes) -> Image:
    """The picture in grey under one colour per patch.

    Args:
        tokens: with scores, or without: then the picture alone is drawn.
        boxes: (N,4) left, top, right, bottom of the patches in the picture.
    """
    grey = picture.convert("L").convert("RGB")
    if tokens.scores is None:
        return grey
    image, draw = pillow("Image"), pillow("ImageDraw")
    layer = grey.copy()
    pen = draw.Draw(layer)
    for box, colour in zip(boxes.round().astype(int), colours(tokens.scores), strict=True):
        left, top, right, bottom = (int(edge) for edge in box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=tuple(int(c) for c in colour))
    blended: Image = image.blend(layer, grey, _PICTURE)
    return blended


def heat_legend(tokens: KeptTokens) -> str:
    """The range of the scores, or that the method has none."""
    if tokens.scores is None:
        return "no scores: the method has none"
    return f"scores {tokens.scores.min():.3g} (blue) to {tokens.scores.max():.3g} (yellow)"
