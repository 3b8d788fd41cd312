"""Drop everything that only says where a graph came from.

Precondition: names and shapes of inputs and outputs are final.
Postcondition: no metadata, doc strings, source paths or intermediate shapes; the bytes depend on the graph alone.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def strip(model: ir.Model, producer: str) -> None:
    """Removes metadata and names `producer` as the maker."""
    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = producer, None
    model.metadata_props.clear()
    graph = model.graph
    graph.name = "main"
    visible = {id(value) for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    for node in graph:
        for value in node.outputs:
            if id(value) not in visible:
                value.shape, value.type = None, None
