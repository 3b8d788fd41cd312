"""Weights on their way from a checkpoint into the data files of a bundle, one tensor at a time."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.errors import CheckpointError
from edgeprune.export.models.layers import Leaf

#: external tensors start at multiples of this, so that they can be mapped into memory
ALIGNMENT: Final = 4096

_ONNX_DTYPES: Final = {torch.float32: "FLOAT", torch.float16: "FLOAT16"}


class WeightSource(Protocol):
    """Where weights come from. Names are canonical: those of `models.base.ModelFamily.canonical`."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor in the checkpoint's layout, on the CPU, any floating dtype.

        Raises:
            CheckpointError: it is missing or has another shape.
        """
        ...


class SafetensorsSource:
    """A checkpoint directory with model.safetensors or shards and their index."""

    def __init__(self, folder: Path, canonical: Callable[[str], str]) -> None:
        self.folder = folder
        self.files = weight_files(folder)
        self._place = {canonical(name): (file, name) for file in self.files for name in _names(file)}

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        from safetensors import safe_open

        if name not in self._place:
            raise CheckpointError(f"{self.folder} holds no tensor for {name}; the checkpoint is incomplete")
        file, stored = self._place[name]
        with safe_open(file, framework="pt") as opened:
            tensor = opened.get_tensor(stored)
        return _checked(tensor, stored, shape)


class MemorySource:
    """A state dict, for tests and for weights made in memory."""

    def __init__(self, state: Mapping[str, Tensor], canonical: Callable[[str], str]) -> None:
        self._state = {canonical(name): tensor for name, tensor in state.items()}

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._state:
            raise CheckpointError(f"the state dict holds no tensor for {name}")
        return _checked(self._state[name], name, shape)


class RandomSource:
    """Seeded by the tensor's name. Scales keep activations and attention logits near 1 at any width, so that softmaxes
    stay sane and scores have no ties."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        leaf = name.rsplit(".", 2)[-2]
        if "norm" in leaf:
            return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        if leaf.startswith("scale"):
            return torch.ones(shape)
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        values = np.random.Generator(np.random.SFC64(seed)).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(values).mul_(_random_scale(name, shape))


def _random_scale(name: str, shape: tuple[int, ...]) -> float:
    if name.endswith("bias"):
        return 0.02
    if len(shape) == 1 or "embed_tokens" in name or name.startswith("vision_tower.positions"):
        return 0.5 if "vision" in name else 1.0
    gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
    return gain / math.sqrt(math.prod(shape[1:]))


def _checked(tensor: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{name} has shape {list(tensor.shape)} in the checkpoint but the config asks for {list(shape)}: "
            "drop the --set that changes shapes, or add --random-weights"
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f"{name} is stored as {tensor.dtype}: quantised checkpoints are not served")
    return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, in name order.

    Raises:
        CheckpointError: there are none, or a shard of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index} is not a readable index: {error}") from error
        files = [folder / Path(name).name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder} has no {missing[0]}: weights are read from safetensors files only")
    return files


def _names(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from error


@dataclass(frozen=True)
class Slot:
    """A tensor's place in a data file; shape and dtype are those of the initialiser."""

    file: str
    offset: int
    bytes: int
    onnx_dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a graph module: canonical name, the leaf that owns it, its name there."""

    name: str
    leaf: Leaf
    attribute: str

    @property
    def value(self) -> nn.Parameter:
        return self.leaf.get_parameter(self.attribute)

    def load(self, source: WeightSource) -> Tensor:
        """The parameter's value, in its shape and dtype."""
        stored = source.tensor(self.leaf.reads or self.name, self.leaf.checkpoint_shape(self.attribute))
        made = self.leaf.from_checkpoint(self.attribute, stored).to(self.value.dtype).contiguous()
        if made.shape != self.value.shape:
            raise RuntimeError(f"{self.name} came out as {list(made.shape)}, not {list(self.value.shape)}")
        return made


def parameters(module: nn.Module, canonical: Callable[[str], str] = lambda name: name) -> Iterator[Parameter]:
    """All parameters of a module, in definition order. `canonical`: parameter name -> canonical name."""
    for path, leaf in module.named_modules():
        for attribute, _ in leaf.named_parameters(recurse=False):
            if not isinstance(leaf, Leaf):
                raise RuntimeError(f"{path} owns {attribute} but does not say where it comes from")
            yield Parameter(canonical(f"{path}.{attribute}"), leaf, attribute)


def fill(module: nn.Module, source: WeightSource, canonical: Callable[[str], str] = lambda name: name) -> None:
    """Loads a module's weights into memory, for running it in torch."""
    for item in list(parameters(module, canonical)):
        setattr(item.leaf, item.attribute, nn.Parameter(item.load(source), requires_grad=False))


def plan_slots(items: list[Parameter], file: str) -> dict[str, Slot]:
    """Places tensors one after another in a data file. Returns canonical name -> Slot, in order."""
    slots: dict[str, Slot] = {}
    offset = 0
    for item in items:
        value = item.value
        size = value.numel() * value.element_size()
        slots[item.name] = Slot(file, offset, size, _ONNX_DTYPES[value.dtype], tuple(value.shape))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return slots


def write_data(
    path: Path, items: list[Parameter], slots: Mapping[str, Slot], source: WeightSource, step: Callable[[int], None]
) -> None:
    """Streams tensors into a data file; `step` is told the bytes of each."""
    with path.open("wb") as stream:
        for item in items:
            slot = slots[item.name]
            _pad(stream, slot.offset)
            stream.write(item.load(source).numpy().reshape(-1).view(np.uint8).data)
            step(slot.bytes)


def _pad(stream: BinaryIO, offset: int) -> None:
    stream.write(bytes(offset - stream.tell()))


def renamer(rules: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    """A function that applies (pattern, replacement) rules in order."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def apply(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return apply
