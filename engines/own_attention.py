"""The attention over a cache that is written in place as one operator of libedgeprune, `edgeprune:CachedAttention`.

It writes the new keys and values and reads the cache once for all query heads of a group, up to the last visible place;
onnxruntime's matrix kernel repacks all of it at every step (docs/adr/0016-own-attention.md). Only a session that knows
libedgeprune's operators runs such a graph: those of the library do, and `quantise.run` asks onnxruntime to.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from edgeprune.engines.in_place import CacheType, NotMatched
from edgeprune.engines.passes.attention import Match, match
from edgeprune.engines.passes.matching import Graph, Node

DOMAIN = "edgeprune"
OPERATOR = "CachedAttention"
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass(frozen=True)
class _Cached:
    """An attention and the two nodes that write its keys and values."""

    found: Match
    keys: Node
    values: Node

    def node(self) -> Node:
        inputs = [self.found.query, self.keys.input[2], self.values.input[2], self.keys.input[0], self.values.input[0]]
        outputs = [self.found.last.output[0], self.keys.output[0], self.values.output[0]]
        name = f"cached_{self.found.softmax.name}"
        return helper.make_node(
            OPERATOR, [*inputs, "position_ids"], outputs, name, domain=DOMAIN, scale=self.found.scale
        )


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
    replaced: dict[str, list[Node]] = {}
    for cached in found:
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
