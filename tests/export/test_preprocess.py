"""preprocessor_config.json -> the manifest, and the same pixels from transformers' Pillow back end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprune.errors import CheckpointError
from edgeprune.export.preprocess import normalise, output_px, preprocess_manifest, reference_pixels

CLIP: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 56},
    "crop_size": {"height": 56, "width": 56},
}
LLAVA = {**CLIP, "image_processor_type": "LlavaImageProcessor", "do_pad": True}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_clip_defaults_are_filled_in() -> None:
    found = preprocess_manifest(CLIP)
    assert found["resize"] == {"mode": "shortest_edge", "size_px": [56], "resample": "bicubic"}
    assert found["center_crop_px"] == [56, 56]
    assert found["rescale"] == pytest.approx(1 / 255)
    assert found["pad_square"] is None
    assert output_px(found) == 56


@pytest.mark.parametrize("suffix", ["", "Fast", "Pil"])
@pytest.mark.parametrize("name", ["CLIPImageProcessor", "BitImageProcessor", "LlavaImageProcessor"])
def test_served_processors(name: str, suffix: str) -> None:
    assert output_px(preprocess_manifest({**CLIP, "image_processor_type": name + suffix})) == 56


def test_padding_colour_is_the_mean() -> None:
    found = preprocess_manifest({**LLAVA, "image_mean": [0.5, 0.25, 1.0]})
    assert found["pad_square"] == {"color": [127, 63, 255]}
    assert output_px(preprocess_manifest({**LLAVA, "do_center_crop": False})) == 56


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_processor_type": "SiglipImageProcessor"}, "SiglipImageProcessor"),
        ({"image_processor_type": None}, "'none'"),
        ({"resample": 0}, "resample 0"),
        ({"do_normalize": False}, "do_normalize"),
        ({"size": {"longest_edge": 56}}, "longest_edge"),
        ({"do_center_crop": False}, "square"),
        ({"crop_size": {"height": 56, "width": 42}}, "square"),
    ],
)
def test_what_is_not_served_is_refused_by_name(change: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        output_px(preprocess_manifest({**CLIP, **change}))


@pytest.mark.parametrize("size", [(56, 56), (40, 100), (300, 57)])
@pytest.mark.parametrize("config", [CLIP, LLAVA], ids=["crop", "pad"])
def test_reference_pixels_normalise_to_what_the_processor_returns(
    config: dict[str, Any], size: tuple[int, int]
) -> None:
    import transformers
    from PIL import Image

    image = picture(*size)
    pixels = reference_pixels(config, image)
    assert pixels.shape == (56, 56, 3)
    settings = {key: value for key, value in config.items() if key != "image_processor_type"}
    processor = getattr(transformers, config["image_processor_type"] + "Pil")(**settings)
    expected = processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(normalise(pixels, preprocess_manifest(config)), expected, atol=2e-6)
