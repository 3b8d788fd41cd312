"""A small bundle on disk, written by the real writer: bytes instead of graphs, everything else as an export has it."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

from edgeprune.bundle import BundleWriter
from edgeprune.recipe import ExportRecipe

FILES = {
    "onnx/vision-fastervlm.onnx": b"vision",
    "onnx/embedding.onnx": b"embedding",
    "onnx/decoder.onnx": b"decoder",
    "onnx/vision.data": bytes(range(256)) * 40,
    "tokenizer/tokenizer.json": b"{}",
}


def tensor(role: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"role": role, "name": role, "dtype": dtype, "shape": list(shape)}


GRAPHS: dict[str, Any] = {
    "vision": {
        "fastervlm": [
            {
                "stage": "vision",
                "file": "onnx/vision-fastervlm.onnx",
                "data": ["onnx/vision.data"],
                "inputs": [tensor("pixel_values", "float32", "B", 3, 56, 56), tensor("keep_slots", "float32", "K")],
                "outputs": [tensor("visual_embeds", "float32", "B", "K", 8)],
            }
        ]
    },
    "embedding": {
        "stage": "embedding",
        "file": "onnx/embedding.onnx",
        "data": [],
        "inputs": [tensor("input_ids", "int64", "B", "L")],
        "outputs": [tensor("inputs_embeds", "float32", "B", "L", 8)],
    },
    "decoder": {
        "stage": "decoder",
        "file": "onnx/decoder.onnx",
        "data": [],
        "inputs": [tensor("inputs_embeds", "float32", "B", "T", 8)],
        "outputs": [tensor("logits", "float32", "B", 1, 500)],
        "kv": {"kind": "growing", "layers": 2, "heads": 2, "head_dim": 4, "dtype": "float32"},
    },
}


def manifest() -> dict[str, Any]:
    """A manifest without `files`, which the writer adds."""
    method = {
        "name": "fastervlm", "spec": "fastervlm", "parameters": {}, "stages": ["signal", "select"],
        "where": "before_projector", "scope": "view", "text": False, "dynamic_keep": True, "static_keep": None,
        "has_scores": True, "keep_counts": [{"first": 4, "last": 16, "step": 4}],
    }  # fmt: skip
    return copy.deepcopy({
        "schema_version": 1,
        "name": "sample",
        "family": "llava",
        "source": {"id": "sample", "revision": None, "sha256": None, "random_weights": True},
        "recipe": ExportRecipe("sample", keep=0.25).to_dict(),
        "notes": [],
        "visual_tokens": 16,
        "grid": [4, 4],
        "keep": {"default": 0.25, "min": 0.01, "max": 1},
        "methods": {"default": "fastervlm", "each": {"fastervlm": method}},
        "preprocess": {
            "kind": "square",
            "pad_square": {"color": [122, 116, 104]},
            "resize": {"mode": "shortest_edge", "size_px": [56], "resample": "bicubic"},
            "center_crop_px": [56, 56],
            "rescale": 1 / 255,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "folded": False,
        },
        "prompt": {
            "segments": [
                {"text": "USER: "},
                {"images": {"before": "", "after": "\n"}},
                {"question": True},
                {"text": " ASSISTANT:"},
            ]
        },
        "tokens": {"image_marker": "<image>", "image": 3, "eos": [2], "prefix": [1], "suffix": [], "stop": ["USER:"]},
        "positions": "compact",
        "context_length": 512,
        "graphs": GRAPHS,
        "opset": 20,
        "min_onnxruntime": "1.17",
        "variants": [],
        "golden": {"reason": "a sample"},
        "parity": [{"stage": "vision", "measure": "scores", "value": 0, "tolerance": 1e-4, "passed": True}],
        "versions": {"edgeprune": "0.1.0"},
    })  # fmt: skip


def write_bundle(place: pathlib.Path, **settings: Any) -> pathlib.Path:
    """Writes the sample bundle to `place`; `settings` go to the writer."""
    with BundleWriter(place, **settings) as writer:
        write_files(writer.path)
        return writer.commit(manifest())


def write_files(folder: pathlib.Path) -> None:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
