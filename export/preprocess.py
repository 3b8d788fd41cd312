"""preprocessor_config.json -> the manifest's `preprocess`; and the same pixels from transformers, for golden files."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from edgeprune.errors import CheckpointError

_RESAMPLE: Final = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

_CLIP_MEAN: Final = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD: Final = [0.26862954, 0.26130258, 0.27577711]

#: image_processor_type -> values where the file says nothing, as in transformers
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    name: {
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _CLIP_MEAN,
        "image_std": _CLIP_STD,
        "do_convert_rgb": True,
        "do_pad": False,
    }
    for name in ("CLIPImageProcessor", "BitImageProcessor", "LlavaImageProcessor")
}


def processor_name(config: dict[str, Any]) -> str:
    """Class name without the suffix of its back end.

    Raises:
        CheckpointError: the class is not served.
    """
    given = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "none")
    name = given.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if name not in _DEFAULTS:
        raise CheckpointError(f"the image processor {given!r} is not served; served are {', '.join(_DEFAULTS)}")
    return name


def letterboxed(config: dict[str, Any]) -> dict[str, Any]:
    """The same processor, padding to a square with the mean colour first, as LLaVA-1.5's own preprocessing does."""
    processor_name(config)
    return {**config, "image_processor_type": "LlavaImageProcessor", "do_pad": True}


def preprocess_manifest(config: dict[str, Any]) -> dict[str, Any]:
    """The `preprocess` object of the manifest.

    Raises:
        CheckpointError: a processor or setting that is not served; the message names it.
    """
    name = processor_name(config)
    full = {**_DEFAULTS[name], **{key: value for key, value in config.items() if value is not None}}
    for flag in ("do_resize", "do_rescale", "do_normalize"):
        if not full[flag]:
            raise CheckpointError(f"preprocessor_config.json has {flag} false, which is not served")
    if full["resample"] not in _RESAMPLE:
        raise CheckpointError(f"resample {full['resample']} is not served; served are 1 lanczos, 2 bilinear, 3 bicubic")
    pad = bool(full["do_pad"]) and name == "LlavaImageProcessor"
    return {
        "kind": "square",
        "pad_square": {"color": [int(mean * 255) for mean in full["image_mean"]]} if pad else None,
        "resize": {**_resize(full["size"]), "resample": _RESAMPLE[full["resample"]]},
        "center_crop_px": _height_width(full["crop_size"]) if full["do_center_crop"] else None,
        "rescale": full["rescale_factor"],
        "mean": list(full["image_mean"]),
        "std": list(full["image_std"]),
        "folded": False,
    }


def _resize(size: Any) -> dict[str, Any]:
    if isinstance(size, int):
        return {"mode": "shortest_edge", "size_px": [size]}
    if set(size) == {"shortest_edge"}:
        return {"mode": "shortest_edge", "size_px": [size["shortest_edge"]]}
    if set(size) == {"height", "width"}:
        return {"mode": "exact", "size_px": [size["height"], size["width"]]}
    raise CheckpointError(f"resizing by {', '.join(size)} is not served; shortest_edge, or height and width, are")


def _height_width(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else [size["height"], size["width"]]


def output_px(preprocess: dict[str, Any]) -> int:
    """Side of the square that preprocessing delivers.

    Raises:
        CheckpointError: it delivers no fixed square.
    """
    resize = preprocess["resize"]
    squared = preprocess["pad_square"] is not None and resize["mode"] == "shortest_edge"
    size = preprocess["center_crop_px"] or (resize["size_px"] * 2 if squared else resize["size_px"])
    if len(size) != 2 or size[0] != size[1]:
        raise CheckpointError("preprocessor_config.json delivers pictures that are not square; a square crop is needed")
    return int(size[0])


def padding_mask(preprocess: dict[str, Any], height: int, width: int, grid: tuple[int, int]) -> np.ndarray:
    """(N,) float32: 1 for a patch of which more than half is padding around a picture (H,W); the rule of
    https://github.com/intcomp/attention-bias. `preprocess` has a pad_mask."""
    length, patch = output_px(preprocess), preprocess["pad_mask"]["patch_px"]
    target, padded = preprocess["resize"]["size_px"][0], max(height, width)
    start = (target - length) // 2

    def shown(source: int, count: int) -> np.ndarray:
        """Pixels of each patch that show the picture, times `padded`: whole numbers."""
        low = (padded - source) // 2 * target - start * padded
        edges = np.arange(count + 1, dtype=np.int64) * (patch * padded)
        inside = np.minimum(low + source * target, edges[1:]) - np.maximum(low, edges[:-1])
        return np.maximum(0, inside).astype(object)

    area = np.outer(shown(height, grid[0]), shown(width, grid[1]))
    return (2 * area < (patch * padded) ** 2).astype(np.float32).ravel()


def reference_pixels(config: dict[str, Any], image: np.ndarray) -> np.ndarray:
    """Bytes (S,S,3) uint8 that transformers' Pillow back end makes of an RGB picture (H,W,3), before rescaling."""
    import transformers
    from PIL import Image

    name = processor_name(config)
    settings = {key: value for key, value in config.items() if key in _DEFAULTS[name]}
    processor = getattr(transformers, f"{name}Pil")(**settings)
    made = processor(images=Image.fromarray(image), do_rescale=False, do_normalize=False, return_tensors="np")
    return np.rint(made["pixel_values"][0].transpose(1, 2, 0)).clip(0, 255).astype(np.uint8)


def normalise(pixels: np.ndarray, preprocess: dict[str, Any]) -> np.ndarray:
    """(S,S,3) uint8 -> (1,3,S,S) float32, as the vision graph takes them."""
    mean, std = (np.asarray(preprocess[key], np.float32) for key in ("mean", "std"))
    scaled = (pixels.astype(np.float32) * np.float32(preprocess["rescale"]) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)
