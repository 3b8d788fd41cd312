"""The trainable model over cached features, what it reads from the cache, and its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import features
import safetensors.torch
import torch
import torch.nn.functional as F
from decoder import LAYERS, WIDTH, Decoder
from packing import Packed, Packer
from torch import nn

from edgeprune.export import demo

CHANNELS = 384


class Cache:
    """The features of one split, read lazily from the files that features.py wrote."""

    def __init__(self, directory: Path, split: str) -> None:
        files = sorted(directory.glob(f"{split}-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
        if not files:
            raise FileNotFoundError(f"no {split}-*.pt in {directory}: run features.py first")
        self.parts = [torch.load(path, mmap=True, weights_only=True) for path in files]
        self.places = [(part, row) for part in self.parts for row in range(len(part["questions"]))]

    def __len__(self) -> int:
        return len(self.places)

    def get(self, key: str, index: int) -> Any:
        """Entry `index` of hidden, attention, foreground, questions or meta."""
        part, row = self.places[index]
        return part[key][row]

    def cls_top(self, index: int, block: int, count: int) -> torch.Tensor:
        """The `count` patches with the highest [CLS] attention in a block, raster order."""
        row = self.get("attention", index)[features.SCORE_BLOCKS.index(block)]
        return row.topk(count).indices.sort().values


class DemoModel(nn.Module):
    """Projector and decoder; `center` and `spread` (384,) standardise the raw features per channel."""

    def __init__(
        self, center: torch.Tensor, spread: torch.Tensor, dtype: torch.dtype = torch.float32, compiled: bool = False
    ) -> None:
        super().__init__()
        path = demo.packaged_file(demo.DECODER)
        self.decoder = Decoder(demo.decoder_state(path, 9, 3), dtype, compiled)
        tokenizer = demo.build_tokenizer(path)
        self.packer = Packer(lambda text: tokenizer(text, add_special_tokens=False).input_ids)
        self.linear_1, self.linear_2 = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, WIDTH)
        nn.init.normal_(self.linear_2.weight, std=2 * self.decoder.embedding.float().std().item() / math.sqrt(WIDTH))
        nn.init.zeros_(self.linear_2.bias)
        self.register_buffer("center", center)
        self.register_buffer("spread", spread)

    def word_ids(self, words: list[str]) -> list[int]:
        """Token id of " word" for words that are one token each."""
        ids = [self.packer.encode(f" {word}") for word in words]
        return [one for (one,) in ids]

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw features (B, K, 384) -> visual embeddings (B, K, 576)."""
        x = (hidden.float() - self.center) / self.spread
        return self.linear_2(F.gelu(self.linear_1(x))).to(self.decoder.embedding.dtype)

    def forward(self, hidden: torch.Tensor | None, packed: Packed) -> torch.Tensor:
        """hidden (B, K, 384) or None for text only -> logits (M, V) of the answer tokens."""
        table, rows = self.decoder.embedding, len(packed.text_ids)
        parts = [table[self.packer.header].expand(rows, -1, -1)]
        parts += [] if hidden is None else [self.project(hidden)]
        sequence = torch.cat([*parts, table[packed.text_ids]], 1)
        last = self.decoder(sequence, packed.positions, packed.allowed)
        return self.decoder.logits(last[packed.rows, packed.columns])

    def projector(self) -> nn.ModuleList:
        """The two layers of the projector."""
        return nn.ModuleList([self.linear_1, self.linear_2])

    def difference(self) -> dict[str, torch.Tensor]:
        """What ships: LoRA in bf16, projector and standardisation in float32, under the names of demo.json."""
        tensors = {}
        for index in range(LAYERS):
            for name, linear in self.decoder.layers[index].items():
                tensors[f"layers.{index}.{name}.lora_a"] = linear.lora_a.detach().bfloat16()
                tensors[f"layers.{index}.{name}.lora_b"] = linear.lora_b.detach().bfloat16()
        for name in ("linear_1", "linear_2"):
            for part in ("weight", "bias"):
                tensors[f"projector.{name}.{part}"] = getattr(getattr(self, name), part).detach().clone()
        return tensors | {"projector.center": self.center.clone(), "projector.spread": self.spread.clone()}

    def load_difference(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `difference`."""
        names = {f"projector.{name}": name for name in ("center", "spread")}
        state = self.state_dict()
        for key, tensor in tensors.items():
            name = names.get(key, key.replace("layers.", "decoder.layers.").replace("projector.", ""))
            state[name].copy_(tensor)


def load_model(path: Path) -> DemoModel:
    """A model, in float32, from a checkpoint written by train.py or from the shipped difference.safetensors."""
    if path.suffix == ".safetensors":
        tensors = safetensors.torch.load_file(path)
        model = DemoModel(tensors["projector.center"], tensors["projector.spread"])
        model.load_difference(tensors)
    else:
        state = torch.load(path, weights_only=True)
        model = DemoModel(state["center"], state["spread"])
        model.load_state_dict(state)
    model.decoder.merge()
    return model.eval()
