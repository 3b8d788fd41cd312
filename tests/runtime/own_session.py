"""onnxruntime with the library's own operators."""

from __future__ import annotations

import onnx
import onnxruntime
from onnx import helper

from edgeprune import native_library


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of two threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(native_library.path()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def of_node(
    node: onnx.NodeProto, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnxruntime.InferenceSession:
    """A session of one node of the library's domain."""
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("edgeprune", 1)]
    graph = helper.make_graph([node], "g", inputs, outputs)
    return opened(helper.make_model(graph, opset_imports=domains, ir_version=9))
