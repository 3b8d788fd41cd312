"""Types of all values of a model, inferred while its weights are set aside: inference cannot take 2 GiB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx
from onnx import TensorProto

_SMALLEST_BYTES = 1024


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Value -> TensorProto.DataType, for the values of the graph itself."""
    with _aside(model):
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    kinds = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        kinds[info.name] = int(info.type.tensor_type.elem_type)
    return kinds


@contextlib.contextmanager
def _aside(model: onnx.ModelProto) -> Iterator[None]:
    taken = []
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _SMALLEST_BYTES:
            taken.append((tensor, tensor.raw_data))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    try:
        yield
    finally:
        for tensor, data in taken:
            tensor.raw_data = data
            tensor.data_location = TensorProto.DEFAULT
