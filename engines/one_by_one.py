"""Quantises a graph product by product: at no time is more than one of its weights in memory.

A library that is given the whole graph holds several copies of all weights. Here it is given each product with a stored
weight as a graph of its own; the nodes that it makes of that take the product's place, and the weight that it makes
goes to the disk. What it makes of a product does not depend on the rest of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgeprune.engines.quantise import link_data, products
from edgeprune.engines.weights import WeightFile, inside

#: a graph whose weights are inside -> the same with its products in another precision
Change = Callable[[onnx.ModelProto], onnx.ModelProto]
_MADE = "quantised.data"


@dataclass(frozen=True)
class _Part:
    """What became of one product: nodes, stored tensors that may lie in the folder's file, opsets."""

    nodes: tuple[onnx.NodeProto, ...]
    tensors: tuple[TensorProto, ...]
    opsets: dict[str, int]
    ir_version: int


class Products:
    """The products of one graph with a stored weight, each changed once and put into as many graphs as are asked for.

    Args:
        graph: its weights lie in the folder `weights`.
        folder: empty, on the file system of `weights`: what is made lies there, and links to what is not changed.
        change: what a precision makes of a graph.
    """

    def __init__(self, graph: Path, weights: Path, folder: Path, change: Change) -> None:
        self.folder, self._change = folder, change
        self._source = onnx.load(graph, load_external_data=False)
        link_data(self._source, weights, folder)
        self._stored = {tensor.name: tensor for tensor in self._source.graph.initializer}
        self._made = WeightFile(folder / _MADE)
        self._parts: dict[str, _Part] = {}

    def model(self, skip: Collection[str]) -> onnx.ModelProto:
        """The graph with its products changed except those named in `skip`; its large weights lie in `folder`."""
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        parts = {node.name: self._part(node) for node in products(model) if node.name not in skip}
        nodes = [made for node in model.graph.node for made in _in_place_of(node, parts)]
        stored = {**self._stored, **{t.name: t for part in parts.values() for t in part.tensors}}
        read = set(_read(nodes)) | {info.name for info in model.graph.output}
        kept = [_copy(tensor) for name, tensor in stored.items() if name in read]
        copies = _once(nodes)
        # the shapes noted before would contradict a Gemm that became a MatMul
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(copies)
        model.graph.initializer.extend(kept)
        for part in parts.values():
            _raise_opsets(model, part)
        return model

    def write(self, model: onnx.ModelProto) -> Path:
        """Writes what `model` gave into `folder`, where onnxruntime runs it."""
        onnx.save(model, self.folder / "trial.onnx")
        return self.folder / "trial.onnx"

    def _part(self, node: onnx.NodeProto) -> _Part:
        if node.name not in self._parts:
            made = self._change(self._alone(node))
            self._made.move(made.graph.initializer)
            opsets = {entry.domain: entry.version for entry in made.opset_import}
            tensors = tuple(_copy(tensor) for tensor in made.graph.initializer)
            self._parts[node.name] = _Part(tuple(map(_copy, made.graph.node)), tensors, opsets, made.ir_version)
        return self._parts[node.name]

    def _alone(self, node: onnx.NodeProto) -> onnx.ModelProto:
        """A graph of one product, its weights inside; of what it reads and makes only the type is said."""
        stored = [inside(self._stored[name], self.folder) for name in node.input if name in self._stored]
        computed = [name for name in node.input if name and name not in self._stored]
        reads, makes = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
            for names in (computed, node.output)
        )
        graph = helper.make_graph([node], "product", reads, makes, stored)
        return helper.make_model(graph, opset_imports=self._source.opset_import, ir_version=self._source.ir_version)


def _in_place_of(node: onnx.NodeProto, parts: dict[str, _Part]) -> Iterable[onnx.NodeProto]:
    return parts[node.name].nodes if node.name in parts else (node,)


def _once(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Copies, without those that make what is made already: two products may read one activation, or one weight."""
    known: set[str] = set()
    kept = []
    for node in nodes:
        if not known.issuperset(node.output):
            known.update(node.output)
            kept.append(_copy(node))
    return kept


def _read(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    """Every name that nodes read, at any depth."""
    for node in nodes:
        yield from node.input
        for item in node.attribute:
            for graph in (item.g, *item.graphs):
                yield from _read(graph.node)


def _raise_opsets(model: onnx.ModelProto, part: _Part) -> None:
    known = {entry.domain: entry for entry in model.opset_import}
    for domain, version in part.opsets.items():
        if domain in known:
            known[domain].version = max(known[domain].version, version)
        else:
            model.opset_import.append(helper.make_opsetid(domain, version))
            known[domain] = model.opset_import[-1]
    model.ir_version = max(model.ir_version, part.ir_version)


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())
