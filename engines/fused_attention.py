"""The attention of a vision graph as an operator of libedgeprune, `edgeprune:EncoderAttention`, for the target cpu.

It takes a block of queries through product, softmax and product while their maps are near, and needs no turned copies
of queries, keys and values. Except in a pruning stage, both products round what they multiply to bfloat16, which costs
half as much where the processor has it (docs/adr/0024-own-encoder-attention.md). It comes after quantisation, whose
tools do not know the node.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from edgeprune.engines.own_attention import DOMAIN
from edgeprune.engines.passes.attention import Match, match
from edgeprune.engines.passes.matching import Graph, Node, ints
from edgeprune.manifest import PRUNING_PREFIX

OPERATOR = "EncoderAttention"
_HEADS_FIRST = [0, 2, 1, 3]


@dataclass(frozen=True)
class _Rows:
    """q, k and v (B,T,H*d) of an attention without a mask, and the Reshape that makes (B,T,H*d) of what it mixed."""

    found: Match
    inputs: tuple[str, str, str]
    heads: int
    last: Node

    def node(self) -> Node:
        # the profiler knows the pruner's nodes by how their names begin; what chooses tokens must not lose digits
        name = f"{self.found.softmax.name}_fused"
        rounded = not name.startswith(PRUNING_PREFIX)
        return helper.make_node(
            OPERATOR, list(self.inputs), list(self.last.output), name, domain=DOMAIN, heads=self.heads,
            scale=self.found.scale, bfloat16=int(rounded),
        )  # fmt: skip


def rewrite(model: onnx.ModelProto) -> int:
    """Changes a graph, quantised or not, in place; stored weights are not looked at.

    Returns:
        How many attentions became a node. One whose map a pruning method reads, or that has a mask, stays as it is.
    """
    graph = Graph(model.graph)
    found = [rows for node in model.graph.node if (rows := _rows(graph, node)) is not None]
    graph.rewrite({rows.last.output[0]: [rows.node()] for rows in found})
    if found and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


def _rows(graph: Graph, merge: Node) -> _Rows | None:
    """From the Reshape that merges the heads upwards."""
    turned = graph.maker(merge.input[0], "Transpose") if merge.op_type == "Reshape" else None
    mixed = turned and graph.maker(turned.input[0], "MatMul")
    if not (turned and mixed) or ints(turned, "perm") != _HEADS_FIRST:
        return None
    if len(graph.numbers(merge.input[1]) or ()) != 3 or not graph.alone(mixed.output[0]):
        return None
    found = match(graph, mixed)
    if found is None or found.visible is not None:
        return None
    keys = graph.maker(found.keys, "Reshape") if found.swapped else _split(graph, found.keys)
    parts = (_split(graph, found.query), keys, _split(graph, found.values))
    heads = {_heads(graph, part) for part in parts}
    if None in heads or len(heads) != 1:
        return None
    query, key, value = (part.input[0] for part in parts if part is not None)
    return _Rows(found, (query, key, value), int(heads.pop() or 0), merge)


def _split(graph: Graph, name: str) -> Node | None:
    """The Reshape to (B,T,H,d) behind a Transpose to (B,H,T,d)."""
    turned = graph.maker(name, "Transpose")
    return graph.maker(turned.input[0], "Reshape") if turned and ints(turned, "perm") == _HEADS_FIRST else None


def _heads(graph: Graph, split: Node | None) -> float | None:
    shape = graph.numbers(split.input[1]) if split else None
    return shape[2] if shape and len(shape) == 4 else None
