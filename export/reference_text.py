"""The torch reference of a text encoder: transformers' own CLIP in float32, called as the paper's code calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.export.models.text_encoder import canonical
from edgeprune.export.text_encoder import TextEncoderWeights
from edgeprune.export.weights import WeightSource


class TextReference:
    """CLIP's text encoder and visual projection."""

    def __init__(self, weights: TextEncoderWeights, source: WeightSource) -> None:
        """`source`: gives the weights where they are random."""
        self.spec = weights.spec
        self.model = _random(weights, source) if weights.random_weights else _loaded(weights)

    @torch.inference_mode()
    def embed(self, ids: list[int]) -> np.ndarray:
        """Ids of a question -> (M,E): whole segments, filled with 0 that the attention mask leaves out."""
        length = self.spec.positions
        filled = torch.zeros(-(-len(ids) // length), length, dtype=torch.int64)
        mask = torch.zeros_like(filled)
        filled.view(-1)[: len(ids)] = torch.tensor(ids)
        mask.view(-1)[: len(ids)] = 1
        pooled = self.model.text_model(input_ids=filled, attention_mask=mask).pooler_output
        made: np.ndarray = self.model.text_projection(pooled).numpy()
        return made

    def in_text_space(self, hidden: Tensor, post_layernorm: Any) -> Tensor:
        """Visual tokens (B,N,C) -> (B,N,E). `post_layernorm`: the vision tower's."""
        made: Tensor = self.model.visual_projection(post_layernorm(hidden).float())
        return made


def _loaded(weights: TextEncoderWeights) -> Any:
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(weights.folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def _random(weights: TextEncoderWeights, source: WeightSource) -> Any:
    from transformers import CLIPModel

    weights.config._attn_implementation = "eager"
    model = CLIPModel(weights.config).float().eval()
    for name, parameter in model.named_parameters():
        ours = canonical(name)
        if ours.startswith(("text_encoder.", "text_space.")):
            parameter.copy_(source.tensor(ours, tuple(parameter.shape)))
    return model
