"""Point weights at their place in external data files.

Precondition: every weight has a placeholder of the right shape and dtype, and a Slot in a data file.
Postcondition: weights are external, with relative locations; every other initialiser is inside the graph file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from edgeprune.export.weights import Slot


def attach(model: ir.Model, slots: Mapping[str, Slot], folder: Path) -> list[str]:
    """Makes the weights external. `slots`: initialiser name -> Slot; `folder`: where graph and data files lie.

    Returns:
        Names of the data files used, sorted.
    """
    used: set[str] = set()
    for name, value in model.graph.initializers.items():
        slot = slots.get(name)
        if slot is None:
            continue
        dtype = ir.DataType[slot.onnx_dtype]
        value.const_value = ir.ExternalTensor(
            slot.file, slot.offset, slot.bytes, dtype, shape=ir.Shape(slot.shape), name=name, base_dir=folder
        )
        used.add(slot.file)
    return sorted(used)
