"""Labels of patches from masks and boxes: how much of each patch is foreground, and where that is known.

Shape letters: H, W pixels of a picture, S side of the square that preprocessing makes of it, R rows and columns of
patches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

#: a patch of which more than this share is void has no label
MOST_VOID = 0.5


class Labels(NamedTuple):
    """Per patch, raster order (R*R,): share of foreground among its known pixels, and whether it has a label."""

    share: np.ndarray
    known: np.ndarray

    def at(self, threshold: float) -> np.ndarray:
        """(R*R,) bool: at least `threshold` of the patch is foreground; 0: any of it."""
        return self.share >= threshold if threshold > 0 else self.share > 0


def pool(foreground: np.ndarray, void: np.ndarray | None, patch_px: int) -> Labels:
    """Area pooling with kernel = stride = patch.

    Args:
        foreground: (S,S) bool or 0..1. void: (S,S) bool, pixels nothing is known of, or None.

    Raises:
        ValueError: the side is no multiple of the patch.
    """
    side = foreground.shape[0]
    if foreground.shape != (side, side) or side % patch_px:
        raise ValueError(f"a mask of {foreground.shape} pixels has no whole number of {patch_px} px patches")
    sure = np.ones((side, side)) if void is None else 1.0 - void.astype(float)
    area, inside = _sums(sure, patch_px), _sums(foreground.astype(float) * sure, patch_px)
    share = np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)
    return Labels(share.astype(np.float32), area >= (1 - MOST_VOID) * patch_px**2)


def _sums(values: np.ndarray, patch_px: int) -> np.ndarray:
    """(S,S) -> sum of each patch, (R*R,)."""
    rows = values.shape[0] // patch_px
    return values.reshape(rows, patch_px, rows, patch_px).sum((1, 3)).reshape(-1)


def boxes_mask(boxes: Iterable[Iterable[float]], height: int, width: int) -> np.ndarray:
    """Union of boxes (x0, y0, x1, y1) in pixels -> (H,W) bool. A pixel is inside when its centre is; parts of a box
    beyond the picture are cut off.

    Raises:
        ValueError: a box ends before it begins, or holds no four finite numbers.
    """
    mask = np.zeros((height, width), bool)
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    for box in boxes:
        corners = [float(value) for value in box]
        if len(corners) != 4 or not np.isfinite(corners).all() or corners[2] <= corners[0] or corners[3] <= corners[1]:
            raise ValueError(f"a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1, not {corners}")
        x0, y0, x1, y1 = corners
        mask |= ((down >= y0) & (down < y1))[:, None] & ((across >= x0) & (across < x1))[None, :]
    return mask


def fit_square(image: Image.Image, side_px: int, resample: Image.Resampling) -> Image.Image:
    """Shorter edge to `side_px`, then the central square: what a CLIP image processor does to a picture. Masks take
    the same way with NEAREST, so that no value is mixed."""
    scale = side_px / min(image.size)
    longer = int(side_px * max(image.size) / min(image.size))
    size = (side_px, longer) if image.width <= image.height else (longer, side_px)
    resized = image if scale == 1 and size == image.size else image.resize(size, resample)
    left, top = (resized.width - side_px) // 2, (resized.height - side_px) // 2
    return resized.crop((left, top, left + side_px, top + side_px))


def mask_labels(values: np.ndarray, void: int | None, side_px: int, patch_px: int) -> Labels:
    """A mask (H,W) of integers, 0 background, `void` unknown, all else foreground -> labels of the square picture."""
    square = np.asarray(fit_square(Image.fromarray(values.astype(np.uint8)), side_px, Image.Resampling.NEAREST))
    unknown = None if void is None else square == void
    return pool((square != 0) & (square != void), unknown, patch_px)
