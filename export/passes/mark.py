"""Name the pruner's nodes, and what they make, so that a profile can tell them from the encoder's.

Precondition: the exporter's metadata is still there.
Postcondition: names of nodes and of inner values that come from the module `pruning` begin with PREFIX; nothing else
changes. What encoder and pruner share (found equal and merged) bears the name of whichever was traced first. Nodes made
while folding shapes have no metadata, and no mark.
"""

from __future__ import annotations

import ast
from typing import Final

import onnx_ir as ir

from edgeprune.manifest import PRUNING_PREFIX

MODULE: Final = "pruning"
_SCOPES: Final = "pkg.torch.onnx.name_scopes"


def mark(graph: ir.Graph) -> None:
    """Renames in place. Inputs and outputs of the graph keep their names."""
    visible = {id(value) for value in graph.outputs}
    for node in graph:
        if MODULE not in ast.literal_eval(node.metadata_props.get(_SCOPES, "[]")):
            continue
        node.name = PRUNING_PREFIX + (node.name or node.op_type)
        for value in node.outputs:
            if value.name and id(value) not in visible:
                value.name = PRUNING_PREFIX + value.name
