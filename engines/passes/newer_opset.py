"""A graph of plain opset 20 to 22 as one of opset 23, where Attention, RotaryEmbedding and RMSNormalization are."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgeprune.engines.graph_view import GraphView
from edgeprune.engines.passes.base import GraphPass, in_order, opset_between, set_opset, standard_only

OPSET = 23
_IR_VERSION = 11
#: the only operator that means something else in 21 to 23 than in 20.
_REDEFINED = frozenset({"GroupNormalization"})


def means_the_same(model: onnx.ModelProto) -> Iterator[str]:
    """No operator whose meaning changed."""
    for node, _ in GraphView("", model).walk():
        if node.op_type in _REDEFINED:
            yield f"has {node.name}, and {node.op_type} means something else in opset {OPSET}"


def change(model: onnx.ModelProto) -> int:
    """Only the number: the versions between add types to the operators and take nothing away."""
    set_opset(model, OPSET)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return 0


PASS = GraphPass(
    "newer-opset",
    (opset_between(20, 22), standard_only, means_the_same),
    (opset_between(OPSET, OPSET), standard_only, in_order),
    change,
)
