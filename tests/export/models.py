"""Small random transformers models, and ours filled with the same weights."""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.export.models.llava import Llava
from edgeprune.export.weights import MemorySource, fill


def llava_config(vision: str = "clip", side: int = 16, layers: int = 4, feature_layer: int = -2, **text: Any) -> Any:
    """A LlavaConfig with side x side patches of 4 px."""
    from transformers import CLIPVisionConfig, Dinov2Config, LlamaConfig, LlavaConfig

    common = {
        "hidden_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 3,
        "image_size": side * 4,
        "patch_size": 4,
    }
    tower = (
        CLIPVisionConfig(intermediate_size=96, **common) if vision == "clip" else Dinov2Config(mlp_ratio=2, **common)
    )
    decoder = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "max_position_embeddings": 1024,
    }
    return LlavaConfig(
        vision_config=tower,
        text_config=LlamaConfig(**{**decoder, **text}),
        image_token_index=100,
        vision_feature_layer=feature_layer,
        image_seq_length=side * side,
    )


def hf_model(config: Any, seed: int = 0) -> Any:
    """LlavaForConditionalGeneration with eager attention, its queries and keys large enough to keep scores apart."""
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(10.0)
            elif "layer_scale" in name:
                parameter.uniform_(0.2, 1.5)
            elif name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def family_of(model: Any, image_px: int | None = None) -> tuple[Llava, MemorySource]:
    """Our family for a transformers model, and its weights."""
    family = Llava(model.config, image_px or model.config.vision_config.image_size)
    return family, MemorySource(model.state_dict(), family.canonical)


def filled(module: torch.nn.Module, family: Llava, source: MemorySource) -> torch.nn.Module:
    """`module` with weights in memory."""
    fill(module, source, family.canonical)
    return module.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest |expected|."""
    return float((found - expected).abs().max() / expected.abs().max())
