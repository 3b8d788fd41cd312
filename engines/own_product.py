"""The products of a graph that makes one token at a time as an operator of libedgeprune, `edgeprune:MatMulInt4`.

Such a product reads every weight once, so the memory bounds it; onnxruntime's kernel stays below what the memory gives
(docs/adr/0021-own-int4-product.md). The weights are those of `int4.step`, their scales in 8 bits of the largest of a
column, laid out to be read from front to back: runtime/src/product_kernel.h has the layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeprune.engines import int4
from edgeprune.engines.graph_view import attribute
from edgeprune.engines.own_attention import DOMAIN

Array = np.ndarray[Any, Any]

OPERATOR = "MatMulInt4"
#: columns of a tile, rows of a block: kColumns and kBlock there
COLUMNS = 16


def step(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of products whose weights are inside, each product one `MatMulInt4`."""
    made = int4.step(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "MatMulNBits":
            _change(node, stored)
    read = {name for node in made.graph.node for name in node.input}
    kept = [tensor for name, tensor in stored.items() if name in read]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    if any(node.domain == DOMAIN for node in made.graph.node):
        made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return made


def count(model: onnx.ModelProto) -> int:
    """How many products of a graph are this operator."""
    return sum((node.domain, node.op_type) == (DOMAIN, OPERATOR) for node in model.graph.node)


def packed(bits: Array, scales: Array) -> Array:
    """Weights in the operator's layout.

    Args:
        bits: (columns, blocks, 32) uint8, 0 to 15, meaning -8 to 7.
        scales: (columns, blocks), finite.

    Returns:
        (tiles, 64 + 272 * blocks) uint8.
    """
    columns, blocks, rows = bits.shape
    assert rows == int4.BLOCK
    room = -columns % COLUMNS
    tiles = np.pad(bits, ((0, room), (0, 0), (0, 0))).reshape(-1, COLUMNS, blocks, 4, 2, 4)
    # (tile, block, line, column, i) of the lower and the upper four rows of a line's eight
    low, high = (tiles[:, :, :, :, half].transpose(0, 2, 3, 1, 4) for half in (0, 1))
    lines = (low | high << 4).reshape(-1, blocks, COLUMNS * rows // 2)
    factors = np.abs(scales).max(1) / np.float32(127)
    steps = np.rint(np.divide(scales, factors[:, None], out=np.zeros_like(scales), where=factors[:, None] > 0))
    steps = np.pad(steps.astype(np.int8), ((0, room), (0, 0))).reshape(-1, COLUMNS, blocks).transpose(0, 2, 1)
    parts = np.concatenate([np.ascontiguousarray(steps).view(np.uint8), lines], axis=2)
    heads = np.pad(factors.astype("<f4"), (0, room)).reshape(-1, COLUMNS).view(np.uint8)
    return np.concatenate([heads, parts.reshape(len(parts), -1)], axis=1)


def _change(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> None:
    """A MatMulNBits in place; its weights, if nothing else reads them, are left over."""
    columns, depth = int(attribute(node, "N")), int(attribute(node, "K"))
    blocks = -(-depth // int4.BLOCK)
    scales = numpy_helper.to_array(stored[node.input[2]]).reshape(columns, blocks)
    pairs = numpy_helper.to_array(stored[node.input[1]]).reshape(columns, blocks, -1)
    bits = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(columns, blocks, -1)
    name = f"{node.input[1]}_tiles"
    stored[name] = numpy_helper.from_array(packed(bits, scales), name)
    made = helper.make_node(
        OPERATOR, [node.input[0], name], list(node.output), node.name, domain=DOMAIN, columns=columns
    )
    node.CopyFrom(made)
