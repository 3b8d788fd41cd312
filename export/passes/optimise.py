"""Fold constants and drop what is not used, without ever touching a weight.

Precondition: weights are initialisers whose values are placeholders (NaN) and must not be read.
Postcondition: the weights that are used are initialisers as before, none renamed, merged or folded; the others are
gone; int constants are int64.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import optimize_ir

_NARROW = {ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16, ir.DataType.UINT32}


def optimise(model: ir.Model, weights: Collection[str]) -> None:
    """Runs onnxscript's optimiser on `model` with the initialisers named in `weights` hidden from it."""
    graph = model.graph
    hidden = [graph.initializers.pop(name) for name in weights if name in graph.initializers]
    for value in hidden:
        value.const_value = None
    graph.inputs.extend(hidden)
    optimize_ir(model, num_iterations=2)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    for value in hidden:
        graph.inputs.remove(value)
        if value.uses():
            graph.initializers.add(value)
    widen(model)


def widen(model: ir.Model) -> None:
    """Integer constants narrower than int32 become int64: TensorRT refuses them, and folding may produce them."""
    for value in model.graph.initializers.values():
        constant = value.const_value
        if constant is not None and constant.dtype in _NARROW:
            value.const_value = ir.tensor(constant.numpy().astype(np.int64), name=value.name)
            value.dtype = ir.DataType.INT64
