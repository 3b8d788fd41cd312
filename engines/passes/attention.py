"""MatMul, Add, Softmax, MatMul -> Attention-23 with one output; keys and values are joined outside of it.

Many queries over as many key heads, and queries of a group stacked as rows over fewer key heads, both become one node.
A mask that is 0 where a condition holds and the least float elsewhere becomes the condition itself: no type has to hold
the least float then. Every query has to see at least one key. Maps that something else reads stay as they are.

Only attention in fp16 or bf16 is formed: TensorRT-RTX 1.7 has no kernel for the node in fp32 and ends the build, and
its parser refuses `softmax_precision`, so how the softmax is accumulated is the library's choice. A graph with a Scan
keeps its attention as it is (`base.no_attention_beside_scan`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeprune.engines.float_types import HALVES
from edgeprune.engines.graph_view import attribute
from edgeprune.engines.passes.base import (
    GraphPass,
    attention_has_one_output,
    in_order,
    no_attention_beside_scan,
    opset_between,
    scans,
    standard_only,
)
from edgeprune.engines.passes.matching import Graph, Node, ints
from edgeprune.engines.weightless import value_types

_AXIS = "attention_head_axis"
_HIDES = -1e30
_FORMED = tuple(half.kind for half in HALVES.values())


@dataclass(frozen=True)
class Match:
    """q (B,H,T,d), keys and values (B,Hkv,S,d), `visible` (B,T,S) bool; `swapped`: keys lie as (B,S,Hkv,d)."""

    query: str
    keys: str
    values: str
    scale: float
    swapped: bool
    visible: str | None
    last: Node
    softmax: Node


def change(model: onnx.ModelProto, *kinds: int) -> int:
    """Every attention of one softmax that only its own values read, and whose queries, keys, values are of one of these
    types; none given: fp16 or bf16."""
    if scans(model):
        return 0
    graph, types, made = Graph(model.graph), value_types(model), set[str]()
    replaced: dict[str, list[Node]] = {}
    for node in model.graph.node:
        found = match(graph, node)
        read = set() if found is None else {types.get(name) for name in (found.query, found.keys, found.values)}
        if found is not None and len(read) == 1 and read <= {*(kinds or _FORMED)}:
            replaced[found.last.output[0]] = _nodes(found, made)
    if any("attention_mask_" in name for name in made):
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), _AXIS))
    graph.rewrite(replaced)
    return len(replaced)


def _nodes(found: Match, made: set[str]) -> list[Node]:
    """What takes the place of the last node; values in `made` are there already."""
    nodes, inputs = [], [found.query, found.keys, found.values]
    if found.swapped:
        inputs[1] = f"{found.keys}_heads"
        if inputs[1] not in made:
            name = f"heads_{found.keys}"
            nodes.append(helper.make_node("Transpose", [found.keys], [inputs[1]], name=name, perm=[0, 2, 1, 3]))
    if found.visible is not None:
        inputs.append(f"attention_mask_{found.visible}")
        if inputs[3] not in made:
            nodes.append(helper.make_node("Unsqueeze", [found.visible, _AXIS], [inputs[3]], name=f"spread_{inputs[3]}"))
    made.update(name for node in nodes for name in node.output)
    name = f"attention_{found.softmax.name}"
    return [*nodes, helper.make_node("Attention", inputs, list(found.last.output), name=name, scale=found.scale)]


def match(graph: Graph, last: Node) -> Match | None:
    """From the product with the values upwards; `last` is that product, or the Reshape that unstacks a group."""
    if last.op_type not in ("MatMul", "Reshape"):
        return None
    stacked = last.op_type == "Reshape"
    mixed = graph.maker(last.input[0], "MatMul") if stacked else last
    weights = mixed and _past(graph, mixed.input[0], "Reshape" if stacked else "", "Cast")
    softmax = weights and graph.maker(weights, "Softmax")
    if not (mixed and softmax) or attribute(softmax, "axis") != -1 or not _private(graph, mixed, softmax):
        return None
    logits, visible = _mask(graph, softmax.input[0])
    if logits is None:
        return None
    product = graph.maker(_past(graph, logits, "Reshape" if stacked else "", "Cast"), "MatMul")
    scaled = product and graph.maker(product.input[0], "Mul")
    parts = scaled and graph.split(scaled)
    turned = product and graph.maker(product.input[1], "Transpose")
    swaps: dict[tuple[int, ...], bool] = {(0, 1, 3, 2): False, (0, 2, 3, 1): True}
    if not (parts and turned) or len(parts[0]) != 1 or tuple(ints(turned, "perm")) not in swaps:
        return None
    query = parts[1]
    if stacked:
        grouped = graph.maker(query, "Reshape")
        if grouped is None or graph.maker(grouped.input[0], "Concat", "RotaryEmbedding", "Transpose") is None:
            return None
        query = grouped.input[0]
    if _open_head(graph, query):
        return None
    swapped = swaps[tuple(ints(turned, "perm"))]
    return Match(query, turned.input[0], mixed.input[1], parts[0][0], swapped, visible, last, softmax)


def _open_head(graph: Graph, query: str) -> bool:
    """Whether the length of a head is left to Reshape (-1) behind computed lengths: TensorRT-RTX does not work it out
    before it compares it with that of the keys, and ends the build."""
    turned = graph.maker(query, "Transpose")
    shaped = turned and graph.maker(turned.input[0], "Reshape")
    lengths = shaped and graph.maker(shaped.input[1], "Concat")
    return lengths is not None and graph.numbers(lengths.input[-1]) == [-1.0]


def _private(graph: Graph, mixed: Node, softmax: Node) -> bool:
    """Whether the weights go nowhere but into the product with the values."""
    name = mixed.input[0]
    while graph.alone(name):
        node = graph.maker(name, "Reshape", "Cast", "Softmax")
        if node is None or node.output[0] == softmax.output[0]:
            return node is not None
        name = node.input[0]
    return False


def _past(graph: Graph, name: str, *operators: str) -> str:
    """The value before any of these operators, in any order."""
    node = graph.maker(name, *(word for word in operators if word))
    return name if node is None else _past(graph, node.input[0], *operators)


def _mask(graph: Graph, name: str) -> tuple[str | None, str | None]:
    """(logits, condition) of what softmax reads; no logits: a mask of another form."""
    added = graph.maker(name, "Add")
    if added is None:
        return name, None
    spread = graph.maker(added.input[1], "Unsqueeze")
    chosen = spread and graph.maker(_past(graph, spread.input[0], "Unsqueeze"), "Where")
    axes = [] if spread is None else graph.numbers(spread.input[1])
    if chosen is None or axes not in ([1.0], [1.0, 2.0]) or graph.maker(added.input[1], "Unsqueeze") != spread:
        return None, None
    seen, hidden = graph.numbers(chosen.input[1]), graph.numbers(chosen.input[2])
    if seen != [0.0] or hidden is None or len(hidden) != 1 or hidden[0] > _HIDES:
        return None, None
    return added.input[0], chosen.input[0]


PASS = GraphPass(
    "attention",
    (opset_between(23, 24), standard_only),
    (in_order, standard_only, attention_has_one_output, no_attention_beside_scan),
    change,
)
