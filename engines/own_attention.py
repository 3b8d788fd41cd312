"""The attention over a cache that is written in place as one operator of libedgeprune, `edgeprune:RotaryAttention`.

It writes the new keys and values and reads the cache once for all query heads of a group, up to the last visible place;
onnxruntime's matrix kernel repacks all of it at every step (docs/adr/0016-own-attention.md). It takes rows as the
products leave them and rotates queries and keys itself, which are 26 small nodes a layer less.
Where those have another form, `edgeprune:CachedAttention` does the rest. Only a session that knows libedgeprune's
operators runs such a graph: those of the library do, and `quantise.run` asks onnxruntime to.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from edgeprune.engines.in_place import CacheType, NotMatched
from edgeprune.engines.passes import rotary
from edgeprune.engines.passes.attention import Match, match
from edgeprune.engines.passes.matching import Graph, Node, ints

DOMAIN = "edgeprune"
OPERATOR = "CachedAttention"
ROTARY = "RotaryAttention"
_HEADS_FIRST = [0, 2, 1, 3]
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass(frozen=True)
class _Cached:
    """An attention and the two nodes that write its keys and values."""

    found: Match
    keys: Node
    values: Node

    def node(self) -> Node:
        inputs = [self.found.query, self.keys.input[2], self.values.input[2]]
        return self._node(OPERATOR, inputs, self.found.last.output[0])

    def rotary(self, rows: _Rows) -> Node:
        return self._node(ROTARY, [*rows.inputs, *rows.angles], rows.last.output[0])

    def _node(self, operator: str, inputs: list[str], mixed: str) -> Node:
        caches = [node.input[0] for node in (self.keys, self.values)]
        outputs = [mixed, self.keys.output[0], self.values.output[0]]
        name = f"cached_{self.found.softmax.name}"
        return helper.make_node(
            operator, [*inputs, *caches, "position_ids"], outputs, name, domain=DOMAIN, scale=self.found.scale
        )


@dataclass(frozen=True)
class _Rows:
    """q, new k and v (B,T,heads*d) before they are rotated, cosines and sines (B,1,T,d/2), and the Reshape that makes
    (B,T,H*d) of what was mixed."""

    inputs: tuple[str, str, str]
    angles: tuple[str, str]
    last: Node


def rewrite(model: onnx.ModelProto, layers: int, cache: CacheType = "float32") -> onnx.ModelProto:
    """A copy of a decoder made by `in_place.rewrite`, quantised or not; stored weights are not looked at.

    Args:
        cache: element type of past and present, float32 or float16; new keys and values are float32 in any case.

    Raises:
        NotMatched: precondition: each layer has one attention over what a ScatterND wrote. Postcondition: none is left.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = Graph(made.graph)
    found = [cached for node in made.graph.node if (cached := _cached(graph, node)) is not None]
    if len(found) != layers:
        raise NotMatched(f"{len(found)} of {layers} attentions over the cache have the canonical form")
    merges = {node.input[0]: node for node in made.graph.node if node.op_type == "Reshape"}
    rows = [_rows(graph, cached, merges) for cached in found]
    replaced: dict[str, list[Node]] = {}
    for cached, own in zip(found, rows, strict=True):
        if own is not None and all(rows):
            replaced[own.last.output[0]] = [cached.rotary(own)]
        else:
            replaced[cached.found.last.output[0]] = [cached.node()]
        replaced |= {cached.keys.output[0]: [], cached.values.output[0]: []}
    graph.rewrite(replaced)
    ports = {
        name for cached in found for node in (cached.keys, cached.values) for name in (node.input[0], node.output[0])
    }
    for info in (*made.graph.input, *made.graph.output):
        if info.name in ports:
            info.type.tensor_type.elem_type = _TYPES[cache]
    if not used_by(made):
        made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return made


def operators(model: onnx.ModelProto) -> str:
    """The attention's operators in a graph, as build.json names them."""
    found = {node.op_type for node in model.graph.node if node.domain == DOMAIN} & {OPERATOR, ROTARY}
    return ", ".join(f"{DOMAIN}:{name}" for name in sorted(found))


def used_by(model: onnx.ModelProto) -> bool:
    """Whether a graph needs libedgeprune's operators."""
    return any(entry.domain == DOMAIN for entry in model.opset_import)


def _cached(graph: Graph, node: Node) -> _Cached | None:
    found = match(graph, node)
    if found is None or found.swapped or found.visible is None:
        return None
    keys, values = graph.maker(found.keys, "ScatterND"), graph.maker(found.values, "ScatterND")
    if keys is None or values is None or keys.input[1] != values.input[1]:
        return None
    return _Cached(found, keys, values)


def _rows(graph: Graph, cached: _Cached, merges: dict[str, Node]) -> _Rows | None:
    """Where rows are split into heads, rotated and merged again as the canonical decoder does."""
    turns = [node for node in graph.proto.node if node.op_type == "Transpose" and _heads_first(node)]
    turned = next((node for node in turns if node.input[0] == cached.found.last.output[0]), None)
    last = merges.get(turned.output[0]) if turned is not None and graph.alone(turned.input[0]) else None
    rotated = [_rotated(graph, name) for name in (cached.found.query, cached.keys.input[2])]
    value = _split(graph, cached.values.input[2])
    if last is None or value is None or _rank(graph, last.input[1]) != 3:
        return None
    query, key = rotated
    if query is None or key is None or query[1:] != key[1:]:
        return None
    return _Rows((query[0], key[0], value), query[1:], last)


def _rotated(graph: Graph, name: str) -> tuple[str, str, str] | None:
    """(rows, cosines, sines) of queries or keys."""
    node = graph.maker(name, "Concat")
    found = rotary.match(graph, node) if node is not None else None
    rows = _split(graph, found[0]) if found is not None else None
    return (rows, *found[1:]) if found is not None and rows is not None else None


def _split(graph: Graph, name: str) -> str | None:
    """(B,T,heads*d) that a Reshape and a Transpose make (B,heads,T,d) of."""
    turned = graph.maker(name, "Transpose")
    shaped = graph.maker(turned.input[0], "Reshape") if turned is not None and _heads_first(turned) else None
    return shaped.input[0] if shaped is not None else None


def _rank(graph: Graph, shape: str) -> int:
    """How many dimensions a Reshape makes: of a constant, or of lengths that are joined one by one; else 0."""
    lengths = graph.maker(shape, "Concat")
    return len(lengths.input) if lengths is not None else len(graph.numbers(shape) or ())


def _heads_first(turned: Node) -> bool:
    return ints(turned, "perm") == _HEADS_FIRST
