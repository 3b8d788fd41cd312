"""The kept patches drawn over the picture: dropped ones dimmed, kept ones clear with a thin border, a legend below.

Patches are mapped back through padding, resizing and cropping, so the borders lie where the model looked. Needs Pillow.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import UserError
from edgeprune.manifest import Preprocess
from edgeprune.measure.heat import draw_heat, heat_legend
from edgeprune.measure.labels import Labels, draw_labels, label_legend
from edgeprune.measure.pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgeprune.runtime.answers import KeptTokens

#: short and long side of a drawn picture, in pixels, as far as its shape allows both.
LEAST_PX, MOST_PX = 336, 1600
_DIM, _BORDER, _PAPER, _INK = 0.3, (255, 196, 0), (255, 255, 255), (20, 20, 20)
_GAP_PX, _LINE_PX, _FONT_PX = 12, 22, 16


def draw_overlay(
    image_file: str | Path, kept: Sequence[KeptTokens], preprocess: Preprocess, *, scores: bool = False,
    labels: Sequence[Labels | None] | None = None,
) -> Image:  # fmt: skip
    """Draws what was kept of one picture, one panel per entry of `kept`, side by side.

    Args:
        image_file: the picture that was asked about.
        kept: at least one, each of this picture, for example by different methods.
        preprocess: the bundle's preprocessing.
        scores: draw each panel's scores below it, as a heat map.
        labels: per panel (N,) True for foreground, outlined, or None where its method has no labels.

    Raises:
        DependencyError: Pillow is missing.
        UserError: the picture cannot be read, or is not the one that the runtime saw.
    """
    size_px = kept[0].width_px, kept[0].height_px
    picture = _read_picture(image_file, size_px)
    scale = max(LEAST_PX / min(picture.size), 1.0)
    scale = min(scale, MOST_PX / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    scaled = picture.resize((width, height))
    found = labels or [None] * len(kept)
    texts = [
        [*legend(tokens), *([label_legend(shown)] if labels else []), *([heat_legend(tokens)] if scores else [])]
        for tokens, shown in zip(kept, found, strict=True)
    ]
    column = max(width, *(_text_width(line) for lines in texts for line in lines))
    total = len(kept) * (column + _GAP_PX) - _GAP_PX
    rows = 2 if scores else 1
    tall = rows * (height + _GAP_PX) + len(texts[0]) * _LINE_PX
    sheet: Image = pillow("Image").new("RGB", (total, tall), _PAPER)
    for place, (tokens, shown) in enumerate(zip(kept, found, strict=True)):
        boxes = cell_boxes(preprocess, (tokens.grid_rows, tokens.grid_cols), size_px) * scale
        left = place * (column + _GAP_PX)
        panel = _draw_panel(scaled, tokens, boxes)
        if shown is not None:
            draw_labels(panel, shown, boxes, tokens.grid_cols)
        sheet.paste(panel, (left, 0))
        if scores:
            sheet.paste(draw_heat(scaled, tokens, boxes), (left, height + _GAP_PX))
        _write_legend(sheet, texts[place], (left, rows * (height + _GAP_PX) - _GAP_PX // 2))
    return sheet


def legend(tokens: KeptTokens) -> tuple[str, str]:
    """Two lines: how many of how many, and what was asked for."""
    merged = sum(index < 0 for index in tokens.keep_idx)
    count = f"K/N = {tokens.kept}/{tokens.visual_tokens}" + (f", {merged} merged" if merged else "")
    asked = f"{tokens.method}, keep {tokens.keep:g}"
    return count, asked if tokens.applied else f"{asked} ({tokens.reason})"


def cell_boxes(
    preprocess: Preprocess, grid: tuple[int, int], size_px: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N,4) boxes left, top, right, bottom of the grid's cells in pixels of the original picture, in raster order.

    Cells over padding, or over the zeros of a crop that is larger than the picture, lie partly or wholly outside it.
    """
    (left, top), scale, view = _view(preprocess, size_px)
    rows, columns = grid
    x = (np.arange(columns + 1) * view[0] / columns) * scale[0] + left
    y = (np.arange(rows + 1) * view[1] / rows) * scale[1] + top
    boxes = np.empty((rows, columns, 4))
    boxes[..., 0], boxes[..., 2] = x[:-1], x[1:]
    boxes[..., 1], boxes[..., 3] = y[:-1, None], y[1:, None]
    return boxes.reshape(-1, 4)


def _view(
    preprocess: Preprocess, size_px: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float], tuple[int, int]]:
    """Corner of the model's view in the picture, picture pixels per view pixel, and the view's (width, height)."""
    width, height = size_px
    pad_x = pad_y = 0
    if preprocess.pad_square is not None:
        side = max(width, height)
        pad_x, pad_y = (side - width) // 2, (side - height) // 2
        width = height = side
    new_width, new_height = _resized(preprocess, width, height)
    view_height, view_width = preprocess.center_crop_px or (new_height, new_width)
    scale = width / new_width, height / new_height
    corner = (new_width - view_width) // 2, (new_height - view_height) // 2
    return (corner[0] * scale[0] - pad_x, corner[1] * scale[1] - pad_y), scale, (view_width, view_height)


def _resized(preprocess: Preprocess, width: int, height: int) -> tuple[int, int]:
    """(width, height) after the resize step."""
    sizes = preprocess.resize.size_px
    if preprocess.resize.mode == "exact":
        return sizes[1], sizes[0]
    short, long = min(width, height), max(width, height)
    long_px = int(sizes[0] * long / short)
    return (sizes[0], long_px) if width <= height else (long_px, sizes[0])


def _draw_panel(picture: Image, tokens: KeptTokens, boxes: np.ndarray[Any, np.dtype[np.float64]]) -> Image:
    image, image_draw = pillow("Image"), pillow("ImageDraw")
    kept = [tuple(round(edge) for edge in boxes[index]) for index in tokens.keep_idx if index >= 0]
    mask = image.new("L", picture.size, 0)
    for box in kept:
        image_draw.Draw(mask).rectangle(_inside(box), fill=255)
    grey = picture.convert("L").convert("RGB").point(lambda level: int(level * _DIM))
    drawn: Image = image.composite(picture, grey, mask)
    pen = image_draw.Draw(drawn)
    for box in kept:
        pen.rectangle(_inside(box), outline=_BORDER)
    return drawn


def _inside(box: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box with its last row and column included, as Pillow draws it; never inverted."""
    left, top, right, bottom = box
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _write_legend(sheet: Image, lines: Sequence[str], corner: tuple[int, int]) -> None:
    pen, font = pillow("ImageDraw").Draw(sheet), _font()
    for place, line in enumerate(lines):
        pen.text((corner[0] + 2, corner[1] + place * _LINE_PX), line, fill=_INK, font=font)


def _text_width(text: str) -> int:
    return int(_font().getlength(text)) + 4


def _font() -> Any:
    return pillow("ImageFont").load_default(_FONT_PX)


def _read_picture(image_file: str | Path, size_px: tuple[int, int]) -> Image:
    image = pillow("Image")
    try:
        with warnings.catch_warnings(), image.open(image_file) as opened:
            # The runtime has read the picture already and has its own limit.
            warnings.simplefilter("ignore", image.DecompressionBombWarning)
            picture: Image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        raise UserError(f"cannot draw over {image_file}: {error}.") from error
    if picture.size != size_px:
        raise UserError(f"{image_file} changed while it was asked about; try again.")
    return picture
