"""Which patches of a letter-boxed picture are padding: native library and export against exact arithmetic, and the
letter-boxed pixels against Pillow."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.export.preprocess import letterboxed, padding_mask, preprocess_manifest, reference_pixels
from tests.runtime.image_program import BUNDLE, ImageProgram, NativeError

CLIP = {"image_processor_type": "CLIPImageProcessor"}


@pytest.fixture(scope="module")
def program(native_program: Callable[[str], pathlib.Path]) -> Iterator[ImageProgram]:
    running = ImageProgram(native_program("image_cli"))
    yield running
    running.close()


def spec(edge: int, patch_px: int, resized: int | None = None) -> dict[str, Any]:
    """A letter-box of edge x edge; `resized`: the padded picture becomes so large first, then its centre is taken."""
    config = {**CLIP, "size": {"shortest_edge": resized or edge}, "crop_size": {"height": edge, "width": edge}}
    return {**preprocess_manifest(letterboxed(config)), "pad_mask": {"patch_px": patch_px}}


def native(program: ImageProgram, height: int, width: int, given: dict[str, Any], grid: tuple[int, int]) -> np.ndarray:
    _, body = program.ask("mask", spec=given, width=width, height=height, rows=grid[0], cols=grid[1])
    return np.frombuffer(body, np.float32)


def exact(height: int, width: int, edge: int, patch: int, resized: int, grid: tuple[int, int]) -> np.ndarray:
    """The definition in fractions: share of the patch's area that shows no picture, above a half."""
    side = max(height, width)
    scale = Fraction(resized, side)
    corner = Fraction((resized - edge) // 2)

    def inside(source: int, index: int) -> Fraction:
        first = (side - source) // 2 * scale - corner
        low, high = max(first, Fraction(index * patch)), min(first + source * scale, Fraction((index + 1) * patch))
        return max(Fraction(0), high - low)

    ratio = [
        1 - inside(height, row) * inside(width, column) / patch**2
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    return np.array([float(r > Fraction(1, 2)) for r in ratio], np.float32)


def test_native_library_and_export_equal_exact_arithmetic(program: ImageProgram) -> None:
    dice = random.Random(1)
    for _ in range(150):
        height, width = (round(3000 ** dice.random()) for _ in range(2))
        edge, patch, resized = dice.choice([(336, 14, 336), (224, 14, 256), (56, 14, 64), (96, 16, 81), (90, 14, 90)])
        grid = (edge // patch, edge // patch)
        given, wanted = spec(edge, patch, resized), exact(height, width, edge, patch, resized, grid)
        np.testing.assert_array_equal(native(program, height, width, given, grid), wanted, err_msg=f"{height} {width}")
        np.testing.assert_array_equal(padding_mask(given, height, width, grid), wanted, err_msg=f"{height} {width}")


@pytest.mark.parametrize(
    ("height", "width", "padded_rows"),
    [(336, 336, 0), (168, 336, 12), (322, 336, 0), (320, 336, 2), (308, 336, 2), (14, 336, 22), (1, 336, 24)],
)
def test_rows_that_are_padding(program: ImageProgram, height: int, width: int, padded_rows: int) -> None:
    """322 of 336: half of the first and of the last row of patches, which is not more than half."""
    mask = native(program, height, width, spec(336, 14), (24, 24)).reshape(24, 24)
    assert (mask == mask[:, :1]).all()
    assert mask[:, 0].sum() == padded_rows
    turned = native(program, width, height, spec(336, 14), (24, 24)).reshape(24, 24)
    np.testing.assert_array_equal(turned, mask.T)


@pytest.mark.parametrize("size", [(200, 300), (301, 200), (17, 400), (336, 336), (401, 33)])
def test_letterboxed_pixels_equal_pillow(program: ImageProgram, size: tuple[int, int]) -> None:
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    side = max(size)
    canvas = Image.new("RGB", (side, side), (122, 116, 104))  # CLIP's mean, truncated
    canvas.paste(Image.fromarray(image), ((side - size[1]) // 2, (side - size[0]) // 2))
    wanted = np.asarray(canvas.resize((336, 336), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(program.preprocess(image, spec(336, 14))[0], wanted)
    config = letterboxed({**CLIP, "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}})
    np.testing.assert_array_equal(reference_pixels(config, image), wanted)


def test_a_mask_without_padding_is_refused(program: ImageProgram) -> None:
    plain = {**preprocess_manifest(CLIP), "pad_mask": {"patch_px": 14}}
    with pytest.raises(NativeError, match="pad_mask needs pad_square") as caught:
        native(program, 10, 20, plain, (16, 16))
    assert caught.value.status == BUNDLE
    for wrong in ({}, {"patch_px": 0}, {"patch_px": "14"}):
        with pytest.raises(NativeError, match="patch_px"):
            native(program, 10, 20, {**spec(224, 14), "pad_mask": wrong}, (16, 16))
