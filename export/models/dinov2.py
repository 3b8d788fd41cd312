"""DINOv2 vision tower (model_type dinov2)."""

from __future__ import annotations

from typing import Any

from edgeprune.errors import CheckpointError
from edgeprune.export.models.vit import VitSpec

RENAMES = (
    (r"^embeddings\.cls_token$", "cls.weight"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patches."),
    (r"^embeddings\.position_embeddings$", "positions.weight"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.attention\.", "."),
    (r"\.mlp\.", "."),
    (r"\.layer_scale(\d)\.lambda1$", r".scale\1.weight"),
)


def vit_spec(config: Any, image_px: int) -> VitSpec:
    """Sizes of a Dinov2Config at the picture size that preprocessing delivers.

    Raises:
        CheckpointError: a SwiGLU MLP, or a size that is no multiple of the patch.
    """
    if config.use_swiglu_ffn:
        raise CheckpointError("DINOv2 with use_swiglu_ffn is not served; the plain MLP variants (S, B, L) are")
    if image_px % config.patch_size:
        raise CheckpointError(f"{image_px} px is no multiple of the DINOv2 patch of {config.patch_size} px")
    side = image_px // config.patch_size
    return VitSpec(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        layers=config.num_hidden_layers,
        mlp_width=int(config.hidden_size * config.mlp_ratio),
        act=config.hidden_act,
        eps=config.layer_norm_eps,
        patch_px=config.patch_size,
        grid=(side, side),
        stored_grid=config.image_size // config.patch_size,
        pre_norm=False,
        layer_scale=True,
        patch_bias=True,
        qkv_bias=config.qkv_bias,
        table_rank=3,
        cls_rank=3,
        renames=RENAMES,
    )
