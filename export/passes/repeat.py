"""Turn one traced layer into many.

The layers of a tower or decoder differ in their weights only, so one is traced and the others are copies of its nodes:
tracing time does not grow with depth.

Precondition: corresponding inputs of all layers have equal shapes; the graph holds one layer, called as a module at
`run.traced`; what it reads from outside is the hidden state of the same shape as its output, per-layer inputs, weights
below `run.traced`, and values common to all layers. Node metadata still names the modules.
Postcondition: `run.count` layers in sequence, each with weights named after its own module and with its own per-layer
inputs and outputs, in order.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Run:
    """Layers that differ in their weights only.

    Attributes:
        parent: module path of their list; layer i is called at `parent.i`.
        first: index of the layer that is traced.
        count: layers wanted, first .. first + count - 1.
        inputs, outputs: names of graph inputs and outputs that belong to the traced layer.
    """

    parent: str
    first: int
    count: int
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def traced(self) -> str:
        return f"{self.parent}.{self.first}"

    def numbered(self, name: str, index: int) -> str:
        """A name of the traced layer with its number replaced by that of layer `index`."""
        return re.sub(rf"(?<![0-9]){self.first}(?![0-9])", str(index), name, count=1)


def repeat(model: ir.Model, run: Run) -> None:
    """Replaces the traced layer by `run.count` layers."""
    layer = _Layer(model.graph, run)
    hidden = layer.hidden_out
    last = layer.nodes[-1]
    users = [(use.node, use.idx) for use in hidden.uses()]
    for index in range(run.first + 1, run.first + run.count):
        nodes, hidden = layer.copy(index, hidden)
        model.graph.insert_after(last, nodes)
        last = nodes[-1]
    for node, position in users:
        if node not in layer.members:
            node.replace_input_with(position, hidden)


class _Layer:
    """The traced layer inside its graph."""

    def __init__(self, graph: ir.Graph, run: Run) -> None:
        self.graph, self.run = graph, run
        scoped = [node for node in graph if _inside(node, run.traced)]
        self.inputs = [value for value in graph.inputs if value.name in run.inputs]
        self.outputs = [value for value in graph.outputs if value.name in run.outputs]
        self.weights = [v for name, v in graph.initializers.items() if name.startswith(run.traced + ".")]
        self.hidden_out = self._only(value for node in scoped for value in node.outputs if self._leaves(value, scoped))
        self.hidden_in = self._only(value for node in scoped for value in node.inputs if self._enters(value, scoped))
        self.nodes = self._variant_nodes()
        self.members = set(self.nodes)

    def _only(self, found: Iterator[ir.Value]) -> ir.Value:
        values = list(dict.fromkeys(found))
        if len(values) != 1:
            raise RuntimeError(f"{self.run.traced}: expected one hidden state, found {[v.name for v in values]}")
        return values[0]

    def _leaves(self, value: ir.Value, scoped: list[ir.Node]) -> bool:
        """A value of the layer that is read outside it, other than per-layer outputs and shape arithmetic."""
        outside = any(user not in scoped for user in value.consumers())
        return outside and value not in self.outputs and value.dtype not in (ir.DataType.INT64, None)

    def _enters(self, value: ir.Value | None, scoped: list[ir.Node]) -> bool:
        """A value made outside the layer that has the shape of the hidden state."""
        if value is None or value.producer() in scoped or value.name in self.graph.initializers:
            return False
        return value.shape is not None and value.shape == self.hidden_out.shape

    def _variant_nodes(self) -> list[ir.Node]:
        """Nodes of the layer whose value differs between layers, in graph order."""
        wanted = _ancestors([self.hidden_out, *self.outputs])
        seeds = {self.hidden_in, *self.inputs, *self.weights}
        nodes = []
        for node in self.graph:
            # shapes are common to all layers, and so is everything computed from them, such as the mask
            if node in wanted and node.op_type != "Shape" and any(value in seeds for value in node.inputs):
                nodes.append(node)
                seeds.update(node.outputs)
        return nodes

    def copy(self, index: int, hidden: ir.Value) -> tuple[list[ir.Node], ir.Value]:
        """Nodes of layer `index`, reading `hidden`; and the hidden state they make."""
        new = {self.hidden_in: hidden}
        for value in self.weights:
            name = f"{self.run.parent}.{index}{value.name.removeprefix(self.run.traced)}"
            new[value] = ir.Value(name=name, shape=value.shape, type=value.type)
            self.graph.initializers.add(new[value])
        for value in self.inputs:
            new[value] = ir.Value(name=self.run.numbered(value.name, index), shape=value.shape, type=value.type)
            self.graph.inputs.append(new[value])
        nodes = [self._copy_node(node, index, new) for node in self.nodes]
        for value in self.outputs:
            new[value].name = self.run.numbered(value.name, index)
            self.graph.outputs.append(new[value])
        return nodes, new[self.hidden_out]

    def _copy_node(self, node: ir.Node, index: int, new: dict[ir.Value, ir.Value]) -> ir.Node:
        made = ir.Node(
            node.domain,
            node.op_type,
            [new.get(value, value) for value in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=f"{node.name}_l{index}",
        )
        for old, value in zip(node.outputs, made.outputs, strict=True):
            value.name, value.shape, value.type = f"{old.name}_l{index}", old.shape, old.type
            new[old] = value
        return made


def _inside(node: ir.Node, path: str) -> bool:
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return path in scopes


def _ancestors(values: list[ir.Value]) -> set[ir.Node]:
    """Nodes that the values depend on."""
    found: set[ir.Node] = set()
    queue = [value.producer() for value in values]
    while queue:
        node = queue.pop()
        if node is not None and node not in found:
            found.add(node)
            queue.extend(value.producer() for value in node.inputs if value is not None)
    return found
