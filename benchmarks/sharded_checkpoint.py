"""A LLaVA-1.5 checkpoint of any depth as Hugging Face lays it out: fp16 safetensors shards with an index, made in
constant memory. The weights are random bits in a sane range, so its answers mean nothing; sizes and files are real.

    python -m benchmarks.sharded_checkpoint DIR [--model llava15] [--decoder-layers N] [--vision-layers N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeprune.export.aliases import ALIASES

SHARD_BYTES = 5 << 30
#: sign, exponent and mantissa of an fp16 number: sign and mantissa are random
_SIGN_AND_MANTISSA, _EXPONENT_SHIFT, _BIAS = 0x83FF, 10, 15

Shapes = dict[str, tuple[int, ...]]


def config(model: str, decoder_layers: int | None, vision_layers: int | None) -> dict[str, Any]:
    """The alias's config.json with other depths."""
    made: dict[str, Any] = json.loads(json.dumps(ALIASES[model].config))
    if decoder_layers is not None:
        made["text_config"]["num_hidden_layers"] = decoder_layers
    if vision_layers is not None:
        made["vision_config"]["num_hidden_layers"] = vision_layers
    return made


def published_name(name: str) -> str:
    """Parameter name of transformers 5 -> the name in published checkpoints, which older releases read, too."""
    name = name.removeprefix("model.")
    for new, old in (("lm_head.", "language_model.lm_head."), ("vision_tower.", "vision_tower.vision_model.")):
        if name.startswith(new):
            return name.replace(new, old, 1)
    return name.replace("language_model.", "language_model.model.", 1)


def shapes(made: dict[str, Any]) -> Shapes:
    """Tensor name -> shape, as published checkpoints have them; nothing is allocated."""
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig.from_dict(made))
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    floats = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    return {published_name(name): tuple(tensor.shape) for name, tensor in floats.items() if name not in tied}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Seeded by the name. Norms are 1; the others lie between s and 2 s, either sign, s near 1/sqrt(fan in)."""
    if "norm" in name.rsplit(".", 2)[-2]:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float16)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.SFC64(seed))
    bits = rng.integers(0, 1 << 16, math.prod(shape), dtype=np.uint16)
    bits &= np.uint16(_SIGN_AND_MANTISSA)
    exponent = -7 if len(shape) == 1 else math.floor(math.log2(1.0 / math.sqrt(math.prod(shape[1:]))))
    bits |= np.uint16((exponent + _BIAS) << _EXPONENT_SHIFT)
    return bits.view(np.float16).reshape(shape)


def shards(sizes: Shapes, limit: int) -> Iterator[list[str]]:
    """Tensor names in order, cut where a shard would grow beyond `limit` bytes."""
    now: list[str] = []
    filled = 0
    for name, shape in sizes.items():
        size = 2 * math.prod(shape)
        if now and filled + size > limit:
            yield now
            now, filled = [], 0
        now.append(name)
        filled += size
    yield now


def write(folder: pathlib.Path, made: dict[str, Any], model: str, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes config, preprocessor, shards and index. Returns the bytes of the weights.

    Raises:
        FileExistsError: `folder` is there.
    """
    folder.mkdir(parents=True)
    sizes = shapes(made)
    groups = list(shards(sizes, shard_bytes))
    place: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        place.update(dict.fromkeys(names, file))
        _write_shard(folder / file, {name: sizes[name] for name in names})
    total = sum(2 * math.prod(shape) for shape in sizes.values())
    for name, content in (
        ("config.json", made),
        ("preprocessor_config.json", ALIASES[model].preprocessor),
        ("generation_config.json", ALIASES[model].generation),
        ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": place}),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _write_tokenizer(folder, made)
    return total


def _write_shard(path: pathlib.Path, sizes: Shapes) -> None:
    """One safetensors file: eight bytes with the header's length, the JSON header, the tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sizes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in sizes.items():
            stream.write(values(name, shape).reshape(-1).view(np.uint8).data)


def _write_tokenizer(folder: pathlib.Path, made: dict[str, Any]) -> None:
    from transformers import PreTrainedTokenizerFast

    from edgeprune.export import byte_tokenizer

    text = made["text_config"]
    specials = {text["bos_token_id"]: "<s>", text["eos_token_id"]: "</s>", made["image_token_index"]: "<image>"}
    core = byte_tokenizer.build(text["vocab_size"], specials)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = ALIASES["llava15"].chat_template
    fast.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", default="llava15", choices=("llava15", "llava15-13b"))
    parser.add_argument("--decoder-layers", type=int)
    parser.add_argument("--vision-layers", type=int)
    args = parser.parse_args()
    total = write(args.folder, config(args.model, args.decoder_layers, args.vision_layers), args.model)
    print(f"{args.folder}: {total / 2**30:.2f} GiB of weights")


if __name__ == "__main__":
    main()
