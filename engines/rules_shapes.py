"""Lint rules about shapes: what must be known before an engine is built, and how large it may be."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from edgeprune.engines.graph_view import GraphView, Scope, attribute
from edgeprune.engines.rules import TENSORRT, Hit, label, rule
from edgeprune.engines.shapes import span_of
from edgeprune.engines.targets import Target

MAX_TOPK = 3840
#: they hand a length on as it is
_PASS_ON = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


@rule("topk-limit", TENSORRT, f"Keep at most {MAX_TOPK} of a tensor's entries: choose a smaller keep range, or tiles.")
def topk_limit(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, scope in view.walk():
        if node.op_type != "TopK":
            continue
        most = _largest_k(node, scope, view)
        if most is None:
            yield label(node), "nothing bounds the K of TopK"
        elif most > MAX_TOPK:
            yield label(node), f"TopK with K up to {most}, but at most {MAX_TOPK}"


@rule("topk-sorted", TENSORRT, "Leave the attribute sorted at 1.")
def topk_sorted(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type == "TopK" and attribute(node, "sorted") == 0:
            yield label(node), "TopK with sorted = 0"


@rule("data-dependent-k", TENSORRT, "Take K from the shape of an input, as the canonical graphs do with keep_slots.")
def data_dependent_k(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, scope in view.walk():
        source = _data_behind(node.input[1], scope) if node.op_type == "TopK" else None
        if source is not None:
            yield label(node), f"the K of TopK is computed from the data of {source}"


@rule("loop-trip-count", TENSORRT, "Give Loop a trip count, or use Scan.")
def loop_trip_count(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type == "Loop" and not node.input[0]:
            yield label(node), "Loop without a trip count"


@rule("loop-scan-outputs", TENSORRT, "Use Scan, or give Loop a constant trip count.")
def loop_scan_outputs(view: GraphView, target: Target) -> Iterator[Hit]:
    """Documented for TensorRT 10; RTX counts its versions on its own and was seen to build them."""
    if target.builder != "tensorrt" or not target.tensorrt[0].startswith("10."):
        return
    for node, scope in view.walk():
        collected = node.op_type == "Loop" and len(node.output) > len(node.input) - 2
        if collected and scope.constant(node.input[0]) is None:
            yield label(node), f"Loop collects outputs of dynamic length, which TensorRT {target.tensorrt[0]} cannot"


@rule("argmax-rank", TENSORRT, "Keep the batch dimension in front of what ArgMax reads.")
def argmax_rank(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, scope in view.walk():
        shape = scope.shape(node.input[0]) if node.op_type == "ArgMax" else None
        if shape is not None and len(shape) < 2:
            yield label(node), f"ArgMax of a tensor with {len(shape)} dimension(s), but it needs at least 2"


@rule("dynamic-shapes", TENSORRT, "Name every free dimension of an input in the manifest by a letter that it bounds.")
def dynamic_shapes(view: GraphView, target: Target) -> Iterator[Hit]:
    """An optimization profile needs a smallest and a largest size of every free dimension."""
    if view.inputs is None:
        return
    weights = {tensor.name for tensor in view.model.graph.initializer}
    for info in view.model.graph.input:
        declared = view.inputs.get(info.name)
        if info.name in weights:
            continue
        if declared is None:
            yield info.name, "the manifest does not know this input"
        elif len(declared) != len(info.type.tensor_type.shape.dim):
            yield info.name, "its rank differs from the manifest's"
        for letter in declared or ():
            if isinstance(letter, str) and span_of(letter, view.spans) is None:
                yield info.name, f"nothing bounds its dimension {letter!r}"


def _largest_k(node: onnx.NodeProto, scope: Scope, view: GraphView) -> int | None:
    """The bound of K: its constant, the bound of the dimension it is taken from, or the length of the axis."""
    constant = scope.constant(node.input[1])
    if constant is not None:
        return int(constant.max(initial=0))
    axis = attribute(node, "axis")
    sizes = [_axis_size(node.input[0], scope, -1 if axis is None else axis), _length_behind(node.input[1], scope)]
    bounds = [size if isinstance(size, int) else _bound(size, view) for size in sizes]
    known = [bound for bound in bounds if bound is not None]
    return min(known) if known else None


def _axis_size(name: str, scope: Scope, axis: int) -> int | str | None:
    shape = scope.shape(name)
    return None if not shape or not -len(shape) <= axis < len(shape) else shape[axis]


def _length_behind(name: str, scope: Scope) -> int | str | None:
    """The length of the vector whose Shape becomes `name`, None when it is computed in another way."""
    node = scope.producer(name)
    while node is not None and node.op_type in _PASS_ON:
        name, node = node.input[0], scope.producer(node.input[0])
    shape = scope.shape(node.input[0]) if node is not None and node.op_type == "Shape" else None
    return shape[0] if shape is not None and len(shape) == 1 else None


def _bound(letter: str | None, view: GraphView) -> int | None:
    span = None if letter is None else span_of(letter, view.spans)
    return None if span is None else span.max


def _data_behind(name: str, scope: Scope) -> str | None:
    """The input whose data, not whose shape, decides `name`; None when there is none.

    An integer input counts as a shape input: TensorRT takes its value when it is set.
    """
    open_names, seen = [name], set()
    while open_names:
        current = open_names.pop()
        if not current or current in seen or scope.initializer(current) is not None:
            continue
        seen.add(current)
        node = scope.producer(current)
        if node is None:
            if scope.dtype(current) not in _INTEGERS:
                return current
        elif node.op_type not in ("Shape", "Size"):
            open_names += node.input
    return None
