"""Pow, ReduceMean, Add, Sqrt, Div, Mul -> RMSNormalization-23."""

from __future__ import annotations

import onnx
from onnx import helper

from edgeprune.engines.graph_view import attribute
from edgeprune.engines.passes.base import GraphPass, in_order, opset_between, standard_only
from edgeprune.engines.passes.matching import Graph, Node


def change(model: onnx.ModelProto) -> int:
    """Every x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    graph = Graph(model.graph)
    found = {node.output[0]: made for node in model.graph.node if (made := _match(graph, node)) is not None}
    graph.rewrite({name: [made] for name, made in found.items()})
    return len(found)


def _match(graph: Graph, last: Node) -> Node | None:
    if last.op_type != "Mul" or len(graph.weight(last.input[1]) or ()) != 1:
        return None
    divided = graph.maker(last.input[0], "Div")
    root = divided and graph.maker(divided.input[1], "Sqrt")
    added = root and graph.maker(root.input[0], "Add")
    parts = added and graph.split(added)
    mean = parts and graph.maker(parts[1], "ReduceMean")
    square = mean and graph.maker(mean.input[0], "Pow")
    if not (divided and parts and mean and square) or square.input[0] != divided.input[0]:
        return None
    axes = graph.numbers(mean.input[1]) if len(mean.input) > 1 else None
    if graph.numbers(square.input[1]) != [2.0] or axes != [-1.0] or attribute(mean, "keepdims") == 0:
        return None
    return helper.make_node(
        "RMSNormalization", [divided.input[0], last.input[1]], list(last.output), name=f"rms_{last.name}",
        axis=-1, epsilon=parts[0][0],
    )  # fmt: skip


PASS = GraphPass("rms-norm", (opset_between(23, 24), standard_only), (in_order, standard_only), change)
