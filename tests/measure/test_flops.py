"""Operations of executed nodes and of whole graphs against counts made by hand, and the reading of traces."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.measure.flops import flops
from edgeprune.measure.trace import Node, Shape, runs_of


def node(op: str, inputs: list[Shape], *outputs: Shape) -> Node:
    return Node("n", op, 1.0, False, False, tuple(inputs), outputs)


@pytest.mark.parametrize(
    ("executed", "by_hand"),
    [
        # every one of 5 x 7 results is a sum of 3 products
        (node("MatMul", [(5, 3), (3, 7)], (5, 7)), 2 * 5 * 3 * 7),
        (node("MatMul", [(2, 4, 5, 3), (2, 4, 3, 7)], (2, 4, 5, 7)), 8 * 2 * 5 * 3 * 7),
        # the right side was repacked, or turned; scales and a bias follow
        (node("DynamicQuantizeMatMul", [(1, 5, 3), (7,), (7,)], (1, 5, 7)), 2 * 5 * 3 * 7),
        (node("MatMulIntegerToFloat", [(1, 5, 3), (), (7,)], (1, 5, 7)), 2 * 5 * 3 * 7),
        (node("MatMulNBits", [(1, 5, 64), (7, 2, 16)], (1, 5, 7)), 2 * 5 * 64 * 7),
        (node("MatMulInt4", [(1, 5, 64), (1, 608)], (1, 5, 7)), 2 * 5 * 64 * 7),
        (node("MatMulInt8", [(1, 5, 64), (1, 2304), (7,)], (1, 5, 7)), 2 * 5 * 64 * 7),
        (node("FusedMatMul", [(1, 5, 3), (1, 7, 3)], (1, 5, 7)), 2 * 5 * 3 * 7),
        (node("FusedMatMul", [(1, 3, 5), (1, 3, 7)], (1, 5, 7)), 2 * 5 * 3 * 7),
        (node("Gemm", [(3, 5), (3, 7), (7,)], (5, 7)), 2 * 5 * 3 * 7),
        # 4 x 4 places of 8 maps, each over 3 channels of a 2 x 2 window; and of 2 groups
        (node("Conv", [(1, 3, 8, 8), (8, 3, 2, 2), (8,)], (1, 8, 4, 4)), 2 * 8 * 16 * 12),
        (node("Conv", [(1, 6, 8, 8), (8, 3, 2, 2)], (1, 8, 4, 4)), 2 * 8 * 16 * 12),
        # 2 heads of width 4: 5 queries with 7 keys, then the 7 values
        (node("EncoderAttention", [(1, 5, 8), (1, 7, 8), (1, 7, 8)], (1, 5, 8)), 2 * 2 * (2 * 5 * 7 * 4)),
        (node("MultiHeadAttention", [(1, 5, 8), (1, 7, 8), (1, 7, 8)], (1, 5, 8)), 2 * 2 * (2 * 5 * 7 * 4)),
        (node("GroupQueryAttention", [(1, 1, 8), (1, 1, 4)], (1, 1, 8), (1, 1, 9, 4)), 2 * 2 * (2 * 1 * 9 * 4)),
        (node("Softmax", [(5, 7)], (5, 7)), 0),
    ],
)
def test_operations_of_a_node(executed: Node, by_hand: int) -> None:
    assert flops(executed) == by_hand


def test_shapes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="Conv n ran with"):
        flops(node("Conv", [(1, 3, 8, 8)], (1, 8, 4, 4)))
    with pytest.raises(ValueError, match="Attention n"):
        flops(node("Attention", [(1, 5, 8), (8, 24)], (1, 5, 8)))


def event(name: str, op: str, ts: int, dur: int) -> dict[str, Any]:
    args = {
        "op_name": op,
        "input_type_shape": [{"float": [2, 3]}, {"int64": []}],
        "output_type_shape": [{"float": [2]}],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "ph": "X", "args": args}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "ph": "X", "args": {}}


def test_runs_bodies_and_shapes() -> None:
    loading = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 90, "args": {}}
    loop = [event("pruning/scan", "Scan", 120, 50), event("body", "Add", 130, 10), event("body", "Add", 145, 15)]
    events = [loading, *reversed(loop), event("node_a", "Add", 101, 9), run(100, 100), run(300, 50)]
    events += [event("node_a", "Add", 305, 7)]
    first, second = runs_of(events)
    assert [(n.name, n.own_ms, n.pruner) for n in first] == [
        ("node_a", 0.009, False), ("pruning/scan", 0.025, True), ("body", 0.01, True), ("body", 0.015, True),
    ]  # fmt: skip
    assert [(n.name, n.own_ms) for n in second] == [("node_a", 0.007)]
    assert (first[0].inputs, first[0].outputs) == (((2, 3), ()), ((2,),))


def test_a_node_that_the_runtime_named_itself_belongs_to_its_neighbours() -> None:
    def marks(*names: tuple[str, str]) -> list[tuple[bool, bool]]:
        events = [event(name, op, 10 * at, 5) for at, (name, op) in enumerate(names, 1)]
        [found] = runs_of([run(0, 1000), *events])
        return [(n.pruner, n.inferred) for n in found]

    ours, theirs, fused = ("pruning/node_a", "Add"), ("node_b", "Add"), ("BiasGelu_token_3", "BiasGelu")
    assert marks(ours, fused, ours) == [(True, False), (True, True), (True, False)]
    assert marks(ours, fused, fused, theirs)[1:3] == [(False, False), (False, False)]
    assert marks(fused, ours)[0] == (False, False)
    # fused, but named after what it replaces
    assert marks(theirs, ("pruning/node_c/MatMulScaleFusion/", "FusedMatMul"), theirs)[1] == (True, False)
    assert marks(ours, ("node_d_nchwc", "Conv"), ours)[1] == (False, False)
