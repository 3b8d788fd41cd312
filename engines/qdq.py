"""int8 by QuantizeLinear and DequantizeLinear with ranges measured on real inputs: what TensorRT reads as int8.

onnxruntime.quantization writes it: symmetric (zero point 0), weights per output channel, activations per tensor.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from edgeprune.engines.quantise import Arrays, quiet
from edgeprune.engines.weights import WeightFile


class _Once(CalibrationDataReader):  # type: ignore[misc]
    """One set of feeds."""

    def __init__(self, feeds: Arrays) -> None:
        self._left = [dict(feeds)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def quantise(graph: Path, fp32: list[str], feeds: Arrays, scratch: Path) -> onnx.ModelProto:
    """The graph with Q/DQ pairs around its products with a stored weight, except those named in `fp32`."""
    model = onnx.load(graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    computed = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] not in weights]
    # A Gemm becomes a MatMul with a transposed weight; the shapes noted before would contradict it.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(dir=scratch) as folder, quiet():
        source = Path(folder) / graph.name
        WeightFile(source.with_suffix(".data")).save(model, source)
        out = Path(folder) / "quantised.onnx"
        quantize_static(
            str(source), str(out), _Once(feeds), per_channel=True, op_types_to_quantize=["MatMul"],
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=[*fp32, *computed],
            calibrate_method=CalibrationMethod.MinMax, use_external_data_format=True,
            extra_options={
                "ActivationSymmetric": True, "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],  # only what a product reads is rounded
            },
        )  # fmt: skip
        return onnx.load(out)
