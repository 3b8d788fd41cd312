"""What the matrix units can do: int8 products large enough to hide everything else, in operations per second."""

from __future__ import annotations

import numpy as np
import onnxruntime
import protocol
from onnx import TensorProto, helper

SIDE = 2048


def session() -> onnxruntime.InferenceSession:
    """(SIDE,SIDE) uint8 times (SIDE,SIDE) int8, the types dynamic quantisation gives."""
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    ports = [
        helper.make_tensor_value_info(name, kind, [SIDE, SIDE])
        for name, kind in (("a", TensorProto.UINT8), ("y", TensorProto.INT32))
    ]
    weights = np.random.default_rng(0).integers(-127, 128, (SIDE, SIDE)).astype(np.int8)
    constant = helper.make_tensor("b", TensorProto.INT8, weights.shape, weights.tobytes(), raw=True)
    graph = helper.make_graph([node], "peak", ports[:1], ports[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.THREADS
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    run = session()
    values = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)

    def peak() -> dict[str, float]:
        best = min(protocol.timed(lambda: run.run(None, {"a": values})) for _ in range(5))
        return {"int8_peak_gops": 2e-9 * SIDE**3 / (best * 1e-3)}

    protocol.serve({"onnxruntime": onnxruntime.__version__, "side": SIDE}, {"peak": peak})


if __name__ == "__main__":
    main()
