"""Small ONNX graphs for the tests of lint, one or a few nodes each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines.graph_view import GraphView, inferred
from edgeprune.engines.shapes import Span

SPANS = {"B": Span(1, 1, 1), "K": Span(1, 10, 100), "N": Span(1, 10, 5000)}


def tensor(name: str, value: Any, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def packed(name: str, kind: int, dims: Sequence[int], value: int = 0) -> onnx.TensorProto:
    """A constant of a type that numpy lacks, every entry `value`."""
    return helper.make_tensor(name, kind, dims, [value] * int(np.prod(dims)))


def info(name: str, shape: Sequence[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def view(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    domains: Sequence[str] = (),
    declared: dict[str, Any] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
) -> GraphView:
    """A graph whose outputs are those of its last node, checked for nothing: lint has to see what is wrong."""
    ends = outputs or [onnx.ValueInfoProto(name=name) for name in nodes[-1].output if name]
    graph = helper.make_graph(nodes, "g", inputs, ends, list(weights))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return GraphView("g.onnx", inferred(helper.make_model(graph, opset_imports=imports)), 0, declared, SPANS)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name="the-node", **attributes)


def simple(op: str, *shape: int | str, opset: int = 20, **attributes: Any) -> GraphView:
    """One node with one float input."""
    return view([node(op, ["x"], **attributes)], [info("x", shape or (2, 3))], opset=opset)


def topk(k: Any, length: int | str = 5000, **attributes: Any) -> GraphView:
    """TopK of x (1, length); `k` is a constant, or "shape" of keep_slots (K,), "input", or "data" of x."""
    ways: dict[str, tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]] = {
        "shape": ([helper.make_node("Shape", ["slots"], ["k"])], [info("slots", ["K"])]),
        "input": ([], [info("k", [1], TensorProto.INT64)]),
        "data": (
            [
                helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
                helper.make_node("Cast", ["total"], ["whole"], to=TensorProto.INT64),
                helper.make_node("Reshape", ["whole", "one"], ["k"]),
            ],
            [],
        ),
    }
    nodes, inputs = ways.get(k, ([], [])) if isinstance(k, str) else ([], [])
    weights = [tensor("one", [1])] if isinstance(k, str) else [tensor("k", [k])]
    last = node("TopK", ["x", "k"], ["values", "indices"], **attributes)
    return view([*nodes, last], [info("x", [1, length]), *inputs], weights)


def loop(trips: str, *, collects: bool) -> GraphView:
    """Loop of "constant", "dynamic" or "no" trips, which carries x and may collect it in every round."""
    body_nodes = [
        helper.make_node("Identity", ["keep_on"], ["keep_on_out"]),
        helper.make_node("Identity", ["state"], ["state_out"]),
        helper.make_node("Identity", ["state"], ["row"]),
    ]
    ins = [info("i", [], TensorProto.INT64), info("keep_on", [], TensorProto.BOOL), info("state", [1])]
    outs = [info("keep_on_out", [], TensorProto.BOOL), info("state_out", [1])] + ([info("row", [1])] * collects)
    body = helper.make_graph(body_nodes, "body", ins, outs)
    count = {"constant": "five", "dynamic": "n", "no": ""}[trips]
    outputs = ["final", "rows"] if collects else ["final"]
    inputs = [info("x", [1]), info("n", [], TensorProto.INT64)]
    return view([node("Loop", [count, "yes", "x"], outputs, body=body)], inputs,
                [tensor("five", 5), tensor("yes", True, np.bool_)])  # fmt: skip


def dequantise(kind: int, zero: onnx.TensorProto | None = None, block: int = 0, opset: int = 21) -> GraphView:
    """DequantizeLinear of weights (128, 8), by blocks along the first axis or by one scale."""
    scale = tensor("s", np.ones((128 // block, 8)) if block else 1.0, np.float32)
    names = ["w", "s"] + ([zero.name] if zero is not None else [])
    settings = {"axis": 0, "block_size": block} if block else {}
    weights = [packed("w", kind, [128, 8]), scale] + ([zero] if zero is not None else [])
    return view([node("DequantizeLinear", names, **settings)], [], weights, opset=opset)


def attention_beside(loop: str, kind: int = TensorProto.FLOAT16) -> GraphView:
    """Attention, and a Scan or Loop that has nothing to do with it and negates x in every round."""
    inputs = [info(name, [1, 2, 16, 64], kind) for name in ("q", "k", "v")] + [info("x", [1, 16]), info("slots", ["K"])]
    turn, states = (
        helper.make_node("Neg", ["state"], ["state_out"]),
        (info("state", [1, 16]), info("state_out", [1, 16])),
    )
    if loop == "Scan":
        row = helper.make_node("Identity", ["slot"], ["row"])
        body = helper.make_graph([turn, row], "body", [states[0], info("slot", [])], [states[1], info("row", [])])
        nodes = [helper.make_node("Scan", ["x", "slots"], ["last", "rows"], body=body, num_scan_inputs=1)]
    else:
        on = [info("on", [], TensorProto.BOOL), info("on_out", [], TensorProto.BOOL)]
        keep = helper.make_node("Identity", ["on"], ["on_out"])
        ends = [[info("i", [], TensorProto.INT64), on[0], states[0]], [on[1], states[1]]]
        body = helper.make_graph([turn, keep], "body", *ends)
        nodes = [helper.make_node("Shape", ["slots"], ["count"]), helper.make_node("Squeeze", ["count"], ["trips"]),
                 helper.make_node("Loop", ["trips", "yes", "x"], ["last"], body=body)]  # fmt: skip
    made = [*nodes, node("Attention", ["q", "k", "v"])]
    ends = [info("y", [1, 2, 16, 64], kind), info("last", [1, 16])]
    return view(made, inputs, [tensor("yes", True, np.bool_)], opset=23, outputs=ends)
