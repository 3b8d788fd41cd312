"""The `ort` dialect of a decoder: keys and values are written in place, by standard operators.

The canonical graph returns a longer cache after every run, so each new token copies the whole cache. Here past and
present have the same shape (B,Hkv,C,d), room for C tokens, and a ScatterND writes the new ones at `position_ids`.
onnxruntime's ScatterND copies nothing when its output is the memory of its input: a caller that gives one buffer as
past and as present has only the new tokens written. What lies behind them in the buffer must be finite; it is not seen.
The attention is the canonical one over all C places. onnxruntime's GroupQueryAttention would also write in place, but
reads the cache once per query head (docs/performance.md).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines.graph_view import Scope, attribute
from edgeprune.manifest import Graph, KvSpec, Tensor

CacheType = Literal["float32", "float16"]
_MASK = "attention_mask"
_OWN = "in_place."
_CAPACITY = "C"


class NotMatched(Exception):
    """The graph does not keep its cache as the canonical decoder does; the text says where."""


def rewrite(model: onnx.ModelProto, kv: KvSpec) -> onnx.ModelProto:
    """A copy of a canonical decoder that writes its cache in place; stored weights are not looked at.

    Raises:
        NotMatched: precondition: in every layer present = concat(past, new), and one Where makes the additive mask
            (B,T,S). Postcondition: `attention_mask` is no input any more.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    names = [f"{index}.{kind}" for index in range(kv.layers) for kind in ("key", "value")]
    mask = _mask(graph)
    written = [_write(Scope(graph), name) for name in names]
    replaced = {f"present.{name}" for name in names} | {mask}
    kept = [node for node in graph.node if not replaced & set(node.output)]
    graph.initializer.extend(_constants(kv))
    graph.input.remove(next(info for info in graph.input if info.name == _MASK))
    _replace(graph, [*_places(), *_visible(mask), *written, *kept])
    for info in (*graph.input, *graph.output):
        if info.name.startswith(("past_key_values.", "present.")):
            info.type.tensor_type.shape.dim[2].dim_param = _CAPACITY
    return made


def described(graph: Graph, cache: CacheType = "float32") -> Graph:
    """The manifest's entry of the rewritten graph: a cache of the kind `fixed` of this element type, no mask."""
    assert graph.kv is not None
    sides = [
        tuple(_with_capacity(tensor, cache) for tensor in side if tensor.role != _MASK)
        for side in (graph.inputs, graph.outputs)
    ]
    kv = dataclasses.replace(graph.kv, kind="fixed", dtype=cache)
    return dataclasses.replace(graph, inputs=sides[0], outputs=sides[1], kv=kv)


def _with_capacity(tensor: Tensor, cache: CacheType) -> Tensor:
    if not tensor.role.startswith(("past_", "present_")):
        return tensor
    return dataclasses.replace(tensor, dtype=cache, shape=(*tensor.shape[:2], _CAPACITY, *tensor.shape[3:]))


def _write(scope: Scope, name: str) -> onnx.NodeProto:
    node = scope.producer(f"present.{name}")
    if node is None or node.op_type != "Concat" or attribute(node, "axis") not in (2, -2):
        raise NotMatched(f"present.{name} is not the past with something appended")
    past, new = node.input
    if past != f"past_key_values.{name}":
        raise NotMatched(f"present.{name} does not begin with its past")
    return helper.make_node("ScatterND", [past, _OWN + "places", new], [node.output[0]], f"{_OWN}write.{name}")


def _mask(graph: onnx.GraphProto) -> str:
    found = [node.output[0] for node in graph.node if node.op_type == "Where"]
    if len(found) != 1 or not any(info.name == "position_ids" for info in graph.input):
        raise NotMatched(f"{len(found)} nodes make a mask, not one, or the graph has no positions")
    return str(found[0])


def _constants(kv: KvSpec) -> list[TensorProto]:
    values = {
        "zero": np.int64(0), "one": np.int64(1), "single": np.array([1]), "scalar": np.array([], np.int64),
        "axis2": np.array([2]), "axes1_3": np.array([1, 3]), "axes1_2_3": np.array([1, 2, 3]),
        "heads": np.array([kv.heads]), "head": np.arange(kv.heads).reshape(1, -1, 1, 1),
        "seen": np.float32(0), "hidden": np.finfo(np.float32).min,
    }  # fmt: skip
    return [numpy_helper.from_array(np.asarray(value), _OWN + name) for name, value in values.items()]


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Names in `inputs` that begin with a dot are this pass's own, as is the output."""
    own = [_OWN + name[1:] if name.startswith(".") else name for name in inputs.split()]
    return helper.make_node(kind, own, [_OWN + output], f"{_OWN}{output}", **attributes)


def _places() -> list[onnx.NodeProto]:
    """(B,Hkv,T,3): batch, head and position of every new key and value."""
    return [
        _node("Shape", "position_ids", "batch", start=0, end=1),
        _node("Shape", "position_ids", "new", start=1, end=2),
        _node("Concat", ".batch .heads .new .single", "shape", axis=0),
        _node("Reshape", ".batch .scalar", "count"),
        _node("Range", ".zero .count .one", "rows"),
        _node("Unsqueeze", ".rows .axes1_2_3", "row"),
        _node("Unsqueeze", "position_ids .axes1_3", "position"),
        _node("Expand", ".row .shape", "all_rows"),
        _node("Expand", ".head .shape", "all_heads"),
        _node("Expand", ".position .shape", "all_positions"),
        _node("Concat", ".all_rows .all_heads .all_positions", "places", axis=-1),
    ]


def _visible(mask: str) -> list[onnx.NodeProto]:
    """The additive mask (B,T,C): places up to a token's own position. The canonical mask input becomes a tensor of ones
    (B,C), of which only the shape is read."""
    where = _node("Where", ".visible .seen .hidden", "mask")
    where.output[0] = mask
    ones = _node("Expand", ".one .mask_shape", "ones")
    ones.output[0] = _MASK
    return [
        _node("Shape", "past_key_values.0.key", "capacity", start=2, end=3),
        _node("Concat", ".batch .capacity", "mask_shape", axis=0),
        ones,
        _node("Reshape", ".capacity .scalar", "places_in_all"),
        _node("Range", ".zero .places_in_all .one", "columns"),
        _node("Unsqueeze", "position_ids .axis2", "own"),
        _node("LessOrEqual", ".columns .own", "visible"),
        where,
    ]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Makes `nodes`, in an order that runs, the graph's, without those that no output needs."""
    makers = {name: node for node in nodes for name in node.output}
    done: dict[int, onnx.NodeProto] = {}
    waiting = [(info.name, False) for info in reversed(graph.output)]
    while waiting:
        name, ready = waiting.pop()
        node = makers.get(name)
        if node is None or id(node) in done:
            continue
        if ready:
            done[id(node)] = node
        else:
            waiting += [(name, True), *((read, False) for read in reversed(node.input))]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in done.values()]
    read = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in weights:
        graph.initializer.remove(tensor)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
