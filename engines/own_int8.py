"""The int8 products of a graph for the target cpu as an operator of libedgeprune, `edgeprune:MatMulInt8`.

It rounds each row of its input by itself, where the library's operators round a tensor as a whole, adds the bias, and
comes nearer to what the processor can do (docs/adr/0023-own-int8-product.md). The weights are those of
onnxruntime.quantization, laid out as they are read: runtime/src/int8_product.h has the layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeprune.engines import quantise
from edgeprune.engines.graph_view import attribute
from edgeprune.engines.own_attention import DOMAIN
from edgeprune.engines.passes.matching import Graph

Array = np.ndarray[Any, Any]

OPERATOR = "MatMulInt8"
#: columns of a panel, rows of a group, and what the depth is filled up to: kPanel, kGroup and kDeep there
COLUMNS, GROUP, DEEP = 32, 4, 64
_RAISED = 128
_NO_BIAS = "edgeprune.no_bias"


def change(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of one product whose weight is inside, as one `MatMulInt8`; as the library's operators where that leaves
    no product in int8."""
    (product,) = model.graph.node
    name = product.name
    made = quantise.integer(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    makers = {node.op_type: node for node in made.graph.node}
    if "MatMulInteger" not in makers:
        return made
    weight = makers["MatMulInteger"].input[1].removesuffix("_quantized")
    whole, factors = (numpy_helper.to_array(stored[f"{weight}_{kind}"]) for kind in ("quantized", "scale"))
    panels = numpy_helper.from_array(packed(whole, factors), f"{weight}_panels")
    biases = [stored[key] for key in makers["Add"].input if key in stored] if "Add" in makers else []
    bias = biases[0] if biases else numpy_helper.from_array(np.zeros(0, np.float32), _NO_BIAS)
    node = _node([made.graph.input[0].name, panels.name, bias.name], made.graph.output[0].name, name, whole.shape[1])
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.append(node)
    made.graph.initializer.extend((panels, bias))
    made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return made


def absorb(model: onnx.ModelProto) -> None:
    """Moves into every product, in place, what is done to its result alone: a stored bias, and behind it x sigmoid(a x)
    with a stored number a, or without one."""
    for matched in (_with_bias, _with_swish):
        graph = Graph(model.graph)
        graph.rewrite(
            {node.output[0]: [made] for node in model.graph.node if (made := matched(graph, node)) is not None}
        )


def count(model: onnx.ModelProto) -> int:
    """How many products of a graph are this operator."""
    return sum((node.domain, node.op_type) == (DOMAIN, OPERATOR) for node in model.graph.node)


def packed(whole: Array, factors: Array) -> Array:
    """Weights in the operator's layout.

    Args:
        whole: (rows, columns) int8, -127 to 127.
        factors: (columns) float32, finite: a weight is its column's factor times the whole number.

    Returns:
        (panels, 32 * (8 + rows to the next multiple of 64)) uint8.
    """
    assert np.abs(whole.astype(np.int32)).max(initial=0) <= 127
    rows, columns = whole.shape
    room, deep = -columns % COLUMNS, -rows % DEEP
    filled = np.pad(whole, ((0, deep), (0, room)))
    raised = (filled.astype(np.int16) + _RAISED).astype(np.uint8)
    panels = raised.reshape(-1, GROUP, (columns + room) // COLUMNS, COLUMNS).transpose(2, 0, 3, 1)
    sums = filled.sum(0, dtype=np.int32).astype("<i4").reshape(-1, COLUMNS)
    heads = np.pad(factors.astype("<f4"), (0, room)).reshape(-1, COLUMNS)
    parts = [heads.view(np.uint8), sums.view(np.uint8), np.ascontiguousarray(panels).reshape(len(heads), -1)]
    return np.concatenate(parts, axis=1)


def _with_bias(graph: Graph, add: onnx.NodeProto) -> onnx.NodeProto | None:
    """The product that an Add's other input is the bias of, with the Add's result."""
    for product, bias in (add.input, add.input[::-1]) if add.op_type == "Add" else ():
        node = graph.maker(product, OPERATOR)
        if node and node.input[2] == _NO_BIAS and not attribute(node, "swish") and graph.alone(product):
            columns = int(attribute(node, "columns"))
            if graph.weight(bias) == [columns]:
                return _node([*node.input[:2], bias], add.output[0], node.name, columns)
    return None


def _with_swish(graph: Graph, last: onnx.NodeProto) -> onnx.NodeProto | None:
    """The product whose result a Mul multiplies by the Sigmoid of it, or of a multiple, with the Mul's result."""
    for product, gate in (last.input, last.input[::-1]) if last.op_type == "Mul" else ():
        node, factor = graph.maker(product, OPERATOR), _gate(graph, gate, product)
        if node and factor and not attribute(node, "swish") and graph.reads(product) == 2:
            return _node(list(node.input), last.output[0], node.name, int(attribute(node, "columns")), factor)
    return None


def _gate(graph: Graph, name: str, of: str) -> float:
    """a, where a value that is read once is the Sigmoid of a times `of`; else 0."""
    sigmoid = graph.maker(name, "Sigmoid") if graph.alone(name) else None
    if sigmoid is None or sigmoid.input[0] == of:
        return 1.0 if sigmoid else 0.0
    scaled = graph.maker(sigmoid.input[0], "Mul") if graph.alone(sigmoid.input[0]) else None
    numbers, source = (graph.split(scaled) if scaled else None) or ([], "")
    return numbers[0] if source == of and len(numbers) == 1 else 0.0


def _node(inputs: list[str], result: str, name: str, columns: int, swish: float = 0.0) -> onnx.NodeProto:
    return helper.make_node(OPERATOR, inputs, [result], name, domain=DOMAIN, columns=columns, swish=swish)
