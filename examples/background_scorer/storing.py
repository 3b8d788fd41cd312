"""The file `edgeprune export --background-weights` reads: half-precision safetensors that say what they are for."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from edgeprune.export.models.background import Scorer, ScorerSpec
from edgeprune.export.weights import parameters


def tensors_of(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Parameters under the names and in the layout that an export reads, fp16."""
    made = {}
    for item in parameters(module):
        stored = item.leaf.from_checkpoint(item.attribute, item.value.detach())
        made[f"{prefix}.{item.name}"] = stored.reshape(item.leaf.checkpoint_shape(item.attribute)).half().contiguous()
    return made


def save(path: Path, scorer: Scorer, spec: ScorerSpec) -> None:
    """Writes the scorer's weights; the trunk's heads are added by trunk.py."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors_of(scorer, "background.scorer"), path, metadata={"scorer": spec.to_json()})


def add_heads(path: Path, heads: dict[str, torch.Tensor], encoder: str) -> None:
    """Adds trunk heads. `encoder`: fingerprint of the encoder they belong to."""
    with safetensors.safe_open(path, framework="pt") as stored:
        metadata, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    scorer = {name: value for name, value in tensors.items() if not name.startswith("background.trunk.")}
    safetensors.torch.save_file({**scorer, **heads}, path, metadata={**metadata, "trunk_encoder": encoder})
