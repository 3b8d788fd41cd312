"""The canonical decoder in the `ort` dialect, compared with it in fp32 before anything is quantised."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune.bundle import Bundle
from edgeprune.engines import in_place, own_attention, quantise
from edgeprune.engines.accuracy import relative
from edgeprune.errors import CheckFailed
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a precision is made of.

    Attributes:
        path: the graph; its weights are those of the canonical one, and lie there.
        graph: how the manifest describes it.
        feeds: a prefill with an empty cache.
        rows: how far it lies from the canonical graph, with standard operators and with our own; none where it is that.
        reason: why it is that; else empty.
        attention: why its attention stays in standard operators; empty: `finished` gives it our own.
    """

    path: Path
    graph: Graph
    feeds: dict[str, Array]
    rows: tuple[ParityRow, ...] = ()
    reason: str = ""
    attention: str = ""

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph in its precision with the last step done, which the tools of quantisation would not understand."""
        assert self.graph.kv is not None
        return model if self.attention else own_attention.rewrite(model, self.graph.kv.layers)


def prepare(bundle: Bundle, feeds: dict[str, Array], folder: Path) -> Decoder:
    """The decoder that writes its cache in place, in `folder` on the bundle's file system; where the graph is of
    another form, the canonical one with the reason.

    Raises:
        CheckFailed: its logits differ from the canonical ones by more than rounding.
    """
    graph = bundle.manifest.graphs.decoder
    source = bundle.file(graph.file)
    assert graph.kv is not None
    try:
        made = in_place.rewrite(onnx.load(source, load_external_data=False), graph.kv)
    except in_place.NotMatched as reason:
        return Decoder(source, graph, feeds, reason=str(reason), attention=str(reason))
    described = in_place.described(graph)
    given = with_room(described, feeds)
    compare = functools.partial(_compared, source, feeds, given=given, logits=_name(graph, "logits"), folder=folder)
    rows, attention = [compare(made, "in place")], ""
    try:
        rows.append(compare(own_attention.rewrite(made, graph.kv.layers), "own attention"))
    except in_place.NotMatched as reason:
        attention = str(reason)
    onnx.save(made, folder / source.name)
    return Decoder(folder / source.name, described, given, tuple(rows), attention=attention)


def with_room(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """The same prefill into a cache of the kind `fixed` that has room for it, with a place to spare."""
    count = feeds[_name(graph, "inputs_embeds")].shape[1] + 1
    given = {}
    for tensor in graph.inputs:
        value = feeds[tensor.name]
        past = tensor.role.startswith("past_")
        given[tensor.name] = np.zeros((*value.shape[:2], count, value.shape[3]), value.dtype) if past else value
    return given


def _compared(
    source: Path, feeds: dict[str, Array], model: onnx.ModelProto, form: str, *,
    given: dict[str, Array], logits: str, folder: Path,
) -> ParityRow:  # fmt: skip
    # Links to the weights stand beside the graph for onnxruntime and go again: onnx reads no file that has several.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        path = quantise.linked(model, source.parent, Path(beside))
        (wanted,), (found,) = quantise.run(source, feeds, [logits]), quantise.run(path, given, [logits])
    value, tolerance = relative(found, wanted), TOLERANCES["logits_in_place"]
    if value > tolerance:
        raise CheckFailed(f"{source.name}, {form}: logits differ by {value:.2g} of the largest; nothing was changed.")
    return ParityRow(f"decoder/{form}, fp32", "max difference of logits, relative", value, tolerance, True)


def _name(graph: Graph, role: str) -> str:
    return next(tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)
