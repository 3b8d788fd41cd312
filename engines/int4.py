"""Weight-only int4 by onnxruntime.quantization: symmetric blocks of 32 rows, unpacked by a standard DequantizeLinear.

onnxruntime fuses DequantizeLinear and MatMul into one product when it loads the graph; TensorRT reads the pair as it
is. Activations stay as they were.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeprune.engines.graph_view import attribute
from edgeprune.engines.quantise import Arrays, activations, products
from edgeprune.engines.weights import inside

Array = np.ndarray[Any, Any]

BLOCK = 32
#: int4 tensors are part of opset 21.
OPSET = 21
#: the oldest onnxruntime that knows opset 21.
MIN_ONNXRUNTIME = "1.18"
#: MatMulNBits' accuracy_level for int8 activations.
INTEGER_ACTIVATIONS = 4
#: what the library appends to the name of a Gemm that it makes a MatMul of.
OF_GEMM = "_MatMul"


def blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the weights of its products in int4, unpacked by standard operators; its weights are inside."""
    return _int4(model, standard=True)


def step(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same for a graph that makes one token at a time in onnxruntime: its operator MatMulNBits, whose activations
    are int8 per block as well, so that the product runs in integers."""
    return _int4(model, standard=False)


def _int4(model: onnx.ModelProto, *, standard: bool) -> onnx.ModelProto:
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, QuantFormat

        work = MatMulNBitsQuantizer(
            model, bits=4, block_size=BLOCK, is_symmetric=True,
            quant_format=QuantFormat.QDQ if standard else QuantFormat.QOperator,
            accuracy_level=None if standard else INTEGER_ACTIVATIONS, op_types_to_quantize=("MatMul",),
        )  # fmt: skip
        work.model.replace_gemm_with_matmul()  # only MatMul is known there
        work.process()
    made: onnx.ModelProto = work.model.model
    return made


def noise(graph: Path, feeds: Arrays, scratch: Path) -> dict[str, float]:
    """Product -> error of its result with the weight in int4, relative to the result, as root mean squares.

    `scratch` is a folder on the bundle's file system, for a probe that is removed again.
    """
    model = onnx.load(graph, load_external_data=False)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    values = activations(graph, feeds, scratch)
    found = {}
    for node in products(model):
        weight = numpy_helper.to_array(inside(weights[node.input[1]], graph.parent))
        weight = weight.T if node.op_type == "Gemm" and attribute(node, "transB") else weight
        rows = values[node.input[0]].reshape(-1, weight.shape[0])
        size = float(np.linalg.norm(rows @ weight))
        found[node.name] = float(np.linalg.norm(rows @ (rounded(weight) - weight))) / size if size else 0.0
    return found


def rounded(weight: Array) -> Array:
    """A weight (rows, columns) as its int4 form stands for it: per block, -8 to 7 times the largest entry / -8."""
    rows, columns = weight.shape
    blocks = np.pad(weight, ((0, -rows % BLOCK), (0, 0))).reshape(-1, BLOCK, columns)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = np.where(largest == 0, 1, largest / -8).astype(np.float32)
    whole: Array = np.clip(np.rint(blocks / scale), -8, 7) * scale
    return whole.reshape(-1, columns)[:rows]


def count(model: onnx.ModelProto) -> int:
    """How many weights of a model are stored in int4."""
    return sum(tensor.data_type == onnx.TensorProto.INT4 for tensor in model.graph.initializer)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library reports every node, and its import configures the root logger; both are undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)
