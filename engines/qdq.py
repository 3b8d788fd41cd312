"""int8 by QuantizeLinear and DequantizeLinear with ranges measured on real inputs: what TensorRT reads as int8.

onnxruntime.quantization writes it: symmetric (zero point 0), weights per output channel, activations per tensor. The
ranges are measured here, once, and not by its calibrators, which run the graph anew for every choice of products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeprune.engines.int4 import OF_GEMM
from edgeprune.engines.quantise import Arrays, linked, load, products, quiet, run_each

#: the largest int8; the smallest that symmetric rounding uses is its negative
_MOST = 127
_WATCHED = ("ReduceMin", "ReduceMax", "ReduceMean")  # the last of the squares
_INFERRED = "onnx.infer"


@dataclass(frozen=True)
class Activation:
    """What one tensor was on all calibration inputs: smallest and largest value, root mean square."""

    low: float
    high: float
    rms: float

    @property
    def scale(self) -> float:
        """What one step of int8 stands for: the largest absolute value becomes 127 of them."""
        return max(abs(self.low), abs(self.high)) / _MOST

    @property
    def noise(self) -> float:
        """Error of rounding to the scale, step / sqrt(12), relative to the root mean square."""
        return self.scale / 12**0.5 / self.rms if self.rms else 0.0


def activations(graph: Path, sets: Sequence[Arrays], scratch: Path) -> dict[str, Activation]:
    """Product with a stored weight -> what it reads, over all sets of feeds.

    `scratch` is a folder on the bundle's file system, for a probe that is removed again.
    """
    model = onnx.load(graph, load_external_data=False)
    reads = {node.name: node.input[0] for node in products(model)}
    tensors = list(dict.fromkeys(reads.values()))
    names = [_watch(model.graph, tensor, index, what) for index, tensor in enumerate(tensors) for what in _WATCHED]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        probe = linked(model, graph.parent, Path(folder))
        rows = np.array([[float(value) for value in found] for found in run_each(probe, sets, names)])
    table = rows.reshape(len(rows), len(tensors), len(_WATCHED))
    low, high, squares = table[..., 0].min(0), table[..., 1].max(0), table[..., 2].mean(0)
    found = {
        tensor: Activation(float(low[i]), float(high[i]), float(np.sqrt(squares[i])))
        for i, tensor in enumerate(tensors)
    }
    return {name: found[tensor] for name, tensor in reads.items()}


def quantise(graph: Path, higher: Collection[str], ranges: Mapping[str, Activation]) -> onnx.ModelProto:
    """The graph with Q/DQ pairs around its products with a stored weight, except those named in `higher`.

    Args:
        ranges: product -> what it reads, as `activations` measures it.
    """
    with quiet():
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = load(graph)
        reads = {node.name: node.input[0] for node in products(model)}
        measured = {reads[name]: (np.float32(a.low), np.float32(a.high)) for name, a in ranges.items()}
        # A Gemm becomes a MatMul with a transposed weight; the shapes noted before would contradict it. Of types, the
        # library asks for those of what it rounds.
        ONNXModel(model).replace_gemm_with_matmul()
        del model.graph.value_info[:]
        model.graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in measured)
        model.metadata_props.add(key=_INFERRED, value="onnxruntime.quant")
        chosen = [end for name in ranges if name not in higher for end in (name, name + OF_GEMM)]
        work = QDQQuantizer(
            model, True, False, QuantType.QInt8, QuantType.QInt8, TensorsData(CalibrationMethod.MinMax, measured),
            chosen, [], ["MatMul"],
            {
                "ActivationSymmetric": True, "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],  # only what a product reads is rounded
            },
        )  # fmt: skip
        if chosen:  # to the library no names mean every product
            work.quantize_model()
        work.model.topological_sort()
    made: onnx.ModelProto = work.model.model
    del made.graph.value_info[:], made.metadata_props[:]
    return made


def _watch(graph: onnx.GraphProto, tensor: str, index: int, what: str) -> str:
    """Adds one number about a tensor to the outputs; returns its name."""
    name = f"probe_{what}_{index}"
    source = tensor
    if what == "ReduceMean":
        source = f"probe_square_{index}"
        graph.node.append(helper.make_node("Mul", [tensor, tensor], [source]))
    graph.node.append(helper.make_node(what, [source], [name], keepdims=0))
    graph.output.append(onnx.ValueInfoProto(name=name))
    return name
