"""Reading small patterns out of a graph, and replacing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx

from edgeprune.engines.graph_view import Scope, attribute

Node = onnx.NodeProto


class Graph:
    """Makers and readers of every value of one graph, for matching; it is changed only by `rewrite`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.proto = graph
        self._scope = Scope(graph)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._reads = Counter(name for node in graph.node for name in _names(node))
        self._reads.update(info.name for info in graph.output)

    def maker(self, name: str, *operators: str) -> Node | None:
        """The node that makes a value, if it is one of these operators."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type in operators else None

    def alone(self, name: str) -> bool:
        """Whether a value is read once, and is no output of the graph."""
        return self._reads[name] == 1

    def reads(self, name: str) -> int:
        """How often a value is read, as an output of the graph included."""
        return self._reads[name]

    def weight(self, name: str) -> list[int] | None:
        """Shape of a stored tensor, None for a computed value."""
        return list(self._weights[name].dims) if name in self._weights else None

    def numbers(self, name: str) -> list[float] | None:
        """The few numbers of a small constant, None for anything else."""
        if name in self._weights and int(np.prod(self._weights[name].dims)) > 8:
            return None
        value = self._scope.constant(name)
        return None if value is None else [float(item) for item in value.ravel()]

    def split(self, node: Node) -> tuple[list[float], str] | None:
        """(constant, the other input) of a commutative node with one small constant."""
        for index in (1, 0):
            found = self.numbers(node.input[index])
            if found is not None:
                return found, node.input[1 - index]
        return None

    def rewrite(self, replaced: dict[str, list[Node]]) -> None:
        """Puts nodes in the place of those whose first output is named, and drops what nothing reads any more."""
        nodes = [new for node in self.proto.node for new in replaced.get(node.output[0], [node])]
        live = {info.name for info in self.proto.output}
        kept = []
        for node in reversed(nodes):
            if live.intersection(node.output):
                live.update(_names(node))
                kept.append(_copy(node))
        tensors = [_copy(tensor) for tensor in self.proto.initializer if tensor.name in live]
        del self.proto.node[:], self.proto.initializer[:], self.proto.value_info[:]
        self.proto.node.extend(reversed(kept))
        self.proto.initializer.extend(tensors)


def ints(node: Node, name: str) -> list[int]:
    """An attribute of integers; none: []."""
    return list(attribute(node, name) or ())


def _names(node: Node) -> Iterable[str]:
    yield from node.input
    for item in node.attribute:
        for body in (item.g, *item.graphs):
            for inner in body.node:
                yield from _names(inner)
            yield from (info.name for info in body.output)


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())
