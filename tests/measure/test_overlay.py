"""The drawn patches lie where the model looked."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeprune.errors import UserError
from edgeprune.manifest import Padding, Preprocess, Resize
from edgeprune.measure.heat import colours, heat_legend
from edgeprune.measure.labels import Labels, draw_labels, foreground, label_legend
from edgeprune.measure.overlay import cell_boxes, draw_overlay, legend
from edgeprune.runtime.answers import KeptTokens

GRID = (8, 8)
VIEW_PX = 64


def kept_by(method: str, keep: float, keep_idx: list[int], size: tuple[int, int], reason: str = "") -> KeptTokens:
    return KeptTokens(
        image=0, kept=len(keep_idx), visual_tokens=64, keep_idx=np.array(keep_idx), scores=None, grid_rows=8,
        grid_cols=8, width_px=size[0], height_px=size[1], applied=not reason, reason=reason, method=method, keep=keep,
    )  # fmt: skip


def everything(size: tuple[int, int]) -> KeptTokens:
    return kept_by("none", 1.0, list(range(64)), size, "K = N")


def preprocessing(mode: str) -> Preprocess:
    pad = Padding((0.0, 0.0, 0.0)) if mode == "pad" else None
    exact = Resize("exact", (VIEW_PX, VIEW_PX), "bicubic")
    shortest = Resize("shortest_edge", (VIEW_PX,), "bicubic")
    ones = (1.0, 1.0, 1.0)
    crop = None if mode == "exact" else (VIEW_PX, VIEW_PX)
    return Preprocess("square", pad, exact if mode == "exact" else shortest, crop, 1.0, ones, ones, False)


def seen_by_the_model(picture: Image.Image, mode: str) -> Image.Image:
    """The view as Pillow makes it, step by step."""
    if mode == "pad":
        side = max(picture.size)
        square = Image.new("RGB", (side, side))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = square
    if mode == "exact":
        return picture.resize((VIEW_PX, VIEW_PX), Image.Resampling.BICUBIC)
    scale = VIEW_PX / min(picture.size)
    picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
    return ImageOps.fit(picture, (VIEW_PX, VIEW_PX))


def ramp(width: int, height: int) -> Image.Image:
    """Red grows from 20 to 220 to the right, green downwards, blue is 200: colours are coordinates."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    levels = np.stack([20 + 200 * x, 20 + 200 * y, np.full_like(x, 200)], axis=-1)
    return Image.fromarray(levels.round().astype(np.uint8))


@pytest.mark.parametrize("mode", ["exact", "crop", "pad"])
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (250, 250), (900, 400), (40, 50)])
def test_boxes_are_where_each_patch_came_from(mode: str, size: tuple[int, int]) -> None:
    view = np.asarray(seen_by_the_model(ramp(*size), mode), dtype=np.float64)
    patches = view.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).reshape(-1, 3)
    boxes = cell_boxes(preprocessing(mode), GRID, size)
    whole = (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= size[0]) & (boxes[:, 3] <= size[1])
    assert whole.sum() >= 8
    from_colour = (patches[:, :2] - 20) / 200 * np.array(size)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cell_px = boxes[0, 2:] - boxes[0, :2]
    inner = whole & (np.abs(patches[:, 2] - 200) < 1)  # bicubic rings next to padding
    assert np.abs(from_colour - centres)[inner].max() < 0.15 * cell_px.max()


def test_cells_over_padding_lie_outside_the_picture() -> None:
    boxes = cell_boxes(preprocessing("pad"), GRID, (400, 200)).reshape(8, 8, 4)
    assert (boxes[:2, :, 3] <= 0).all()
    assert (boxes[2:6, :, 1] >= 0).all()
    assert (boxes[6:, :, 1] >= 200).all()
    assert boxes[0, 0, 0] == 0
    assert boxes[-1, -1, 2] == 400


def test_kept_patches_stay_clear_and_the_others_are_dimmed(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "picture.png"
    ramp(400, 400).save(file)
    kept = [kept_by("fastervlm", 0.05, [9, 63, -1], (400, 400)), everything((400, 400))]
    sheet = draw_overlay(file, kept, preprocessing("crop"))
    pixels = np.asarray(sheet)[:400].astype(int)
    original = np.asarray(ramp(400, 400)).astype(int)
    centres = [(50 * (cell // 8) + 25, 50 * (cell % 8) + 25) for cell in range(64)]
    clear = [cell for cell, (y, x) in enumerate(centres) if (pixels[y, x] == original[y, x]).all()]
    assert clear == [9, 63]
    y, x = centres[0]
    assert pixels[y, x].max() < 0.5 * original[y, x].max()
    assert tuple(pixels[50, 50]) == (255, 196, 0)
    second = pixels[:, 412:812]
    assert all((second[y, x] == original[y, x]).all() for y, x in centres)
    assert (np.asarray(sheet)[405:, :400] < 100).any()


def test_the_legend_says_how_many_and_why() -> None:
    some = kept_by("fastervlm", 0.05, [9, 63, -1], (1, 1))
    assert legend(some) == ("K/N = 3/64, 1 merged", "fastervlm, keep 0.05")
    assert legend(everything((1, 1))) == ("K/N = 64/64", "none, keep 1 (K = N)")


@pytest.mark.parametrize(
    ("size", "drawn"), [((20, 10), (672, 336)), ((4000, 3000), (1600, 1200)), ((5000, 2), (1600, 1))]
)
def test_small_pictures_are_enlarged_and_large_ones_shrunk(tmp_path, size, drawn) -> None:
    file = tmp_path / "picture.png"
    Image.new("RGB", size).save(file)
    sheet = draw_overlay(file, [everything(size)], preprocessing("pad"))
    assert sheet.width == drawn[0]
    assert sheet.height == drawn[1] + 56


def test_another_picture_or_none_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "picture.png"
    Image.new("RGB", (20, 10)).save(file)
    with pytest.raises(UserError, match="changed while it was asked about"):
        draw_overlay(file, [everything((10, 20))], preprocessing("pad"))
    file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot draw over"):
        draw_overlay(file, [everything((20, 10))], preprocessing("pad"))


def test_without_pillow_the_remedy_is_named() -> None:
    code = (
        "import sys\n"
        "from edgeprune.errors import DependencyError\n"
        "from edgeprune.measure.overlay import draw_overlay\n"
        "from tests.measure.test_overlay import everything\n"
        "sys.modules.update({name: None for name in sys.modules if name.startswith('PIL')})\n"
        "try:\n    draw_overlay('x.png', [everything((1, 1))], None)\n"
        "except DependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install pillow" in done.stdout


def test_heat_maps_stand_below_with_their_range(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "picture.png"
    Image.new("RGB", (400, 400), (128, 128, 128)).save(file)
    scored = dataclasses.replace(
        kept_by("fastervlm", 0.05, [9], (400, 400)), scores=np.arange(64, dtype=np.float32) / 100
    )
    sheet = draw_overlay(file, [scored, everything((400, 400))], preprocessing("crop"), scores=True)
    assert sheet.height == 2 * 412 + 3 * 22
    pixels = np.asarray(sheet).astype(int)
    first, last = pixels[412 + 25, 25], pixels[412 + 375, 375]
    assert np.abs(first - (0.65 * np.array([8, 12, 72]) + 0.35 * 128)).max() <= 1
    assert np.abs(last - (0.65 * np.array([252, 248, 160]) + 0.35 * 128)).max() <= 1
    centres = [pixels[412 + 50 * (cell // 8) + 25, 50 * (cell % 8) + 25] for cell in range(64)]
    luminance = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in centres]
    assert luminance == sorted(luminance)
    assert (pixels[412:812, 412:812] == 128).all()
    assert heat_legend(scored) == "scores 0 (blue) to 0.63 (yellow)"
    assert heat_legend(everything((1, 1))) == "no scores: the method has none"


def test_equal_scores_have_one_colour() -> None:
    assert len({tuple(row) for row in colours(np.ones(5, np.float32))}) == 1


def labelled(scores: list[float], keep_idx: list[int]) -> KeptTokens:
    kept = kept_by("background", len(keep_idx) / 64, keep_idx, (64, 64))
    return dataclasses.replace(kept, scores=np.array(scores, np.float32))


def test_labels_are_the_signs_of_the_scores() -> None:
    found = foreground(labelled([3.0, -1.0, 0.0, 2.0] + [-2.0] * 60, [0, 1, 3]))
    assert (np.flatnonzero(found.patches).tolist(), found.complete) == ([0, 3], True)


def test_patches_that_were_left_out_behind_foreground_are_not_known() -> None:
    """Two entered, both foreground: the others have the lesser score of the two."""
    found = foreground(labelled([3.0, 1.0] + [1.0] * 62, [0, 1]))
    assert (np.flatnonzero(found.patches).tolist(), found.complete) == ([0, 1], False)
    assert "at least 2/64" in label_legend(found)


def test_the_outline_runs_around_the_foreground_only() -> None:
    """Patches 9 and 10, side by side: no line between them, one around both."""
    panel = Image.new("RGB", (64, 64))
    patches = np.zeros(64, bool)
    patches[[9, 10]] = True
    draw_labels(panel, Labels(patches, True), cell_boxes(preprocessing("exact"), GRID, (64, 64)), 8)
    drawn = np.asarray(panel).any(axis=-1)
    assert drawn[8, 8:25].all()
    assert drawn[16, 8:25].all()
    assert drawn[8:17, 8].all()
    assert drawn[8:17, 24].all()
    assert not drawn[11:14, 11:22].any(), "inside, and the edge that both share"
    assert not drawn[20:].any()


def test_a_panel_without_labels_says_so(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "ramp.png"
    ramp(64, 64).save(file)
    marked = labelled([1.0] * 8 + [-1.0] * 56, [0])
    panels = [marked, everything((64, 64))]
    plain = draw_overlay(file, panels, preprocessing("exact"))
    with_labels = draw_overlay(file, panels, preprocessing("exact"), labels=[foreground(marked), None])
    assert with_labels.height == plain.height + 22, "a line of the legend more"
    assert label_legend(None) == "no labels: other scores decide"
    half = plain.width // 2
    rows = 336
    assert np.asarray(with_labels)[:rows, :half].tolist() != np.asarray(plain)[:rows, :half].tolist()
    assert np.asarray(with_labels)[:rows, half + 8 :].tolist() == np.asarray(plain)[:rows, half + 8 :].tolist()
