"""Small random LLaVA checkpoints written by Hugging Face transformers itself, as test material.

The weights are random, so the text means nothing; shapes, names, files and maths are those of a real checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

QUESTION_CORPUS = (
    "What is in the image? How many objects are there? What is on the left? Is there a cat in the image? "
    "What colour is the background? one two three yes no red green blue describe the picture, please. USER: ASSISTANT:"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a test checkpoint. image_px / patch gives the grid; feature_layer is HF's vision_feature_layer."""

    vision: str = "clip"
    image_px: int = 56
    patch: int = 14
    vision_width: int = 64
    vision_layers: int = 4
    vision_heads: int = 4
    feature_layer: int = -2
    width: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    seed: int = 0


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<s>", "</s>", "<image>"],
        show_progress=False,
    )
    tok.train_from_iterator([QUESTION_CORPUS] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _vision_config(shape: Shape):
    from transformers import CLIPVisionConfig, Dinov2Config

    common = {
        "image_size": shape.image_px,
        "patch_size": shape.patch,
        "hidden_size": shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
    }
    if shape.vision == "clip":
        return CLIPVisionConfig(intermediate_size=2 * shape.vision_width, projection_dim=32, **common)
    return Dinov2Config(mlp_ratio=2, **common)


def _sharpen(model) -> None:
    """Random weights attend almost evenly; larger queries, keys and outputs make scores and logits tie-free."""
    import torch

    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "attention.query", "attention.key")):
                p.mul_(8.0)
            elif "lm_head" in name or "embed_tokens" in name:
                p.mul_(4.0)


def write_checkpoint(folder: pathlib.Path, shape: Shape | None = None) -> pathlib.Path:
    """Writes config, weights, tokenizer and processor files of a random LLaVA into `folder`."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    shape = shape or Shape()
    torch.manual_seed(shape.seed)
    tokenizer = _tokenizer()
    text = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads if shape.width % shape.heads == 0 else 16,
        vocab_size=512,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=_vision_config(shape),
        text_config=text,
        image_token_index=3,
        vision_feature_select_strategy="default",
        vision_feature_layer=shape.feature_layer,
        image_seq_length=(shape.image_px // shape.patch) ** 2,
    )
    model = LlavaForConditionalGeneration(config).eval()
    _sharpen(model)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_processor(folder, shape)
    return folder


def _write_processor(folder: pathlib.Path, shape: Shape) -> None:
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shape.image_px},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": shape.image_px, "width": shape.image_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": shape.patch,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2))
