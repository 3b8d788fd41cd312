"""CLIP's text encoder as a graph, and the projection of a CLIP tower's tokens to where its embeddings lie.

Both compute in float32 whatever the dtype of the encoder: what they make decides which tokens are kept.
Shape letters: M segments of a question, L ids of a segment, W width, E width of the shared space, C vision width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeprune.errors import CheckpointError
from edgeprune.export.models.layers import LayerNorm, Linear, Table
from edgeprune.export.models.vit import Block, VitSpec
from edgeprune.export.part import add_pruning_part
from edgeprune.export.passes.repeat import Run
from edgeprune.export.trace import Axis, Interface
from edgeprune.export.weights import renamer

#: float32 whatever the graph's dtype is
DTYPE: Final = torch.float32

#: names of a CLIP checkpoint -> ours
canonical: Final = renamer(
    (
        (r"^visual_projection\.", "text_space.visual_projection."),
        (r"^text_projection\.", "text_encoder.projection."),
        (r"^text_model\.embeddings\.token_embedding\.", "text_encoder.tokens."),
        (r"^text_model\.embeddings\.position_embedding\.", "text_encoder.positions."),
        (r"^text_model\.encoder\.layers\.(\d+)\.", r"text_encoder.blocks.\1."),
        (r"^text_model\.", "text_encoder."),
        (r"^(text_encoder\.blocks\.\d+)\.self_attn\.out_proj\.", r"\1.o_proj."),
        (r"^(text_encoder\.blocks\.\d+)\.(?:self_attn|mlp)\.", r"\1."),
        (r"^(text_encoder\.blocks\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    )
)


@dataclass(frozen=True)
class TextEncoderSpec:
    """Sizes of a text encoder.

    Attributes:
        positions: the longest segment.
        out: E. vision_width: C of the tower that the visual projection reads.
        end: the id whose first place answers for a segment; None: the place of the highest id, which old configs mean.
    """

    width: int
    heads: int
    layers: int
    mlp_width: int
    act: str
    eps: float
    vocab: int
    positions: int
    out: int
    vision_width: int
    end: int | None

    @classmethod
    def of(cls, config: Any) -> TextEncoderSpec:
        """From a transformers CLIPConfig."""
        text = config.text_config
        return cls(
            width=text.hidden_size, heads=text.num_attention_heads, layers=text.num_hidden_layers,
            mlp_width=text.intermediate_size, act=text.hidden_act, eps=text.layer_norm_eps, vocab=text.vocab_size,
            positions=text.max_position_embeddings, out=config.projection_dim,
            vision_width=config.vision_config.hidden_size,
            # transformers takes an end id of 2 for the mistake that the first configs have
            end=None if text.eos_token_id == 2 else int(text.eos_token_id),
        )  # fmt: skip

    def vit(self) -> VitSpec:
        """The same sizes as the blocks of a tower read them."""
        return VitSpec(
            width=self.width, heads=self.heads, head_width=self.width // self.heads, layers=self.layers,
            mlp_width=self.mlp_width, act=self.act, eps=self.eps, patch_px=1, grid=(1, 1), stored_grid=1,
            pre_norm=False, layer_scale=False, patch_bias=False, qkv_bias=True, table_rank=2, cls_rank=1, renames=(),
        )  # fmt: skip


class TextBlock(Block):
    """A block whose attention is biased by `bias` (L,L)."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        normed = self.norm1(x)
        return self.fed(self.attended(x, normed, self.keys(normed), self.values(normed), bias))


class TextEncoder(nn.Module):
    """input_ids (M,L) int64, L at most `positions` -> text_embeds (M,E) float32.

    Filling a segment up changes nothing: attention is causal, and the place that answers is one of the question's.
    """

    def __init__(self, spec: TextEncoderSpec, layers: int) -> None:
        super().__init__()
        self.tokens = Table(spec.vocab, spec.width, DTYPE)
        self.positions = Table(spec.positions, spec.width, DTYPE)
        self.blocks = nn.ModuleList(TextBlock(spec.vit(), DTYPE) for _ in range(layers))
        self.final_layer_norm = LayerNorm(spec.width, spec.eps)
        self.projection = Linear(spec.width, spec.out, False, DTYPE)
        self.end = spec.end
        later = torch.full((spec.positions, spec.positions), torch.finfo(DTYPE).min).triu(1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        length = input_ids.shape[1]
        x = self.tokens(input_ids) + self.positions.weight[:length]
        bias = self.get_buffer("later")[:length, :length]
        for block in self.blocks:
            x = block(x, bias)
        # ids below 2^24 are exact in float32, which every target's ArgMax takes
        wanted = input_ids if self.end is None else input_ids == self.end
        place = wanted.to(DTYPE).argmax(1).reshape(-1, 1, 1).expand(-1, 1, x.shape[2])
        return self.projection(self.final_layer_norm(torch.gather(x, 1, place).squeeze(1)))


class TextGraph(nn.Module):
    """The text encoder under the name that its weights have. All of it is the pruner's work."""

    def __init__(self, spec: TextEncoderSpec, *, whole: bool) -> None:
        super().__init__()
        self.text_encoder = TextEncoder(spec, spec.layers if whole else 1)
        self.pruning = add_pruning_part(self)

    def forward(self, input_ids: Tensor) -> Tensor:
        made: Tensor = self.pruning(self.text_encoder, input_ids)
        return made


class TextSpace(nn.Module):
    """Output of a block of a CLIP tower (B,S,C) -> (B,S,E) float32: the tower's last norm, CLIP's visual projection."""

    def __init__(self, spec: TextEncoderSpec, eps: float) -> None:
        super().__init__()
        self.post_layernorm = LayerNorm(spec.vision_width, eps)
        self.visual_projection = Linear(spec.vision_width, spec.out, False, DTYPE)
        self.width = spec.out

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.visual_projection(self.post_layernorm(x.to(DTYPE)))
        return made


def text_interface(spec: TextEncoderSpec) -> Interface:
    """Inputs and outputs of TextGraph."""
    runs = (Run("text_encoder.blocks", 0, spec.layers),) if spec.layers > 1 else ()
    return Interface(
        (Axis("input_ids", "input_ids", "int64", ("M", "L")),),
        (Axis("text_embeds", "text_embeds", "float32", ("M", spec.out)),),
        runs,
    )


def require_served(config: dict[str, Any], where: str) -> None:
    """CheckpointError unless a config.json is that of a whole CLIP."""
    kind = config.get("model_type")
    if kind == "clip":
        return
    whole = "; the visual projection lies in the whole CLIP checkpoint" if kind == "clip_text_model" else ""
    raise CheckpointError(f"--text-encoder {where} is a {kind} checkpoint, but served is clip{whole}")
