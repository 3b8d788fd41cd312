"""A graph pass: fp32 -> fp16 or bf16, with what that type cannot hold left in fp32 between Cast nodes.

Precondition: a graph of standard operators in fp32, in topological order, types inferable without its weights.
Postcondition: the same inputs and outputs (those named become fp16, whatever the type inside: the runtime binds no
bf16), no fp32 weight that only nodes of the new type read.

In fp32 stay: norms, softmax and what leads to it from the last matrix product, angles of rotary positions, everything
from the last stored weight to the scores and the kept set (near ties flip otherwise), the projection to where a text
encoder's embeddings lie, subgraphs, operators that lack the type in the graph's opset, and the nodes that the caller
names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines.float_types import ENDINGS, FP16, Half, takes
from edgeprune.engines.graph_view import GraphView, attribute
from edgeprune.engines.weightless import value_types

_NORMS = frozenset(
    {"LayerNormalization", "RMSNormalization", "Pow", "ReduceMean", "Sqrt", "ReduceL2", "ReduceSum", "CumSum"}
)
_FED_IN_FP32 = frozenset({"Softmax", "Cos", "Sin"})
_SUBGRAPHS = frozenset({"Scan", "Loop", "If"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
#: an elementwise node whose inputs are all fp32 stays so: a shorter step between two fp32 ones would only lose digits.
_FOLLOW = frozenset({"Add", "Sub", "Mul", "Div", "Reciprocal", "Neg", "Where", "Max", "Min"})
_FP32_OUTPUTS = ("scores", "keep_idx")
#: weights by which tokens are compared with a text encoder's reading of the question
_SPACE = "text_space."


def fp32_nodes(model: onnx.ModelProto, named: Collection[str] = (), half: Half = FP16) -> set[str]:
    """First outputs of the nodes that stay fp32; `named` are names of further ones."""
    graph, floats, opset = model.graph, _floats(model), GraphView("", model).opset()
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    stored = weights | {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights}
    kept = {node.output[0] for node in graph.node if node.op_type in _NORMS | _SUBGRAPHS or node.name in named}
    kept |= {node.output[0] for node in graph.node if _reads_large(node, graph, half.largest)}
    kept |= {node.output[0] for node in graph.node if not takes(node, opset, floats, half)}
    kept |= {node.output[0] for node in graph.node if any(name.startswith(_SPACE) for name in node.input)}
    for node in graph.node:
        if node.op_type in _FED_IN_FP32:
            kept |= _upstream(node, makers, lambda n: n.op_type in _PRODUCTS)
    for name in _FP32_OUTPUTS:
        if name in makers:
            kept |= _upstream(makers[name], makers, lambda n: n.op_type in _PRODUCTS and n.input[1] in stored)
    for node in graph.node:
        read = [name for name in node.input if name in floats and name not in weights]
        if node.op_type in _FOLLOW and read and all(name in makers and _first(makers, name) in kept for name in read):
            kept.add(node.output[0])
    return kept


def to_half(
    model: onnx.ModelProto, named: Collection[str] = (), half_io: Collection[str] = (), half: Half = FP16
) -> onnx.ModelProto:
    """The model in fp16 or bf16.

    Args:
        model: fp32; it is changed.
        named: names of nodes that stay fp32 besides those that always do.
        half_io: inputs and outputs of the graph that become fp16; the others keep their types.
        half: what it is computed in.
    """
    pass_ = _Pass(model, fp32_nodes(model, named, half), half_io, half)
    pass_.run()
    return model


class _Pass:
    def __init__(self, model: onnx.ModelProto, fp32: set[str], half_io: Collection[str], half: Half) -> None:
        self.graph, self.fp32, self.half_io, self.half = model.graph, fp32, half_io, half
        self.floats = _floats(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        #: values that are no fp32 now -> their type
        self.kinds = {info.name: int(TensorProto.FLOAT16) for info in self.graph.input if info.name in half_io}
        self.made: dict[tuple[str, int], str] = {}  # (value, type) -> its form in that type
        self.nodes: list[onnx.NodeProto] = []
        self.added: list[TensorProto] = []

    def run(self) -> None:
        for node in self.graph.node:
            half = node.output[0] not in self.fp32 and self._computes(node)
            kind = self.half.kind if half else TensorProto.FLOAT
            for index, name in enumerate(node.input):
                if name in self.floats:
                    node.input[index] = self._as(name, kind)
            if half:
                self._retype(node)
                self.kinds.update((name, kind) for name in node.output if name in self.floats)
            else:
                self._rename_outer(node)
            self.nodes.append(node)
        self._ends()
        copies = [_copied(node) for node in self.nodes]
        read = {name for node in copies for name in _names_read(node)}
        stored = [_copied(tensor) for tensor in (*self.graph.initializer, *self.added) if tensor.name in read]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(copies)
        self.graph.initializer.extend(stored)

    def _computes(self, node: onnx.NodeProto) -> bool:
        """Whether a node has a float input that decides its type; the others make what their attributes say."""
        return any(name in self.floats for name in node.input) or (
            node.op_type == "Cast" and node.output[0] in self.floats
        )

    def _as(self, name: str, kind: int) -> str:
        """The name of a float value in the type that is asked for; a weight is converted, a value is cast."""
        if self.kinds.get(name, TensorProto.FLOAT) == kind:
            return name
        if (name, kind) not in self.made:
            other = f"{name}_{ENDINGS[kind]}"
            if name in self.weights:
                array = numpy_helper.to_array(self.weights[name])
                self.added.append(numpy_helper.from_array(self.half.rounded(array), other))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [other], name=f"cast_{other}", to=kind))
            self.made[name, kind] = other
        return self.made[name, kind]

    def _retype(self, node: onnx.NodeProto) -> None:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = self.half.kind

    def _rename_outer(self, node: onnx.NodeProto) -> None:
        """Subgraphs stay fp32, and so must what they read from the graph around them."""
        for body in _bodies(node):
            own = {name for inner in body.node for name in inner.output} | {info.name for info in body.input}
            for inner in body.node:
                for index, name in enumerate(inner.input):
                    if name not in own and name in self.kinds:
                        inner.input[index] = self._as(name, TensorProto.FLOAT)

    def _ends(self) -> None:
        """Graph outputs in the types that they had, or in fp16 where that is asked for."""
        for info in (*self.graph.input, *self.graph.output):
            if info.name in self.half_io:
                info.type.tensor_type.elem_type = TensorProto.FLOAT16
        for info in self.graph.output:
            wants = TensorProto.FLOAT16 if info.name in self.half_io else TensorProto.FLOAT
            if info.name in self.floats and self.kinds.get(info.name, TensorProto.FLOAT) != wants:
                inner = f"{info.name}_inner"
                for node in self.nodes:
                    for names in (node.input, node.output):
                        names[:] = [inner if name == info.name else name for name in names]
                self.nodes.append(helper.make_node("Cast", [inner], [info.name], name=f"cast_{info.name}", to=wants))


def _floats(model: onnx.ModelProto) -> set[str]:
    return {name for name, kind in value_types(model).items() if kind == TensorProto.FLOAT}


def _first(makers: dict[str, onnx.NodeProto], name: str) -> str:
    return str(makers[name].output[0])


def _upstream(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], ends: Any) -> set[str]:
    """First outputs of a node and of all that feed it, not beyond those that `ends` is true for, which are left out."""
    found, todo = set(), [node]
    while todo:
        here = todo.pop()
        if here.output[0] in found or ends(here):
            continue
        found.add(here.output[0])
        todo += [makers[name] for name in here.input if name in makers]
    return found


def _reads_large(node: onnx.NodeProto, graph: onnx.GraphProto, largest: float) -> bool:
    """Whether a small stored constant that the node reads is beyond a type, as masks are."""
    small = {t.name: t for t in graph.initializer if t.name in node.input and t.data_type == TensorProto.FLOAT}
    arrays = (numpy_helper.to_array(t) for t in small.values() if np.prod(t.dims) <= 1)
    return any(bool((np.abs(array) > largest).any()) for array in arrays)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for name in ("body", "then_branch", "else_branch"):
        body = attribute(node, name)
        if body is not None:
            yield next(item.g for item in node.attribute if item.name == name)


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for body in _bodies(node):
        for inner in body.node:
            yield from _names_read(inner)


def _copied(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())
