"""The background scorer in torch's own transformer layers: the reference that exported logits are compared with.

It shares no module with models/background.py.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.export.models.background import ScorerSpec
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.weights import WeightSource

_LAYER = {
    "self_attn.out_proj": "o_proj",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}


class ForegroundReference:
    """Logits of foreground minus background, from the scorer or from heads."""

    def __init__(self, family: ModelFamily, source: WeightSource) -> None:
        self._family, self._source = family, source

    @property
    def spec(self) -> ScorerSpec:
        assert self._family.background is not None
        return self._family.background

    def _get(self, name: str, *shape: int) -> Tensor:
        return self._source.tensor(f"background.{name}", shape).float()

    @cached_property
    def _layers(self) -> list[nn.TransformerEncoderLayer]:
        return [self._layer(index) for index in range(self.spec.layers)]

    def _layer(self, index: int) -> nn.TransformerEncoderLayer:
        width, mlp = self.spec.width, self.spec.mlp_width
        made = nn.TransformerEncoderLayer(
            width, self.spec.heads, mlp, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        ).eval()
        place = f"scorer.blocks.{index}."
        joined = {
            "self_attn.in_proj_weight": torch.cat([self._get(f"{place}{p}_proj.weight", width, width) for p in "qkv"]),
            "self_attn.in_proj_bias": torch.cat([self._get(f"{place}{p}_proj.bias", width) for p in "qkv"]),
        }
        state = made.state_dict()
        plain = {
            f"{theirs}.{part}": self._get(f"{place}{ours}.{part}", *state[f"{theirs}.{part}"].shape)
            for theirs, ours in _LAYER.items()
            for part in ("weight", "bias")
        }
        made.load_state_dict({**joined, **plain})
        return made

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """(B,3,S,S) float32 -> (B,N) float32."""
        width, side = self.spec.width, self.spec.patch_px
        kernel = self._get("scorer.patches.weight", width, 3, side, side)
        cut = functional.unfold(pixels, side, stride=side).transpose(1, 2)
        x = cut @ kernel.flatten(1).T + self._get("scorer.patches.bias", width)
        x = x + self._get("scorer.positions.weight", 1, self.spec.patches, width)
        for layer in self._layers:
            x = layer(x)
        gain, bias = (self._get(f"scorer.norm.{part}", width) for part in ("weight", "bias"))
        x = functional.layer_norm(x, (width,), gain, bias, 1e-6)
        made: Tensor = functional.linear(x, self._get("scorer.head.weight", 1, width), self._get("scorer.head.bias", 1))
        return made[..., 0]

    @torch.no_grad()
    def head(self, block: int, hidden: Tensor) -> Tensor:
        """(B,N,C) output of an encoder block -> (B,N) float32."""
        place, width = f"trunk.{block}.linear", hidden.shape[-1]
        made = functional.linear(hidden.float(), self._get(f"{place}.weight", 1, width), self._get(f"{place}.bias", 1))
        return made[..., 0]


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` highest scores (N,), ascending; of equal scores the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
