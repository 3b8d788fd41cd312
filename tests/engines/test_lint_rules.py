"""Every lint rule refuses what it should and lets its nearest neighbour pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeprune.engines import lint, targets
from edgeprune.engines.graph_view import GraphView
from tests.engines.graphs import attention_beside, dequantise, info, loop, node, packed, simple, tensor, topk, view

Make = Callable[[], GraphView]
ORIN, THOR, CPU = "tensorrt:orin-nano", "tensorrt:thor", "cpu"
RTX86, RTX120, RTX75 = "tensorrt-rtx:sm86", "tensorrt-rtx:sm120", "tensorrt-rtx:sm75"
INT4 = TensorProto.INT4


def scatter(op: str, **attributes: str) -> GraphView:
    inputs = [info("x", [4, 4]), info("i", [1, 4], TensorProto.INT64), info("u", [1, 4])]
    return view([node(op, ["x", "i", "u"], **attributes)], inputs)


def attention(*outputs: str, kind: int = TensorProto.FLOAT16, **attributes: int) -> GraphView:
    inputs = [info(name, [1, 2, 8, 4], kind) for name in ("q", "k", "v", "pk", "pv")]
    read = ["q", "k", "v", "", "pk", "pv"] if len(outputs) > 1 else ["q", "k", "v"]
    return view([node("Attention", read, outputs, **attributes)], inputs, opset=23)


def contrib(domain: str, op: str = "MatMulNBits") -> GraphView:
    return view([node(op, ["x"], domain=domain)], [info("x", [2, 2])], domains=[domain])


def local_function() -> GraphView:
    made = view([node("Twice", ["x"], domain="local")], [info("x", [2, 2])], domains=["local"])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made.model.functions.append(
        helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    )
    return made


def cast_to(kind: int) -> GraphView:
    return view([node("Cast", ["x"], to=kind)], [info("x", [2])])


def dynamic_quantisation() -> GraphView:
    return view([node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])], [info("x", [2])])


def zero(value: int, kind: int = TensorProto.INT8) -> GraphView:
    return dequantise(kind, packed("z", kind, [], value))


def matmul(kind: int) -> GraphView:
    return view([node("MatMul", ["x", "x"])], [info("x", [2, 2], kind)])


def free_dimension(letter: str) -> GraphView:
    return view([node("Relu", ["x"])], [info("x", [letter, 2])], declared={"x": (letter, 2)})


def in_subgraph(op: str) -> GraphView:
    """`op` inside a branch of If."""
    branches = {
        f"{name}_branch": helper.make_graph([node(op, ["x"], ["out"])], name, [], [info("out", None)])
        for name in ("then", "else")
    }
    return view([helper.make_node("If", ["c"], ["y"], **branches)], [info("c", [], TensorProto.BOOL), info("x", [3])])


def large(size_bytes: int) -> GraphView:
    return dataclasses.replace(simple("Relu"), size_bytes=size_bytes)


#: rule, target, what it refuses, what it lets pass
CASES: list[tuple[str, str, Make, Make]] = [
    ("graph-size", CPU, lambda: large(2**31), lambda: large(2**31 - 1)),
    ("opset", ORIN, lambda: simple("Relu", opset=21), lambda: simple("Relu", opset=20)),
    ("opset", THOR, lambda: simple("Relu", opset=8), lambda: simple("Relu", opset=24)),
    ("opset", CPU, lambda: simple("Relu", opset=24), lambda: simple("Relu", opset=8)),
    ("domain", RTX86, lambda: contrib("com.microsoft"), local_function),
    ("domain", ORIN, lambda: contrib("com.microsoft", "GroupQueryAttention"), lambda: simple("Relu")),
    ("data-dependent-shape", ORIN, lambda: simple("NonZero"), lambda: simple("ArgMax")),
    ("data-dependent-shape", ORIN, lambda: in_subgraph("NonZero"), lambda: in_subgraph("Relu")),
    ("data-dependent-shape", RTX86, lambda: simple("Unique"), lambda: simple("Not")),
    (
        "data-dependent-shape",
        RTX86,
        lambda: view([node("Compress", ["x", "c"])], [info("x", [3]), info("c", [3], TensorProto.BOOL)]),
        lambda: view([node("Gather", ["x", "c"])], [info("x", [3]), info("c", [3], TensorProto.INT64)]),
    ),
    ("sequence", ORIN, lambda: simple("SplitToSequence"), lambda: simple("Split", num_outputs=1)),
    ("sequence", ORIN, lambda: simple("SequenceConstruct"), lambda: simple("Concat", axis=0)),
    ("dynamic-quantisation", RTX86, dynamic_quantisation, lambda: simple("Floor")),
    (
        "dynamic-quantisation",
        RTX86,
        lambda: view([node("MatMulInteger", ["x", "x"])], [info("x", [2, 2], TensorProto.INT8)]),
        lambda: matmul(TensorProto.FLOAT16),
    ),
    ("scatter-reduction", ORIN, lambda: scatter("ScatterND", reduction="add"), lambda: scatter("ScatterND")),
    (
        "scatter-reduction",
        RTX86,
        lambda: scatter("ScatterElements", reduction="max"),
        lambda: scatter("ScatterElements", reduction="none"),
    ),
    ("newer-operator", ORIN, lambda: attention("y"), lambda: simple("Softmax")),
    ("newer-operator", ORIN, lambda: simple("RotaryEmbedding"), lambda: in_subgraph("Relu")),
    ("newer-operator", ORIN, lambda: simple("TensorScatter"), lambda: scatter("ScatterND")),
    ("newer-operator", ORIN, lambda: simple("RMSNormalization"), lambda: simple("LayerNormalization")),
    ("attention-outputs", THOR, lambda: attention("y", "present_k", "present_v"), lambda: attention("y")),
    ("attention-type", RTX86, lambda: attention("y", kind=TensorProto.FLOAT), lambda: attention("y")),
    ("attention-softmax-precision", THOR, lambda: attention("y", softmax_precision=1), lambda: attention("y")),
    ("attention-beside-scan", RTX86, lambda: attention_beside("Scan"), lambda: attention_beside("Loop")),
    ("attention-beside-scan", RTX120, lambda: attention_beside("Scan"), lambda: attention("y")),
    ("attention-int8", CPU, lambda: attention("y"), lambda: simple("Softmax")),
    ("topk-limit", ORIN, lambda: topk(3841), lambda: topk(3840)),
    ("topk-limit", RTX86, lambda: topk(3841), lambda: topk(3840)),
    ("topk-limit", ORIN, lambda: topk("input", 3841), lambda: topk("input", 3840)),
    ("topk-limit", ORIN, lambda: topk("input", "N"), lambda: topk("input", "K")),
    ("topk-limit", ORIN, lambda: topk("input", "unknown"), lambda: topk("shape", 5000)),
    ("topk-sorted", ORIN, lambda: topk(5, sorted=0), lambda: topk(5, sorted=1)),
    ("data-dependent-k", ORIN, lambda: topk("data", 9), lambda: topk("shape", 9)),
    ("data-dependent-k", ORIN, lambda: topk("data", 9), lambda: topk("input", 9)),
    ("loop-trip-count", THOR, lambda: loop("no", collects=False), lambda: loop("dynamic", collects=True)),
    ("loop-scan-outputs", ORIN, lambda: loop("dynamic", collects=True), lambda: loop("constant", collects=True)),
    ("loop-scan-outputs", ORIN, lambda: loop("dynamic", collects=True), lambda: loop("dynamic", collects=False)),
    ("argmax-rank", ORIN, lambda: simple("ArgMax", 7), lambda: simple("ArgMax", 1, 7)),
    ("dynamic-shapes", ORIN, lambda: free_dimension("Q"), lambda: free_dimension("K")),
    ("unsigned", ORIN, lambda: cast_to(TensorProto.UINT8), lambda: cast_to(TensorProto.INT8)),
    ("unsigned", RTX86, lambda: cast_to(TensorProto.UINT16), lambda: cast_to(TensorProto.INT64)),
    ("zero-point", RTX86, lambda: zero(3), lambda: zero(0)),
    ("zero-point", ORIN, lambda: zero(-1), lambda: dequantise(TensorProto.INT8)),
    ("int4-block", RTX86, lambda: dequantise(INT4, block=16), lambda: dequantise(INT4, block=32)),
    ("int4-block", RTX86, lambda: dequantise(INT4), lambda: dequantise(INT4, block=128)),
    ("type-of-gpu", RTX75, lambda: dequantise(INT4, block=64), lambda: dequantise(TensorProto.INT8)),
    ("type-of-gpu", RTX75, lambda: matmul(TensorProto.BFLOAT16), lambda: matmul(TensorProto.FLOAT16)),
    ("type-of-gpu", RTX75, lambda: matmul(TensorProto.FLOAT), lambda: matmul(TensorProto.FLOAT16)),
    (
        "type-of-gpu",
        RTX86,
        lambda: dequantise(TensorProto.FLOAT8E4M3FN),
        lambda: dequantise(INT4, block=64),
    ),
]


@pytest.mark.parametrize(("name", "target", "bad", "good"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_rule(name: str, target: str, bad: Make, good: Make) -> None:
    found = [finding for finding in lint.check_view(bad(), targets.find(target)) if finding.rule == name]
    assert found, f"{name} let its bad graph pass"
    assert all(finding.graph == "g.onnx" and finding.problem and finding.remedy for finding in found)
    passed = [finding for finding in lint.check_view(good(), targets.find(target)) if finding.rule == name]
    assert passed == []


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(lint.RULES)


def test_fp4_and_fp8_where_a_gpu_has_them() -> None:
    for kind in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1):
        graph = dequantise(kind, opset=23)
        rules = [f.rule for f in lint.check_view(graph, targets.find(RTX120))]
        assert "type-of-gpu" not in rules
        assert "type-of-gpu" in [f.rule for f in lint.check_view(graph, targets.find("tensorrt-rtx:sm120,sm80"))]


def test_bf16_where_a_gpu_has_it() -> None:
    for name in ("tensorrt-rtx:sm80", RTX86, RTX120, ORIN, THOR, "tensorrt:local"):
        assert "type-of-gpu" not in [f.rule for f in lint.check_view(matmul(TensorProto.BFLOAT16), targets.find(name))]
    (finding,) = lint.check_view(matmul(TensorProto.BFLOAT16), targets.find("tensorrt-rtx:sm86,sm75"))
    assert finding.problem == "MatMul in bf16, which is not documented for sm75"


def test_findings_name_the_node() -> None:
    (finding,) = lint.check_view(topk(3841), targets.find(ORIN))
    assert (finding.node, finding.rule) == ("the-node", "topk-limit")
    assert "3841" in finding.problem


def test_newer_operators_and_loops_pass_where_they_are_read() -> None:
    for target in (THOR, RTX86):
        assert [f.rule for f in lint.check_view(attention("y"), targets.find(target))] == []
        assert [f.rule for f in lint.check_view(loop("dynamic", collects=True), targets.find(target))] == []


def test_inputs_that_the_manifest_does_not_declare() -> None:
    graph = view([node("Relu", ["x"])], [info("x", ["B", 2])], declared={})
    assert [f.problem for f in lint.check_view(graph, targets.find(ORIN))] == ["the manifest does not know this input"]
    short = view([node("Relu", ["x"])], [info("x", ["B", 2])], declared={"x": ("B",)})
    assert [f.problem for f in lint.check_view(short, targets.find(ORIN))] == ["its rank differs from the manifest's"]


def test_zero_points_that_cannot_be_read_are_reported() -> None:
    outside = tensor("z", [0, 0], np.int8)
    outside.data_location = TensorProto.EXTERNAL
    (finding,) = lint.check_view(dequantise(TensorProto.INT8, outside), targets.find(RTX86))
    assert "external data" in finding.problem
    computed = view([node("QuantizeLinear", ["x", "s", "z"])],
                    [info("x", [2]), info("s", []), info("z", [], TensorProto.INT8)])  # fmt: skip
    (finding,) = lint.check_view(computed, targets.find(RTX86))
    assert "is computed" in finding.problem
