"""The graphs of a bundle and their data files: plan, trace, stream, save."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir
import torch
from torch import nn

from edgeprune.export.encode_select import EncodeGraph, SelectGraph, interfaces
from edgeprune.export.graphs import VisionGraph
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.models.text_encoder import TextEncoderSpec, TextGraph, text_interface
from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.export.weights import Parameter, Slot, WeightSource, parameters, plan_slots, write_data
from edgeprune.pruning.base import PruningMethod

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16}

#: sizes of free dimensions while tracing: all different, none 0 or 1
_EXAMPLE: Final = {"B": 2, "T": 4, "S": 7, "P0": 3, "L": 5, "K": 3, "M": 6}


@dataclass(frozen=True)
class Part:
    """One graph: its stage, file, interface, and a function that makes the module to trace."""

    stage: str
    file: str
    interface: Interface
    module: Callable[[], nn.Module]


class GraphSet:
    """The graphs of a family for some methods.

    Weights lie in three data files: vision.data (shared by the graphs of all methods), embedding.data (the table,
    which a tied decoder reads too) and decoder.data; those of a text encoder in text.data, float32 whatever `dtype` is.
    """

    def __init__(
        self,
        family: ModelFamily,
        methods: dict[str, tuple[PruningMethod, int]],
        *,
        static_keep: bool,
        dtype: torch.dtype,
        adaptive: bool = False,
    ) -> None:
        """`adaptive`: K can be chosen from the scores, so every method with a free K is written as two graphs."""
        self.family, self.methods, self.dtype = family, methods, dtype
        self._static, self._adaptive = static_keep, adaptive

    def static_keep(self, key: str) -> int | None:
        """K where it is baked into the graph of a method."""
        method, count = self.methods[key]
        return count if self._static or not method.dynamic_keep else None

    def staged(self, key: str) -> bool:
        """A method's vision part is two graphs, encode and select."""
        return self.methods[key][0].text or (self._adaptive and self.static_keep(key) is None)

    def vision_files(self, key: str) -> list[str]:
        """Files of a method's vision part, in the order in which they run. A path in a bundle is spelled with letters,
        digits, dot and dash."""
        ends = ("-encode", "-select") if self.staged(key) else ("",)
        return [f"vision-{re.sub('[^A-Za-z0-9.-]', '-', key)}{end}.onnx" for end in ends]

    @property
    def files(self) -> list[str]:
        vision = [file for key in self.methods for file in self.vision_files(key)]
        return [*vision, *(["text.onnx"] if self._text else []), "embedding.onnx", "decoder.onnx"]

    @property
    def _text(self) -> TextEncoderSpec | None:
        """Of the text encoder, where a method reads the question through it."""
        return self.family.text_encoder if any(method.text_encoder for method, _ in self.methods.values()) else None

    @cached_property
    def data(self) -> dict[str, list[Parameter]]:
        """Data file -> its tensors, each once, in order."""
        dtype, name = self.dtype, self.family.canonical
        vision: dict[str, Parameter] = {}
        for key, (method, _) in self.methods.items():
            module = self.family.vision(method, self.static_keep(key), dtype, whole=True)
            used = self._used(module)
            vision |= {item.name: item for item in parameters(module, name) if used(item.name)}
        table = list(parameters(self.family.embedding(dtype), name))
        decoder = list(parameters(self.family.decoder(dtype, whole=True), name))
        known = {item.name for item in table}
        text = [] if self._text is None else list(parameters(TextGraph(self._text, whole=True)))
        return {
            "vision.data": list(vision.values()),
            **({"text.data": text} if text else {}),
            "embedding.data": table,
            "decoder.data": [item for item in decoder if item.name not in known],
        }

    def _used(self, module: VisionGraph) -> Callable[[str], bool]:
        """Whether a graph reads a parameter: a block that only scores has no use for values, output and MLP."""
        unread = module.unread()
        return lambda name: not name.startswith(unread)

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Parameter name -> its place."""
        return {name: slot for file, items in self.data.items() for name, slot in plan_slots(items, file).items()}

    def data_bytes(self) -> int:
        return sum(slot.bytes for slot in self.slots.values())

    def largest_tensor_bytes(self) -> int:
        return max(slot.bytes for slot in self.slots.values())

    def write(self, folder: Path, source: WeightSource, report: Callable[[str, int, int], None]) -> dict[str, Any]:
        """Writes graphs and data files; returns the manifest's `graphs`."""
        folder.mkdir()
        parts = self._parts()
        made = {}
        for index, part in enumerate(parts):
            report("trace the graphs", index, len(parts))
            made[part.file] = self._write_graph(folder, part)
        self._write_data(folder, source, report)
        return {
            "vision": {key: [made[file] for file in self.vision_files(key)] for key in self.methods},
            **({"text": made["text.onnx"]} if self._text else {}),
            "embedding": made["embedding.onnx"],
            "decoder": {**made["decoder.onnx"], "kv": self._kv()},
        }

    def write_vision(self, folder: Path, source: WeightSource) -> dict[str, list[str]]:
        """The vision graphs and their data file alone. Returns method key -> files, in `folder`."""
        folder.mkdir()
        for key in self.methods:
            for part in self._vision_parts(key):
                self._write_graph(folder, part)
        write_data(folder / "vision.data", self.data["vision.data"], self.slots, source, lambda _: None)
        return {key: self.vision_files(key) for key in self.methods}

    def _parts(self) -> list[Part]:
        return [
            *(part for key in self.methods for part in self._vision_parts(key)),
            *self._text_parts(),
            Part(
                "embedding",
                "embedding.onnx",
                self.family.embedding_interface(self.dtype),
                lambda: self.family.embedding(self.dtype),
            ),
            Part(
                "decoder",
                "decoder.onnx",
                self.family.decoder_interface(self.dtype),
                lambda: self.family.decoder(self.dtype, whole=False),
            ),
        ]

    def _text_parts(self) -> list[Part]:
        spec = self._text
        if spec is None:
            return []
        return [Part("text", "text.onnx", text_interface(spec), lambda: TextGraph(spec, whole=False))]

    def _vision_parts(self, key: str) -> list[Part]:
        method, static = self.methods[key][0], self.static_keep(key)
        whole = self.family.vision_interface(method, static, self.dtype)
        files = self.vision_files(key)

        def graph() -> VisionGraph:
            return self.family.vision(method, static, self.dtype, whole=False)

        if not self.staged(key):
            return [Part("vision", files[0], whole, graph)]
        encode, select = interfaces(graph(), whole, str(self.dtype).removeprefix("torch."))
        return [
            Part("encode", files[0], encode, lambda: EncodeGraph(graph())),
            Part("select", files[1], select, lambda: SelectGraph(graph())),
        ]

    def _write_graph(self, folder: Path, part: Part) -> dict[str, Any]:
        values = example(part.interface)
        given = (list(values),) if part.stage == "select" else values
        model = trace(part.module(), given, part.interface, self.family.canonical)
        data = attach(model, self.slots, folder)
        proto = ir.to_proto(model)
        (folder / part.file).write_bytes(proto.SerializeToString(deterministic=True))
        full = part.interface.expanded()
        return {
            "stage": part.stage,
            "file": f"onnx/{part.file}",
            "data": [f"onnx/{name}" for name in data],
            "inputs": [axis.to_manifest() for axis in full.inputs],
            "outputs": [axis.to_manifest() for axis in full.outputs],
        }

    def _write_data(self, folder: Path, source: WeightSource, report: Callable[[str, int, int], None]) -> None:
        total, done = self.data_bytes() >> 20, 0

        def step(size: int) -> None:
            nonlocal done
            done += size
            report("write the weights (MiB)", done >> 20, total)

        for file, items in self.data.items():
            write_data(folder / file, items, self.slots, source, step)

    def _kv(self) -> dict[str, Any]:
        text = self.family.config.text_config
        return {
            "kind": "growing",
            "layers": text.num_hidden_layers,
            "heads": text.num_key_value_heads,
            "head_dim": text.head_dim,
            "dtype": "float16" if self.dtype == torch.float16 else "float32",
        }


def example(interface: Interface) -> tuple[Any, ...]:
    """Tensors to trace with; past keys and values come as one list of pairs, at the end."""
    plain = [_zeros(axis) for axis in interface.inputs if not axis.role.startswith("past_")]
    past = [_zeros(axis) for axis in interface.inputs if axis.role.startswith("past_")]
    pairs = list(zip(_even(past), _even(past[1:]), strict=True))
    return (*plain, pairs) if pairs else tuple(plain)


def _even(items: list[torch.Tensor]) -> Iterable[torch.Tensor]:
    return items[::2]


def _zeros(axis: Axis) -> torch.Tensor:
    shape = [_EXAMPLE[dim] if isinstance(dim, str) else dim for dim in axis.shape]
    return torch.zeros(shape, dtype=getattr(torch, axis.dtype))
