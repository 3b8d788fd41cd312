"""CLIP vision tower (model_type clip_vision_model)."""

from __future__ import annotations

from typing import Any

from edgeprune.errors import CheckpointError
from edgeprune.export.models.vit import VitSpec

RENAMES = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "cls.weight"),
    (r"^embeddings\.patch_embedding\.", "patches."),
    (r"^embeddings\.position_embedding\.weight$", "positions.weight"),
    (r"^pre_layrnorm\.", "pre_norm."),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.self_attn\.out_proj\.", ".o_proj."),
    (r"\.self_attn\.", "."),
    (r"\.mlp\.", "."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
)


def vit_spec(config: Any, image_px: int) -> VitSpec:
    """Sizes of a CLIPVisionConfig; `image_px` is what preprocessing delivers and must be the tower's own."""
    if config.image_size != image_px:
        raise CheckpointError(
            f"preprocessing delivers {image_px} px but the CLIP tower takes {config.image_size} px: "
            "make preprocessor_config.json and config.json agree"
        )
    side = config.image_size // config.patch_size
    return VitSpec(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        head_width=config.hidden_size // config.num_attention_heads,
        layers=config.num_hidden_layers,
        mlp_width=config.intermediate_size,
        act=config.hidden_act,
        eps=config.layer_norm_eps,
        patch_px=config.patch_size,
        grid=(side, side),
        stored_grid=side,
        pre_norm=True,
        layer_scale=False,
        patch_bias=False,
        qkv_bias=True,
        table_rank=2,
        cls_rank=1,
        renames=RENAMES,
    )
