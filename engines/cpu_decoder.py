"""The canonical decoder in the `ort` dialect, compared with it in fp32 before anything is quantised."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune.bundle import Bundle
from edgeprune.engines import in_place, own_attention, quantise
from edgeprune.engines.accuracy import relative
from edgeprune.engines.float_types import FP16
from edgeprune.errors import CheckFailed
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES

Array = np.ndarray[Any, Any]
_MEASURE = "max difference of logits, relative"


#: a cache is float16 where no key and no value of the prompt measured on is above this share of what float16 holds: the
#: room is for other prompts
_SHARE = 1 / 8


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a precision is made of.

    Attributes:
        path: the graph; its weights are those of the canonical one, and lie there.
        graph: how the manifest describes it.
        feeds: a prefill with an empty cache.
        rows: how far it lies from the canonical graph, in each form that it passed through; none where it is that.
        reason: why it is that; else empty.
        attention: why its attention stays in standard operators; empty: `finished` gives it our own.
        operators: our own, as build.json names them; empty: none.
        float32: why its cache is not float16; else empty.
    """

    path: Path
    graph: Graph
    feeds: dict[str, Array]
    rows: tuple[ParityRow, ...] = ()
    reason: str = ""
    attention: str = ""
    operators: str = ""
    float32: str = ""

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph in its precision with the last step done, which the tools of quantisation would not understand."""
        assert self.graph.kv is not None
        return model if self.attention else own_attention.rewrite(model, self.graph.kv.layers, self.graph.kv.dtype)


@dataclasses.dataclass(frozen=True)
class _Canonical:
    """The canonical decoder, run once.

    Attributes:
        logits: of the feeds.
        largest: absolute value among the keys and values that it gave; NaN where one is no number.
    """

    source: Path
    graph: Graph
    feeds: dict[str, Array]
    logits: Array
    largest: float

    @classmethod
    def run(cls, source: Path, graph: Graph, feeds: dict[str, Array]) -> _Canonical:
        cache = [tensor.name for tensor in graph.outputs if tensor.role.startswith("present_")]
        logits, *made = quantise.run(source, feeds, [_name(graph, "logits"), *cache])
        return cls(source, graph, feeds, logits, float(np.max([np.abs(value).max() for value in made])))

    def away(self, model: onnx.ModelProto, described: Graph, folder: Path) -> float:
        """How far the logits of another form lie, relative to the largest."""
        # Links to the weights stand beside the graph for onnxruntime and go again: onnx reads no file that has several.
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            path = quantise.linked(model, self.source.parent, Path(beside))
            (found,) = quantise.run(path, with_room(described, self.feeds), [_name(self.graph, "logits")])
        return relative(found, self.logits)

    def row(self, model: onnx.ModelProto, form: str, folder: Path) -> ParityRow:
        """CheckFailed: a form in fp32 differs by more than rounding."""
        value, tolerance = self.away(model, in_place.described(self.graph), folder), TOLERANCES["logits_in_place"]
        if value > tolerance:
            raise CheckFailed(
                f"{self.source.name}, {form}: logits differ by {value:.2g} of the largest; nothing was changed."
            )
        return ParityRow(f"decoder/{form}, fp32", _MEASURE, value, tolerance, True)


def prepare(bundle: Bundle, feeds: dict[str, Array], folder: Path, *, half: bool = True) -> Decoder:
    """The decoder that writes its cache in place, in `folder` on the bundle's file system; where the graph is of
    another form, the canonical one with the reason.

    Args:
        half: whether the cache may be float16.

    Raises:
        CheckFailed: its logits differ from the canonical ones by more than rounding.
    """
    graph = bundle.manifest.graphs.decoder
    source = bundle.file(graph.file)
    assert graph.kv is not None
    try:
        made = in_place.rewrite(onnx.load(source, load_external_data=False), graph.kv)
    except in_place.NotMatched as reason:
        return Decoder(source, graph, feeds, reason=str(reason), attention=str(reason), float32=str(reason))
    canonical, described = _Canonical.run(source, graph, feeds), in_place.described(graph)
    rows, attention, operators = [canonical.row(made, "in place", folder)], "", ""
    try:
        own = own_attention.rewrite(made, graph.kv.layers)
        rows.append(canonical.row(own, "own attention", folder))
        operators = own_attention.operators(own)
    except in_place.NotMatched as reason:
        attention = str(reason)
    float32 = attention or ("" if half else "asked for with --kv-cache fp32") or _too_large(canonical.largest)
    if not float32:
        row = _halved(canonical, made, folder)
        float32 = "" if row.passed else _too_rough(row)
        if row.passed:
            rows.append(row)
            described = in_place.described(graph, "float16")
    onnx.save(made, folder / source.name)
    given = with_room(described, feeds)
    return Decoder(folder / source.name, described, given, tuple(rows), "", attention, operators, float32)


def with_room(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """The same prefill into a cache of the kind `fixed` that has room for it, with a place to spare."""
    count = feeds[_name(graph, "inputs_embeds")].shape[1] + 1
    given = {}
    for tensor in graph.inputs:
        value = feeds[tensor.name]
        past = tensor.role.startswith("past_")
        given[tensor.name] = np.zeros((*value.shape[:2], count, value.shape[3]), tensor.dtype) if past else value
    return given


def _too_large(largest: float) -> str:
    """Why a cache with such a value is not float16; else empty."""
    if largest <= FP16.largest * _SHARE:
        return ""
    return (
        f"a key or value is {largest:.3g} on the prompt measured on; float16 ends at {FP16.largest:.0f}, and only "
        f"{FP16.largest * _SHARE:.0f} of that are used, for other prompts may give more"
    )


def _halved(canonical: _Canonical, made: onnx.ModelProto, folder: Path) -> ParityRow:
    """The own attention over a cache in float16, everything else in fp32."""
    assert canonical.graph.kv is not None
    model = own_attention.rewrite(made, canonical.graph.kv.layers, "float16")
    value = canonical.away(model, in_place.described(canonical.graph, "float16"), folder)
    tolerance = TOLERANCES["logits_cache_fp16"]
    return ParityRow("decoder/own attention, cache in fp16", _MEASURE, value, tolerance, value <= tolerance)


def _too_rough(row: ParityRow) -> str:
    return f"in float16 the logits differ by {row.value:.2g} of the largest, more than {row.tolerance:g}"


def _name(graph: Graph, role: str) -> str:
    return next(tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)
