"""Small random CLIP checkpoints written by Hugging Face transformers itself: text encoders of small LLaVAs."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from tests.checkpoints import QUESTION_CORPUS


@dataclasses.dataclass(frozen=True)
class ClipShape:
    """Sizes of a test CLIP.

    Attributes:
        vision_width: of the tower that the visual projection reads.
        positions: the longest segment.
        old_end: the config names an end id of 2, as the first CLIPs do.
    """

    vision_width: int = 64
    width: int = 48
    layers: int = 3
    heads: int = 4
    out: int = 40
    positions: int = 77
    old_end: bool = False
    seed: int = 0


def clip_tokenizer():
    """CLIP's own kind of tokenizer over a small vocabulary; begin and end are the last ids, as in the real one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    parts = CLIPTokenizer().backend_tokenizer
    tok = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tok.normalizer, tok.pre_tokenizer = parts.normalizer, parts.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    tok.train_from_iterator([QUESTION_CORPUS] * 20, trainer)
    model = json.loads(tok.to_str())["model"]
    vocab = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *model["vocab"]])
    ids = {token: place for place, token in enumerate(vocab)}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        ids[special] = len(ids)
    return CLIPTokenizer(vocab=ids, merges=[tuple(pair) for pair in model["merges"]])


def write_clip(folder: pathlib.Path, shape: ClipShape | None = None) -> pathlib.Path:
    """Writes config, weights and tokenizer of a random CLIP into `folder`."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    shape = shape or ClipShape()
    torch.manual_seed(shape.seed)
    tokenizer = clip_tokenizer()
    text = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 2 * shape.width,
        "vocab_size": len(tokenizer) + 3,
        "max_position_embeddings": shape.positions,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": 2 if shape.old_end else tokenizer.eos_token_id,
        "projection_dim": shape.out,
    }
    vision = {
        "hidden_size": shape.vision_width,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": shape.vision_width,
        "image_size": 56,
        "patch_size": 14,
        "projection_dim": shape.out,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape.out)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:  # larger than they are drawn: questions must differ by more than rounding
                parameter.mul_(8.0 if "q_proj" in name or "k_proj" in name else 16.0 if "v_proj" in name else 4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
