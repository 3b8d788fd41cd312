"""Background scorers with random weights, written as examples/background_scorer writes them."""

from __future__ import annotations

import pathlib

import safetensors.torch
import torch

from edgeprune.export.models.background import Scorer, ScorerSpec
from edgeprune.export.weights import RandomSource, fill, parameters


def write_scorer(path: pathlib.Path, spec: ScorerSpec, encoder: str | None = None) -> pathlib.Path:
    """A scorer file; with `encoder`, a fingerprint, also a head for block 1 of an encoder of width 48."""
    scorer = Scorer(spec)
    fill(scorer, RandomSource(), lambda name: f"background.scorer.{name}")
    tensors = {
        f"background.scorer.{item.name}": item.leaf.from_checkpoint(item.attribute, item.value).contiguous()
        for item in parameters(scorer)
    }
    metadata = {"scorer": spec.to_json()}
    if encoder is not None:
        metadata["trunk_encoder"] = encoder
        head = {"weight": torch.ones(1, 48), "bias": torch.ones(1)}
        tensors |= {f"background.trunk.1.linear.{part}": value for part, value in head.items()}
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    return path
