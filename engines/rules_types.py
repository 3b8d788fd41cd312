"""Lint rules about element types and quantisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from edgeprune.engines.graph_view import GraphView, attribute
from edgeprune.engines.rules import TENSORRT, Hit, label, rule
from edgeprune.engines.targets import Target, has_precision

INT4_BLOCKS = (32, 64, 128)
_UNSIGNED: dict[int | None, str] = {TensorProto.UINT8: "uint8", TensorProto.UINT16: "uint16"}
_PRECISIONS = {
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT4: "int4",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT4E2M1: "fp4",
}
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


@rule("unsigned", TENSORRT, "Use int64 for indices and int8 for quantised values.")
def unsigned(view: GraphView, target: Target) -> Iterator[Hit]:
    """uint8 and uint16, wherever a node makes or reads one."""
    reported = set()
    for node, scope in view.walk():
        for name in (*node.input, *node.output):
            kind = scope.dtype(name) if name else None
            if kind in _UNSIGNED and name not in reported:
                reported.add(name)
                yield label(node), f"{node.op_type} handles {name}, which is {_UNSIGNED[kind]}"


@rule("zero-point", TENSORRT, "Quantise symmetrically: every zero point 0.")
def zero_point(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, scope in view.walk():
        if node.op_type not in _QUANTISERS or len(node.input) < 3 or not node.input[2]:
            continue
        tensor, value = scope.initializer(node.input[2]), scope.constant(node.input[2])
        if tensor is None:
            yield label(node), f"the zero point {node.input[2]} is computed, so nothing says that it is 0"
        elif value is None:
            yield label(node), f"the zero point {node.input[2]} lies in external data and was not read"
        elif np.any(value.astype(np.float32) != 0):
            yield label(node), "its zero point is not 0"


@rule("int4-block", TENSORRT, f"Use blocks of {', '.join(map(str, INT4_BLOCKS))}.")
def int4_block(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, scope in view.walk():
        if node.op_type == "DequantizeLinear" and scope.dtype(node.input[0]) == TensorProto.INT4:
            block = attribute(node, "block_size") or 0
            if block not in INT4_BLOCKS:
                yield label(node), f"int4 weights in blocks of {block}" if block else "int4 weights without blocks"


@rule("type-of-gpu", TENSORRT, "Build for another GPU, or in a precision that this one has.")
def type_of_gpu(view: GraphView, target: Target) -> Iterator[Hit]:
    """bf16, int4, fp8 and fp4 where they are not documented; fp32 matrix products where TensorRT-RTX has none."""
    for node, scope in view.walk():
        kinds = {scope.dtype(name) for name in node.input if name}
        needed = [precision for kind, precision in _PRECISIONS.items() if kind in kinds]
        if TensorProto.FLOAT in kinds and node.op_type in ("MatMul", "Gemm"):
            needed.append("fp32")
        for precision in needed:
            lacking = [c for c in target.compute_capabilities if not has_precision(c, precision)]
            if lacking:
                gpus = ", ".join(f"sm{major}{minor}" for major, minor in lacking)
                yield label(node), f"{node.op_type} in {precision}, which is not documented for {gpus}"
