"""Slice, Mul, Sub, Add, Concat -> RotaryEmbedding-23 (halves, not interleaved) with its angles as inputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeprune.engines.graph_view import attribute
from edgeprune.engines.passes.base import GraphPass, in_order, opset_between, standard_only
from edgeprune.engines.passes.matching import Graph, Node

_AXIS = "rotary_head_axis"


def change(model: onnx.ModelProto) -> int:
    """Every rotation of (B,H,T,d) whose cosines and sines are (B,1,T,d/2)."""
    graph, replaced, squeezed = Graph(model.graph), {}, set[str]()
    for node in model.graph.node:
        found = match(graph, node)
        if found is None:
            continue
        whole, *angles = found
        new = [
            helper.make_node("Squeeze", [name, _AXIS], [f"{name}_3d"], name=f"squeeze_{name}")
            for name in angles
            if name not in squeezed
        ]
        squeezed.update(angles)
        flat = [f"{name}_3d" for name in angles]
        rotated = helper.make_node(
            "RotaryEmbedding", [whole, *flat], list(node.output), name=f"rotary_{node.name}", interleaved=0
        )
        replaced[node.output[0]] = [*new, rotated]
    if replaced:
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), _AXIS))
    graph.rewrite(replaced)
    return len(replaced)


def match(graph: Graph, last: Node) -> tuple[str, str, str] | None:
    """(x, cosines, sines) of concat(a cos - b sin, b cos + a sin)."""
    if last.op_type != "Concat" or attribute(last, "axis") not in (-1, 3) or len(last.input) != 2:
        return None
    less, more = graph.maker(last.input[0], "Sub"), graph.maker(last.input[1], "Add")
    if less is None or more is None:
        return None
    products = [graph.maker(name, "Mul") for name in (*less.input, *more.input)]
    if None in products:
        return None
    (a, cos), (b, sin), (b_again, cos_again), (a_again, sin_again) = (tuple(p.input) for p in products if p)
    whole = _halves(graph, a, b)
    same = (a, b, cos, sin) == (a_again, b_again, cos_again, sin_again)
    return (whole, cos, sin) if same and whole and _has_head_axis(graph, cos) and _has_head_axis(graph, sin) else None


def _halves(graph: Graph, first: str, second: str) -> str | None:
    """The tensor whose last axis two values are the halves of."""
    a, b = graph.maker(first, "Slice"), graph.maker(second, "Slice")
    if a is None or b is None or a.input[0] != b.input[0] or a.input[3] != b.input[3]:
        return None
    starts, ends = [graph.numbers(n.input[1]) for n in (a, b)], [graph.numbers(n.input[2]) for n in (a, b)]
    whole = starts[0] == [0.0] and starts[1] == ends[0] and (ends[1] or [0.0])[0] >= 2.0**31
    return a.input[0] if whole and graph.numbers(a.input[3]) in ([3.0], [-1.0]) else None


def _has_head_axis(graph: Graph, name: str) -> bool:
    """Whether a value is an Unsqueeze on axis 1, perhaps in another type."""
    cast = graph.maker(name, "Cast")
    spread = graph.maker(cast.input[0] if cast else name, "Unsqueeze")
    return spread is not None and graph.numbers(spread.input[1]) == [1.0]


PASS = GraphPass("rotary", (opset_between(23, 24), standard_only), (in_order, standard_only), change)
