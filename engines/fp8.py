"""fp8 (E4M3) by QuantizeLinear and DequantizeLinear, with the ranges that int8 is calibrated on.

Weights per output channel, activations per tensor, symmetric: the largest absolute value becomes 448, the largest of
the type. onnxruntime.quantization is not used: its float8 scales come from a standard deviation, not from a range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines.int4 import OF_GEMM
from edgeprune.engines.qdq import Activation
from edgeprune.engines.quantise import load, quiet

#: the largest E4M3 number
LARGEST = 448.0
KIND = TensorProto.FLOAT8E4M3FN
_ZERO = "fp8_zero"


def scale_of(found: Activation) -> float:
    """What 1 in E4M3 stands for: the largest absolute value becomes 448."""
    return max(abs(found.low), abs(found.high)) / LARGEST


def quantise(graph: Path, higher: Collection[str], ranges: Mapping[str, Activation]) -> onnx.ModelProto:
    """The graph with Q/DQ pairs around its products with a stored weight, except those named in `higher`.

    Args:
        ranges: product -> what it reads, as `qdq.activations` measures it.
    """
    model = load(graph)
    with quiet():
        from onnxruntime.quantization.onnx_model import ONNXModel

        ONNXModel(model).replace_gemm_with_matmul()
    del model.graph.value_info[:]  # a Gemm's weight was transposed, which the shapes noted before contradict
    chosen = {end: found for name, found in ranges.items() if name not in higher for end in (name, name + OF_GEMM)}
    writer = _Writer(model.graph)
    for node in list(model.graph.node):
        writer.add(node, chosen.get(node.name))
    writer.write()
    return model


class _Writer:
    """Nodes with the pairs between them; a value or weight that several products read is rounded once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.made: dict[str, str] = {}  # value or weight -> what its DequantizeLinear makes
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []

    def add(self, node: onnx.NodeProto, found: Activation | None) -> None:
        """A node; of a product with what it reads, the pairs as well."""
        if found is not None and node.op_type == "MatMul":
            names = self._activation(node.input[0], found), self._weight(node.input[1])
            node.input[:] = names
        self.nodes.append(node)

    def write(self) -> None:
        if self.stored:
            self.stored.append(helper.make_tensor(_ZERO, KIND, [], [0.0]))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self.graph.initializer.extend(self.stored)

    def _activation(self, name: str, found: Activation) -> str:
        if name not in self.made:
            pair = self._pair(name, np.float32(scale_of(found) or 1.0))
            self.nodes.append(helper.make_node("QuantizeLinear", [name, *pair[1:]], [pair[0]], name=f"{name}_q"))
            self._unpack(name, pair)
        return self.made[name]

    def _weight(self, name: str) -> str:
        if name not in self.made:
            values = numpy_helper.to_array(self.weights[name]).astype(np.float32)
            largest = np.abs(values).max(0)
            scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
            pair = self._pair(name, scale)
            short = np.clip(values / scale, -LARGEST, LARGEST).astype(helper.tensor_dtype_to_np_dtype(KIND))
            self.stored.append(numpy_helper.from_array(short, pair[0]))
            zeros = helper.make_tensor(f"{name}_fp8_zeros", KIND, scale.shape, [0.0] * scale.size)
            self.stored.append(zeros)
            self._unpack(name, (*pair[:2], zeros.name), {"axis": 1})
        return self.made[name]

    def _pair(self, name: str, scale: Any) -> tuple[str, str, str]:
        """Names of the rounded form, its scale and its zero point; the scale is stored."""
        self.stored.append(numpy_helper.from_array(np.asarray(scale), f"{name}_fp8_scale"))
        return f"{name}_fp8", f"{name}_fp8_scale", _ZERO

    def _unpack(self, name: str, names: tuple[str, str, str], axis: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.made[name] = f"{name}_from_fp8"
        self.nodes.append(helper.make_node("DequantizeLinear", names, [self.made[name]], name=f"{name}_dq", **axis))
