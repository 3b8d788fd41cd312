"""Cache of what the frozen vision encoder says about every scene: `python features.py DIR SPLIT START COUNT`.

Writes DIR/SPLIT-START.pt: a dict with
    hidden     (n, 256, 384) bfloat16   hidden_states[9], patches only, raw
    attention  (n, 2, 256) float32      [CLS] row of blocks 8 and 9: mean over heads, [CLS] column dropped
                                        without renormalising
    foreground (n, 256) float32         share of object pixels per patch
    questions, meta                     lists of length n, see scenes.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch

from edgeprune.export import demo

ENCODER_CONFIG = {
    "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14,
    "image_size": scenes.SIZE_PX, "layer_norm_eps": 1e-6,
}  # fmt: skip
FEATURE_LAYER = 9  # index into hidden_states: the output of block 8
SCORE_BLOCKS = (8, 9)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 16


class ScoredEncoder(torch.nn.Module):
    """The frozen vision encoder with hooks that keep the queries and keys of the score blocks."""

    def __init__(self) -> None:
        super().__init__()
        state = demo.encoder_state(demo.packaged_file(demo.ENCODER))
        self.model = demo.encoder_model(state, ENCODER_CONFIG)
        self.model.encoder.layer = self.model.encoder.layer[: max(SCORE_BLOCKS) + 1]  # later blocks serve nobody here
        self._seen: dict[tuple[int, str], torch.Tensor] = {}
        for block in SCORE_BLOCKS:
            attention = self.model.encoder.layer[block].attention
            for part, linear in (("q", attention.q_proj), ("k", attention.k_proj)):
                linear.register_forward_hook(self._keeper(block, part))

    def _keeper(self, block: int, part: str):
        def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            self._seen[block, part] = output

        return keep

    def _cls_row(self, block: int) -> torch.Tensor:
        """[CLS] attention of a block over the patches, (B, 256) float32."""
        query, key = self._seen[block, "q"].float(), self._seen[block, "k"].float()
        images, tokens, width = key.shape
        heads = ENCODER_CONFIG["num_attention_heads"]
        query = query[:, :1].view(images, 1, heads, width // heads).transpose(1, 2)
        key = key.view(images, tokens, heads, width // heads).transpose(1, 2)
        row = (query @ key.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
        return row[:, :, 0, 1:].mean(1)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pixels (B, 3, 224, 224) -> hidden (B, 256, 384), attention (B, 2, 256)."""
        hidden = self.model(pixels, output_hidden_states=True).hidden_states[FEATURE_LAYER][:, 1:]
        return hidden, torch.stack([self._cls_row(block) for block in SCORE_BLOCKS], 1)


def pixel_values(images: list) -> torch.Tensor:
    """224 px RGB pictures -> (B, 3, 224, 224) float32, 1/255 then mean and standard deviation."""
    raw = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    return (raw - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def extract(split: str, start: int, count: int) -> dict[str, Any]:
    """The cache of scenes start .. start + count - 1, see the module docstring."""
    encoder = ScoredEncoder()
    parts: dict[str, list] = {"hidden": [], "attention": [], "foreground": [], "questions": [], "meta": []}
    for first in range(start, start + count, BATCH):
        batch = list(scenes.iter_scenes(split, min(BATCH, start + count - first), first))
        hidden, attention = encoder(pixel_values([scene.image for scene in batch]))
        parts["hidden"].append(hidden.bfloat16())
        parts["attention"].append(attention)
        parts["foreground"] += [torch.from_numpy(scene.foreground) for scene in batch]
        parts["questions"] += [[tuple(question) for question in scene.questions] for scene in batch]
        parts["meta"] += [scene.meta._asdict() | {"objects": [tuple(o) for o in scene.meta.objects]} for scene in batch]
    joined = {key: torch.cat(parts[key]) for key in ("hidden", "attention")}
    return {**parts, **joined, "foreground": torch.stack(parts["foreground"])}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("split", choices=("train", "val", "test", "small"))
    parser.add_argument("start", type=int)
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    problem = scenes.missing_sources()
    if problem:
        raise SystemExit(problem)
    torch.set_num_threads(1)
    began = time.monotonic()
    args.directory.mkdir(parents=True, exist_ok=True)
    torch.save(extract(args.split, args.start, args.count), args.directory / f"{args.split}-{args.start}.pt")
    print(f"{args.split} {args.start}+{args.count}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
