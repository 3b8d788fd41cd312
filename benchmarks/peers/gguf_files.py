"""A LLaVA checkpoint as llama.cpp reads it: `python gguf_files.py CHECKPOINT FOLDER` writes FOLDER/text.gguf, the Llama
in Q4_0, and FOLDER/mmproj.gguf, the CLIP tower and the projector in Q8_0.

Tensor by tensor, so that no more than one of them is in memory. Every matrix of the Llama is Q4_0, embedding and last
product too, where llama.cpp's own converter keeps six bits for the last product: this way is the faster one.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from safetensors import safe_open

Array = np.ndarray[Any, np.dtype[Any]]
Type = gguf.GGMLQuantizationType
TEXT, VISION, PROJECTOR = "language_model.model.", "vision_tower.vision_model.", "multi_modal_projector."
LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
BLOCKS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


@dataclass(frozen=True)
class Tensor:
    """Name in the GGUF file, its type there, and what to do with the checkpoint's values first."""

    name: str
    source: str
    type: Type
    change: Callable[[Array], Array] = lambda values: values


class Checkpoint:
    """The safetensors shards of a folder and its config.json."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.files = [safe_open(path, framework="np") for path in sorted(folder.glob("*.safetensors"))]
        self.place = {name: file for file in self.files for name in file.keys()}  # noqa: SIM118 (not a dict)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.place[name].get_slice(name).get_shape())

    def values(self, name: str) -> Array:
        found: Array = self.place[name].get_tensor(name)
        return found


def interleaved(values: Array, heads: int) -> Array:
    """Rows of queries or keys, a head's first and second half (Hugging Face) -> pairs beside each other (ggml's rotary
    embedding)."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)


def text_tensors(checkpoint: Checkpoint) -> Iterator[Tensor]:
    """The Llama; where the last product shares the embedding's weights, llama.cpp wants them once."""
    config = checkpoint.config["text_config"]
    matrix, heads = Type.Q4_0, config["num_attention_heads"]
    groups = config.get("num_key_value_heads", heads)
    yield Tensor("token_embd.weight", f"{TEXT}embed_tokens.weight", matrix)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in LAYERS.items():
            name, source = f"blk.{layer}.{ours}.weight", f"{TEXT}layers.{layer}.{theirs}.weight"
            if ours in ("attn_q", "attn_k"):
                turned = heads if ours == "attn_q" else groups
                yield Tensor(name, source, matrix, lambda values, turned=turned: interleaved(values, turned))
            else:
                yield Tensor(name, source, Type.F32 if ours.endswith("norm") else matrix)
    yield Tensor("output_norm.weight", f"{TEXT}norm.weight", Type.F32)
    last = "language_model.lm_head.weight"
    if last in checkpoint.place:
        yield Tensor("output.weight", last, matrix)


def vision_tensors(blocks: int) -> Iterator[Tensor]:
    """The tower up to the feature block, and the projector."""
    matrix, embeddings = Type.Q8_0, f"{VISION}embeddings."
    yield Tensor("v.class_embd", f"{embeddings}class_embedding", Type.F32)
    # A row of 14 pixels cannot be cut into the 32 values of a quantised group.
    yield Tensor("v.patch_embd.weight", f"{embeddings}patch_embedding.weight", Type.F16)
    yield Tensor("v.position_embd.weight", f"{embeddings}position_embedding.weight", Type.F32)
    named = {f"{VISION}pre_layrnorm": "v.pre_ln", f"{PROJECTOR}linear_1": "mm.0", f"{PROJECTOR}linear_2": "mm.2"}
    for block in range(blocks):
        for theirs, ours in BLOCKS.items():
            named[f"{VISION}encoder.layers.{block}.{theirs}"] = f"v.blk.{block}.{ours}"
    for source, name in named.items():
        norm = name.rsplit(".", 1)[-1] in ("pre_ln", "ln1", "ln2")
        yield Tensor(f"{name}.weight", f"{source}.weight", Type.F32 if norm else matrix)
        yield Tensor(f"{name}.bias", f"{source}.bias", Type.F32)


def used_blocks(config: dict[str, Any]) -> int:
    """How many of the tower's blocks run before the features are taken (vision_feature_layer, -1 is the last one)."""
    layer: int = config["vision_feature_layer"]
    return layer if layer >= 0 else config["vision_config"]["num_hidden_layers"] + 1 + layer


def describe_text(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    """Sizes and the tokenizer: its ids are those of tokenizer.json, whose text is split in GPT-2's way."""
    config = checkpoint.config["text_config"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    tokenizer = json.loads((checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8"))
    specials = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words = {index: word for word, index in tokenizer["model"]["vocab"].items()} | specials
    ids = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([words.get(index, f"<unused{index}>") for index in ids])
    kind = gguf.TokenType
    writer.add_token_types(
        [kind.CONTROL if index in specials else kind.NORMAL if index in words else kind.UNUSED for index in ids]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    settings = json.loads((checkpoint.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "chat_template" in settings:
        writer.add_chat_template(settings["chat_template"])


def describe_vision(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    """The tower as it is used: blocks behind the features are left out, and the last one's output is the feature."""
    config = checkpoint.config["vision_config"]
    if config.get("hidden_act", "quick_gelu") != "quick_gelu":
        raise SystemExit("llama.cpp's default activation is quick_gelu; this tower has another one")
    pictures = json.loads((checkpoint.folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    blocks = used_blocks(checkpoint.config)
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(checkpoint.config["text_config"]["hidden_size"])
    writer.add_vision_image_size(config["image_size"])
    writer.add_vision_patch_size(config["patch_size"])
    writer.add_vision_embedding_length(config["hidden_size"])
    writer.add_vision_feed_forward_length(config["intermediate_size"])
    writer.add_vision_block_count(blocks)
    writer.add_vision_head_count(config["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(config.get("layer_norm_eps", 1e-5))
    writer.add_vision_image_mean(pictures["image_mean"])
    writer.add_vision_image_std(pictures["image_std"])
    writer.add_array("clip.vision.feature_layer", [blocks])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def stream(writer: gguf.GGUFWriter, checkpoint: Checkpoint, tensors: list[Tensor]) -> None:
    """Header first, from shapes alone; then each tensor is read, changed, quantised and written."""
    for tensor in tensors:
        shape = checkpoint.shape(tensor.source)
        size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, tensor.type)))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        values = tensor.change(checkpoint.values(tensor.source).astype(np.float32))
        writer.write_tensor_data(gguf.quants.quantize(values, tensor.type))
    writer.close()


def write(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Both files; the folder appears when they are whole."""
    checkpoint = Checkpoint(source)
    unfinished = folder.with_name(folder.name + ".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    text = gguf.GGUFWriter(unfinished / "text.gguf", "llama")
    describe_text(text, checkpoint)
    stream(text, checkpoint, list(text_tensors(checkpoint)))
    vision = gguf.GGUFWriter(unfinished / "mmproj.gguf", "clip")
    describe_vision(vision, checkpoint)
    stream(vision, checkpoint, list(vision_tensors(used_blocks(checkpoint.config))))
    unfinished.rename(folder)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
