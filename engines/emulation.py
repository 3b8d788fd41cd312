"""A bf16 graph as onnxruntime's CPU can run it: every bf16 value is rounded to bf16, each step computed in fp32.

onnxruntime has next to no CPU kernels for bf16. A GPU sums the products of bf16 numbers in fp32 and rounds the result,
which is what this does; inside one operator (the weights of Attention) it rounds nothing, where a GPU may.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edgeprune.engines.float_types import BF16
from edgeprune.engines.weightless import value_types

#: for build.json and people: what was compared
HOW = "emulated: fp32 steps in onnxruntime, every bf16 value rounded to bf16"
_FILE = "emulated-{}"


def emulated(path: Path) -> Path:
    """Writes the emulation of a graph beside it, where it reads the same weight file.

    Raises:
        ValueError: an input or output of the graph is bf16, so callers would notice the difference.
    """
    model = onnx.load(path, load_external_data=False)
    kinds = value_types(model)
    short = {name for name, kind in kinds.items() if kind == BF16.kind}
    ends = [info.name for info in (*model.graph.input, *model.graph.output) if info.name in short]
    if ends:
        raise ValueError(f"{path.name}: {ends[0]} is bf16 and an end of the graph")
    stored = [tensor.name for tensor in model.graph.initializer if tensor.name in short]
    nodes = [_widened(name) for name in stored]
    for node in model.graph.node:
        node.input[:] = [_wide(name) if name in short else name for name in node.input]
        made = [name for name in node.output if name in short]
        nodes.append(node)
        if node.op_type != "Cast":  # that to bf16 rounds by itself
            node.output[:] = [_exact(name) if name in short else name for name in node.output]
            nodes += [helper.make_node("Cast", [_exact(name)], [name], to=BF16.kind) for name in made]
        nodes += [_widened(name) for name in made]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(copies)
    written = path.with_name(_FILE.format(path.name))
    onnx.save(model, written)
    return written


def _widened(name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [_wide(name)], to=TensorProto.FLOAT)


def _wide(name: str) -> str:
    return f"{name}_as_fp32"


def _exact(name: str) -> str:
    return f"{name}_before_rounding"
