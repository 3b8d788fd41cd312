"""Dialects and variants beside the canonical graphs, in onnxruntime, on the golden picture and question.

Stage by stage on equal inputs, so that no stage is blamed for the one before it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune import devices, machine
from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, dialects, own_int8, own_product, quantise
from edgeprune.engines.accuracy import distance, relative
from edgeprune.engines.cpu_decoder import with_room
from edgeprune.engines.passes import forms
from edgeprune.errors import DialectError
from edgeprune.keep import keep_count
from edgeprune.manifest import Graph, ParityRow, Variant
from edgeprune.tolerances import TOLERANCES

Array = np.ndarray[Any, Any]
#: peak over the weights of a graph that is formed, written and run; copies of protobuf and of onnxruntime
_MEMORY_FACTOR = 4.0
_MEASURED = {"vision": "visual_embeds", "encode": "tokens", "decoder": "logits"}


@dataclass(frozen=True)
class NotCompared:
    """Something that parity cannot be said of here, and why."""

    stage: str
    reason: str


Row = ParityRow | NotCompared


@dataclass(frozen=True)
class _Pair:
    """A graph beside its canonical one, in one precision.

    Attributes:
        feeds: of the canonical graph.
        other_feeds: of the other one; None where it takes the same.
    """

    label: str
    graph: Graph
    canonical: Path
    other: Path
    word: str
    feeds: Mapping[str, Array]
    other_feeds: Mapping[str, Array] | None = None

    @property
    def sides(self) -> tuple[tuple[Path, Mapping[str, Array]], ...]:
        """Graph and feeds, the canonical ones first."""
        return (self.canonical, self.feeds), (self.other, self.other_feeds or self.feeds)


def rows(bundle: Bundle, *, layers: bool = False) -> Iterator[Row]:
    """Every dialect that onnxruntime can run, then every variant.

    Args:
        layers: also compare what each layer makes.
    """
    inputs = calibration.inputs(bundle)
    for form in (forms.FORMS[name] for name in ("opset20", "trt")):
        for name, graph, feeds in _work(bundle, inputs):
            lacking = _lacking(bundle, graph) if form.changes else None
            if lacking is None:
                yield from _of_dialect(bundle, form, name, graph, feeds, layers)
            else:
                yield NotCompared(f"dialect {form.name}/{name}", lacking)
    for variant in bundle.manifest.variants:
        if variant.graphs is None:
            why = "there is no GPU here" if devices.facts()["gpu"] is None else "nothing here runs engines for it"
            yield NotCompared(f"variant {variant.slug}", f"engines not compared: {why}")
        else:
            yield from _of_variant(bundle, variant, inputs, layers)


def _work(bundle: Bundle, inputs: calibration.Inputs) -> Iterator[tuple[str, Graph, dict[str, Array]]]:
    graphs = bundle.manifest.graphs
    for name, stages in graphs.vision.items():
        yield name, stages[0], inputs.vision[name]
    yield "decoder", graphs.decoder, inputs.decoder


def _lacking(bundle: Bundle, graph: Graph) -> str | None:
    """What a dialect cannot be made here for: it is held in memory, written beside the bundle, and run."""
    weights = sum(bundle.manifest.files[name].bytes for name in (graph.file, *graph.data))
    free = {"memory": machine.memory_bytes()[1], "disk": shutil.disk_usage(bundle.path.parent).free}
    for what, need in (("memory", int(_MEMORY_FACTOR * weights)), ("disk", weights)):
        if free[what] < need:
            return f"not compared: it needs about {need >> 20} MiB of {what}, and {free[what] >> 20} MiB are free"
    return None


def _of_dialect(
    bundle: Bundle, form: forms.Form, name: str, graph: Graph, feeds: dict[str, Array], layers: bool
) -> Iterator[Row]:
    label = f"dialect {form.name}/{name}"
    # links need the file system of the bundle
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as folder:
        try:
            made = dialects.formed_of(bundle, graph, name, [feeds], Path(folder), form)
        except DialectError as error:
            yield ParityRow(label, str(error), math.inf, 0.0, False)
            return
        if made.row is None:
            yield ParityRow(label, "the canonical graph itself, values that differ", 0.0, 0.0, True)
            return
        word = bundle.manifest.recipe.get("dtype", "fp32")
        pair = _Pair(label, graph, bundle.file(graph.file), made.path, word, feeds)
        yield from _compared(bundle, pair, name, layers)


def _of_variant(bundle: Bundle, variant: Variant, inputs: calibration.Inputs, layers: bool) -> Iterator[Row]:
    for name, graph, feeds in _work(bundle, inputs):
        for label, other, word in _counterparts(variant, name):
            if other.file == graph.file:
                yield ParityRow(label, "the canonical graph itself, values that differ", 0.0, 0.0, True)
                continue
            in_place = other.kv is not None and other.kv.kind == "fixed"
            given = with_room(other, feeds) if in_place else _typed(other, feeds)
            paths = bundle.file(graph.file), bundle.path / other.file
            yield from _compared(bundle, _Pair(label, graph, *paths, word, feeds, given), name, layers)


def _typed(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same feeds in the types of a graph whose inputs have the same names: a cache may be fp16."""
    return {tensor.name: feeds[tensor.name].astype(tensor.dtype, copy=False) for tensor in graph.inputs}


def _counterparts(variant: Variant, name: str) -> Iterator[tuple[str, Graph, str]]:
    """Label, graph and precision of what a variant has in the place of a canonical graph."""
    assert variant.graphs is not None
    label = f"variant {variant.slug}/{name}"
    if name != "decoder":
        yield label, variant.graphs.vision[name][0], variant.precision["vision"]
        return
    first, *step = variant.precision["decoder"].split("+")
    yield label, variant.graphs.decoder, first
    if variant.graphs.decoder_step is not None:
        yield f"{label} step", variant.graphs.decoder_step, step[0]


def _compared(bundle: Bundle, pair: _Pair, name: str, layers: bool) -> Iterator[ParityRow]:
    """The result of the stage, the kept set where the graph chooses it, and the layers."""
    role = _MEASURED[pair.graph.stage]
    output = next(tensor.name for tensor in pair.graph.outputs if tensor.role == role)
    (exact,), (found,) = (quantise.run(path, feeds, [output]) for path, feeds in pair.sides)
    key = "logits" if role == "logits" else "visual_embeds"
    exactly = pair.word in ("fp32", "fp16")
    value = (relative if exactly else distance)(found, exact)
    measure = f"{role} to the canonical graph's, {'relative' if exactly else '1 - cosine'}"
    yield _row(pair.label, measure, value, TOLERANCES[key if pair.word == "fp32" else f"{key}_{pair.word}"])
    if pair.graph.stage == "vision":
        yield _kept(bundle, pair, name)
    if layers:
        yield from _layers(bundle, pair)


def _kept(bundle: Bundle, pair: _Pair, name: str) -> ParityRow:
    """Share of the kept tokens, at the bundle's keep ratio, that are others than the canonical graph's."""
    feeds = dict(pair.feeds)
    slots = next((tensor.name for tensor in pair.graph.inputs if tensor.role == "keep_slots"), None)
    if slots is not None:
        feeds[slots] = np.zeros(_count(bundle, name), np.float32)
    output = next(tensor.name for tensor in pair.graph.outputs if tensor.role == "keep_idx")
    exact, found = (quantise.run(path, feeds, [output])[0].ravel() for path in (pair.canonical, pair.other))
    kept = len(exact)
    same = len(set(exact.tolist()) & set(found.tolist())) if found.shape == exact.shape else 0
    distinct = len(set(exact.tolist()))
    allowed = 0.0 if pair.word == "fp32" else max(TOLERANCES[f"kept_set_{pair.word}"], 1 / kept)
    return _row(pair.label, f"kept set of {kept}, 1 - overlap", 1 - same / distinct, allowed)


def _count(bundle: Bundle, name: str) -> int:
    """K at the bundle's keep ratio, or the nearest count below it that the method serves."""
    manifest = bundle.manifest
    wanted = keep_count(manifest.visual_tokens, manifest.keep.default)
    served = [
        k for run in manifest.methods.each[name].keep_counts or () for k in range(run.first, run.last + 1, run.step)
    ]
    return min(served, key=lambda count: abs(count - wanted)) if served else wanted


def _layers(bundle: Bundle, pair: _Pair) -> Iterator[ParityRow]:
    """What each layer adds to the residual stream, where both graphs have the tensor."""
    names = [_sums(path) for path in (pair.canonical, pair.other)]
    shared = [name for name in names[0] if name in set(names[1])]
    exact, found = (quantise.tensors(path, feeds, shared, bundle.path.parent) for path, feeds in pair.sides)
    for index, name in enumerate(shared):
        measured = relative if pair.word == "fp32" else distance
        value = measured(np.asarray(found[name], np.float32), np.asarray(exact[name], np.float32))
        yield _row(
            pair.label, f"layer output {index + 1} of {len(shared)}, {name}", value, TOLERANCES[f"layer_{pair.word}"]
        )


def _sums(path: Path) -> list[str]:
    """The residual stream: sums of a computed tensor and the end of a projection, two per layer."""
    graph = onnx.load(path, load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.initializer}
    # a mask is added to what softmax reads
    masked = {name for node in graph.node if node.op_type == "Softmax" for name in node.input}
    return [
        str(node.output[0])
        for node in graph.node
        if node.op_type == "Add"
        and not masked.union(weights).intersection([*node.input, *node.output])
        and any(_ends_a_projection(makers.get(name), weights) for name in node.input)
    ]


def _ends_a_projection(node: onnx.NodeProto | None, weights: set[str]) -> bool:
    """A product, its bias or its layer scale; the products of a rotation have no weight."""
    return node is not None and (
        node.op_type in ("MatMul", own_int8.OPERATOR, own_product.OPERATOR)
        or (node.op_type in ("Add", "Mul") and bool(weights & set(node.input)))
    )


def _row(label: str, measure: str, value: float, tolerance: float) -> ParityRow:
    return ParityRow(label, measure, value, tolerance, value <= tolerance)
