"""Labels of the background scorer's training: coverage worked out by hand on toy masks and boxes."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

REPO = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def labels() -> ModuleType:
    """examples/background_scorer/labels.py."""
    spec = importlib.util.spec_from_file_location("labels", REPO / "examples" / "background_scorer" / "labels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_edge_aligned_mask(labels: ModuleType) -> None:
    """8 x 8 pixels, patches of 4: the right upper patch is foreground, nothing else."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, 4:] = 1
    made = labels.mask_labels(mask, None, 8, 4)
    assert made.share.tolist() == [0, 1, 0, 0]
    assert made.known.all()
    assert made.at(0.5).tolist() == [False, True, False, False]


def test_sub_patch_mask_and_thresholds(labels: ModuleType) -> None:
    """A 2 x 2 square across the corner of four patches of 4: one pixel of 16 in each; a 3 x 4 bar in the last: 12."""
    mask = np.zeros((8, 8), np.uint8)
    mask[3:5, 3:5] = 7
    mask[5:8, 4:8] = 7
    made = labels.mask_labels(mask, None, 8, 4)
    assert made.share.tolist() == [1 / 16, 1 / 16, 1 / 16, 13 / 16]
    assert made.at(0.5).tolist() == [False, False, False, True]
    assert made.at(1 / 16).all()
    assert made.at(0).all()
    assert not made.at(14 / 16).any()


def test_overlapping_boxes_count_once(labels: ModuleType) -> None:
    """(0,0,4,4) and (2,2,6,6): in patches of 4 px the first is full; the others hold 2 x 2 pixels or nothing more."""
    mask = labels.boxes_mask([(0, 0, 4, 4), (2, 2, 6, 6)], 8, 8)
    assert mask.sum() == 16 + 16 - 4
    assert labels.pool(mask, None, 4).share.tolist() == [1, 4 / 16, 4 / 16, 4 / 16]


def test_boxes_go_by_pixel_centres_and_are_cut_at_the_edge(labels: ModuleType) -> None:
    assert labels.boxes_mask([(0.6, 0, 2.4, 1)], 2, 4).tolist() == [[False, True, False, False], [False] * 4]
    assert labels.boxes_mask([(0.5, 0.5, 1.5, 1.5)], 2, 2).tolist() == [[True, False], [False, False]]
    assert labels.boxes_mask([(-5, -5, 1, 99)], 2, 2).tolist() == [[True, False], [True, False]]
    assert not labels.boxes_mask([], 2, 2).any()
    for bad in [(2, 0, 1, 1), (0, 0, 0, 1), (0, 0, float("nan"), 1), (0, 0, 1)]:
        with pytest.raises(ValueError, match="a box is x0, y0, x1, y1"):
            labels.boxes_mask([bad], 4, 4)


def test_void_pixels_count_for_nothing(labels: ModuleType) -> None:
    """Patches of 4: half void and the known half foreground; 9 of 16 void; all void; none."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:2, :4], mask[2:4, :4] = 255, 1
    mask[:4, 4:].flat[:9] = 255
    mask[4:, :4] = 255
    mask[4:6, 4:] = 3
    made = labels.mask_labels(mask, 255, 8, 4)
    assert made.share.tolist() == [1, 0, 0, 0.5]
    assert made.known.tolist() == [True, False, False, True]
    assert labels.mask_labels(mask, None, 8, 4).share.tolist() == [1, 9 / 16, 1, 0.5]  # without it, 255 is a class


def test_a_mask_takes_the_way_of_its_picture(labels: ModuleType) -> None:
    """Black and white blocks, resized and cropped as transformers does to a picture, against the mask's own way: equal
    but for pixels at the blocks' edges, which the picture's bicubic filter mixes."""
    from edgeprune.export.preprocess import reference_pixels

    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": 56}
    processor["crop_size"] = {"height": 56, "width": 56}
    for height, width in ((80, 120), (133, 90), (56, 56), (30, 47)):
        rows, columns = np.mgrid[:height, :width]
        mask = ((rows // 10 + columns // 10) % 2).astype(np.uint8)
        seen = reference_pixels(processor, np.repeat(mask[..., None] * 255, 3, axis=2))[..., 0]
        square = labels.fit_square(Image.fromarray(mask), 56, Image.Resampling.NEAREST)
        assert square.size == (56, 56)
        assert set(np.unique(square)) == {0, 1}
        sure = (seen < 25) | (seen > 230)
        assert sure.mean() > 0.5
        assert (np.asarray(square)[sure] == (seen[sure] > 127)).mean() > 0.995
        assert labels.mask_labels(mask, None, 56, 14).share.shape == (16,)


def test_a_side_that_holds_no_whole_patches_is_refused(labels: ModuleType) -> None:
    with pytest.raises(ValueError, match="no whole number of 4 px patches"):
        labels.pool(np.zeros((10, 10), bool), None, 4)
