"""A background scorer with random weights for the grid of the checkpoint: it costs what a trained one costs, and what
it chooses means nothing."""

from __future__ import annotations

import pathlib

import safetensors.torch

from edgeprune.export.models.background import Scorer, ScorerSpec
from edgeprune.export.weights import RandomSource, fill, parameters

PREFIX = "background.scorer."
#: CLIP's, which the checkpoint was trained with: nothing is folded into the patches
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write(path: pathlib.Path, grid: tuple[int, int], patch_px: int) -> pathlib.Path:
    """The file that `export --background-weights` reads."""
    spec = ScorerSpec(grid, patch_px, MEAN, STD)
    scorer = Scorer(spec)
    fill(scorer, RandomSource(), lambda name: PREFIX + name)
    tensors = {
        PREFIX + item.name: item.leaf.from_checkpoint(item.attribute, item.value).contiguous()
        for item in parameters(scorer)
    }
    safetensors.torch.save_file(tensors, path, metadata={"scorer": spec.to_json()})
    return path
