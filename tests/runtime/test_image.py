"""Preprocessing and decoding of the native library against Pillow and the Hugging Face processors, byte for byte."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from tests.runtime.image_program import BUNDLE, IMAGE, INVALID_ARGUMENT, UNSUPPORTED, ImageProgram, NativeError, Pixels

RGB8, BGR8, RGBA8, GRAY8 = range(4)
RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.fixture(scope="module")
def program(native_program: Callable[[str], pathlib.Path]) -> Iterator[ImageProgram]:
    running = ImageProgram(native_program("image_cli"))
    yield running
    running.close()


def spec_of(processor: Any) -> dict[str, Any]:
    """The manifest object that says what `processor` does."""
    size = processor.size
    edge = size.get("shortest_edge")
    names = {value: name for name, value in RESAMPLE.items()}
    color = [int(mean * 255) for mean in processor.image_mean]
    return {
        "kind": "square",
        "pad_square": {"color": color} if getattr(processor, "do_pad", False) else None,
        "resize": {
            "mode": "shortest_edge" if edge else "exact",
            "size_px": [edge] if edge else [size["height"], size["width"]],
            "resample": names[processor.resample],
        },
        "center_crop_px": [processor.crop_size["height"], processor.crop_size["width"]]
        if processor.do_center_crop
        else None,
        "rescale": processor.rescale_factor,
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "folded": False,
    }


def square(edge: int) -> dict[str, int]:
    return {"height": edge, "width": edge}


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Noise over a slope: saturated values make the cubic overshoot, smooth ones show an offset of one pixel."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    slope = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return np.where(rng.random((height, width, 1)) < 0.5, image, slope).astype(np.uint8)


def random_size(dice: random.Random, longest_px: int = 2000, most_extreme: float = 2000) -> tuple[int, int]:
    while True:
        height, width = (round(longest_px ** dice.random()) for _ in range(2))
        if max(height, width) / min(height, width) <= most_extreme:
            return height, width


def assert_equal_to_processor(program: ImageProgram, processor: Any, image: Pixels) -> None:
    picture = Image.fromarray(image)
    pixels, floats = program.preprocess(image, spec_of(processor))
    raw = processor(picture, do_rescale=False, do_normalize=False)["pixel_values"][0]
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.moveaxis(np.asarray(raw), 0, -1), err_msg=f"size {image.shape}")
    np.testing.assert_array_equal(floats, np.asarray(processor(picture)["pixel_values"][0]))


def clip(dice: random.Random, resample: str) -> Any:
    edge = dice.choice([224, 336, 97])
    return CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size=square(edge), resample=RESAMPLE[resample])


def dinov2(dice: random.Random, resample: str) -> Any:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    edge, crop = dice.choice([(256, 224), (255, 224), (100, 131), (64, 33)])
    return BitImageProcessorPil(
        size={"shortest_edge": edge},
        crop_size=square(crop),
        image_mean=mean,
        image_std=std,
        resample=RESAMPLE[resample],
    )


def llava_pad(dice: random.Random, resample: str) -> Any:
    edge = dice.choice([224, 336, 81])
    size = dice.choice([{"shortest_edge": edge}, square(edge)])
    crop = dice.random() < 0.5
    return LlavaImageProcessorPil(
        do_pad=True, size=size, do_center_crop=crop, crop_size=square(edge), resample=RESAMPLE[resample]
    )


def exact(dice: random.Random, resample: str) -> Any:
    size = {"height": dice.choice([56, 224, 384]), "width": dice.choice([57, 224, 384])}
    return CLIPImageProcessorPil(size=size, do_center_crop=False, resample=RESAMPLE[resample])


@pytest.mark.parametrize(
    ("make", "resample", "count", "most_extreme"),
    [
        (clip, "bicubic", 60, 40),  # the reference resizes the whole picture before it crops: bounded here
        (dinov2, "bicubic", 40, 40),
        (llava_pad, "bicubic", 50, 2000),
        (exact, "bicubic", 30, 2000),
        (clip, "bilinear", 10, 40),
        (llava_pad, "bilinear", 5, 2000),
        (clip, "lanczos", 10, 40),
        (exact, "lanczos", 5, 2000),
    ],
)
def test_random_sizes_equal_the_processor(
    program: ImageProgram, make: Callable[[random.Random, str], Any], resample: str, count: int, most_extreme: float
) -> None:
    dice = random.Random(f"{make.__name__} {resample}")
    for case in range(count):
        image = noise(*random_size(dice, most_extreme=most_extreme), seed=case)
        assert_equal_to_processor(program, make(dice, resample), image)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2000), (2000, 1), (2, 1999), (1999, 3), (224, 224), (224, 500), (500, 224)]
)
def test_edge_sizes_equal_the_processor(program: ImageProgram, size: tuple[int, int]) -> None:
    image = noise(*size)
    assert_equal_to_processor(program, exact(random.Random(0), "bicubic"), image)
    assert_equal_to_processor(program, LlavaImageProcessorPil(do_pad=True), image)
    assert_equal_to_processor(program, LlavaImageProcessorPil(do_pad=True, size=square(max(size))), image)
    if max(size) / min(size) < 10:
        assert_equal_to_processor(program, CLIPImageProcessorPil(), image)


def test_only_padding_in_the_crop(program: ImageProgram) -> None:
    """A crop that lies within the padding of one axis of a sliver reads no pixel rows beyond the sliver."""
    processor = LlavaImageProcessorPil(do_pad=True, size=square(300), crop_size=square(299))
    for size in [(1, 301), (301, 1), (3, 900), (900, 4)]:
        assert_equal_to_processor(program, processor, noise(*size))


def test_crop_of_an_elongated_picture_needs_no_large_intermediate(program: ImageProgram) -> None:
    """1 x 60,000 pixels: the whole resized picture would be 224 x 13,440,000; the crop alone is computed."""
    spec = spec_of(CLIPImageProcessorPil())
    pixels, _ = program.preprocess(np.full((1, 60_000, 3), 77, np.uint8), spec)
    assert pixels.shape == (224, 224, 3)
    assert (pixels == 77).all()


def test_folded_normalisation_gives_bytes_as_floats(program: ImageProgram) -> None:
    spec = {**spec_of(CLIPImageProcessorPil()), "folded": True}
    pixels, floats = program.preprocess(noise(300, 280), spec)
    np.testing.assert_array_equal(floats, np.moveaxis(pixels, -1, 0).astype(np.float32))


def test_absurdly_long_edge_is_refused(program: ImageProgram) -> None:
    spec = spec_of(exact(random.Random(0), "bicubic"))
    with pytest.raises(NativeError, match="too long to resample") as caught:
        program.preprocess(np.zeros((1, 17_000_000, 3), np.uint8), spec)
    assert caught.value.status == IMAGE


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"kind": "anyres"}, UNSUPPORTED, "anyres"),
        ({"resize": {"mode": "longest_edge", "size_px": [2], "resample": "bicubic"}}, UNSUPPORTED, "longest_edge"),
        ({"resize": {"mode": "exact", "size_px": [2, 2], "resample": "box"}}, UNSUPPORTED, "box"),
        ({"resize": {"mode": "exact", "size_px": [2], "resample": "bicubic"}}, BUNDLE, "size_px"),
        ({"resize": {"mode": "exact", "size_px": [2, 0], "resample": "bicubic"}}, BUNDLE, "size_px"),
        ({"resize": {"mode": "exact", "size_px": [2, 10**9], "resample": "bicubic"}}, BUNDLE, "size_px"),
        ({"resize": None}, BUNDLE, "mode"),
        ({"center_crop_px": [224]}, BUNDLE, "center_crop_px"),
        ({"center_crop_px": None}, BUNDLE, "size of the result is open"),
        ({"pad_square": {"color": [0, 0, 256]}}, BUNDLE, "color"),
        ({"pad_square": {}}, BUNDLE, "color"),
        ({"mean": [0.5, 0.5]}, BUNDLE, "mean"),
        ({"std": [0.5, 0, 0.5]}, BUNDLE, "std"),
        ({"rescale": "1/255"}, BUNDLE, "rescale"),
        ({"folded": 1}, BUNDLE, "folded"),
    ],
)
def test_malformed_preprocess(program: ImageProgram, change: dict[str, Any], status: int, words: str) -> None:
    spec = {**spec_of(CLIPImageProcessorPil()), **change}
    with pytest.raises(NativeError, match=words) as caught:
        program.preprocess(noise(4, 4), spec)
    assert caught.value.status == status


@pytest.mark.parametrize("padding", [0, 1, 13])
@pytest.mark.parametrize(("fmt", "channels"), [(RGB8, 3), (BGR8, 3), (RGBA8, 4), (GRAY8, 1)])
def test_frames(program: ImageProgram, fmt: int, channels: int, padding: int) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (5, 7 * channels + padding), dtype=np.uint8)
    pixels = rows[:, : 7 * channels].reshape(5, 7, channels)
    expected = {RGB8: pixels, BGR8: pixels[..., ::-1], RGBA8: pixels[..., :3], GRAY8: np.repeat(pixels, 3, axis=2)}[fmt]
    body = rows.tobytes()[: rows.size - padding]  # the last row has no padding behind it
    _, answer = program.ask("frame", body, width=7, height=5, stride=rows.shape[1] if padding else 0, format=fmt)
    np.testing.assert_array_equal(np.frombuffer(answer, np.uint8).reshape(5, 7, 3), expected)


@pytest.mark.parametrize(
    ("fields", "body", "status", "words"),
    [
        ({}, b"", INVALID_ARGUMENT, "null"),
        ({"format": 6}, b"x", INVALID_ARGUMENT, "pixel format 6"),
        ({"format": 4, "stride": 1}, b"x", INVALID_ARGUMENT, "stride is 1 bytes but a row of pixels takes 2"),
        ({"format": 4, "chroma_stride": 1}, b"x", INVALID_ARGUMENT, "chroma_stride is 1 bytes"),
        ({"format": 4, "width": 3, "stride": 3}, b"x", INVALID_ARGUMENT, "chroma_stride is 3 bytes but .* takes 4"),
        ({"format": 4, "chroma_stride": 2**63}, b"x", INVALID_ARGUMENT, "beyond any memory"),
        ({"format": 5, "stride": 3}, b"x", INVALID_ARGUMENT, "stride is 3 bytes but a row of pixels takes 4"),
        ({"format": 5, "matrix": 2}, b"x", INVALID_ARGUMENT, "color_matrix is 2"),
        ({"format": 4, "range": -1}, b"x", INVALID_ARGUMENT, "color_range is -1"),
        ({"format": 5, "chroma": 0}, b"x", INVALID_ARGUMENT, "belong to EP_PIXEL_NV12"),
        ({"format": 0, "chroma_stride": 9}, b"x", INVALID_ARGUMENT, "belong to EP_PIXEL_NV12"),
        ({"matrix": 1}, b"x", INVALID_ARGUMENT, "belong to EP_PIXEL_NV12 and EP_PIXEL_YUYV"),
        ({"stride": 5}, b"x", INVALID_ARGUMENT, "stride"),
        ({"stride": 2**63}, b"x", INVALID_ARGUMENT, "stride"),
        ({"width": 0}, b"x", IMAGE, "at least 1 x 1"),
        ({"height": 0}, b"x", IMAGE, "at least 1 x 1"),
        ({"height": -2}, b"x", IMAGE, "at least 1 x 1"),
        ({"width": 100_000, "height": 100_000}, b"x", IMAGE, "limit is 178956970"),
    ],
)
def test_bad_frames(program: ImageProgram, fields: dict[str, int], body: bytes, status: int, words: str) -> None:
    with pytest.raises(NativeError, match=words) as caught:
        program.ask("frame", body, **{"width": 2, "height": 2, "stride": 0, "format": RGB8, **fields})
    assert caught.value.status == status
