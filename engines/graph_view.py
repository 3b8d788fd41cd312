"""One ONNX graph as lint reads it: nodes at every depth, small constants, inferred types and shapes; no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, numpy_helper

from edgeprune.engines.shapes import Span
from edgeprune.errors import BundleError

Shape = list["int | str | None"]


class Scope:
    """The values of one graph or subgraph; names not found here are looked up in the graph around it."""

    def __init__(self, graph: onnx.GraphProto, parent: Scope | None = None) -> None:
        self.graph = graph
        self.parent = parent
        self._initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._producers: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        self._infos = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}
        self._inputs = {info.name for info in graph.input}

    def initializer(self, name: str) -> TensorProto | None:
        """The stored tensor behind a name, from an initialiser or a Constant node."""
        if name in self._initializers:
            return self._initializers[name]
        node = self._producers.get(name)
        if node is None:
            return self.parent.initializer(name) if self.parent and name not in self._inputs else None
        value: TensorProto | None = attribute(node, "value") if node.op_type == "Constant" else None
        return value

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """Its value, None when it is computed or lies outside the file."""
        tensor = self.initializer(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)

    def producer(self, name: str) -> onnx.NodeProto | None:
        if name in self._producers:
            return self._producers[name]
        return self.parent.producer(name) if self.parent and name not in self._inputs else None

    def dtype(self, name: str) -> int | None:
        """A TensorProto.DataType, None when inference found none."""
        tensor = self.initializer(name)
        if tensor is not None:
            return tensor.data_type
        if name in self._infos:
            return self._infos[name].type.tensor_type.elem_type or None
        return self.parent.dtype(name) if self.parent else None

    def shape(self, name: str) -> Shape | None:
        """Numbers, letters, and None for what inference does not know; None when not even the rank is known."""
        tensor = self.initializer(name)
        if tensor is not None:
            return list(tensor.dims)
        if name in self._infos:
            kind = self._infos[name].type.tensor_type
            return _dimensions(kind.shape) if kind.HasField("shape") else None
        return self.parent.shape(name) if self.parent else None


@dataclass(frozen=True)
class GraphView:
    """A loaded graph with what the manifest says about it.

    Attributes:
        name: file name, for findings.
        size_bytes: of the file, external data not counted.
        inputs: input -> its shape in the manifest.
        spans: letter -> bounds of a free dimension.
    """

    name: str
    model: onnx.ModelProto
    size_bytes: int = 0
    inputs: Mapping[str, Sequence[int | str]] | None = None
    spans: Mapping[str, Span] = field(default_factory=dict)

    def walk(self) -> Iterator[tuple[onnx.NodeProto, Scope]]:
        """Every node of the graph, its subgraphs and its local functions, with the scope it stands in."""
        yield from _walk(Scope(self.model.graph))
        for function in self.model.functions:
            yield from _walk(Scope(onnx.GraphProto(node=function.node)))

    def opset(self) -> int:
        """Version of the default domain."""
        return max((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def load(path: Path) -> onnx.ModelProto:
    """The model without its external data, types and shapes inferred as far as possible.

    Raises:
        BundleError: not an ONNX file, or one that contradicts itself.
    """
    try:
        return inferred(onnx.load(path, load_external_data=False))
    except (DecodeError, OSError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"cannot read {path} as an ONNX graph: {error}; export the bundle again.") from error


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types and shapes that onnx can infer."""
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute, None when the node has none of that name."""
    found = next((item for item in node.attribute if item.name == name), None)
    return None if found is None else onnx.helper.get_attribute_value(found)


def _walk(scope: Scope) -> Iterator[tuple[onnx.NodeProto, Scope]]:
    for node in scope.graph.node:
        yield node, scope
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from _walk(Scope(item.g, scope))
            for graph in item.graphs:
                yield from _walk(Scope(graph, scope))


def _dimensions(shape: onnx.TensorShapeProto) -> Shape:
    return [dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in shape.dim]
