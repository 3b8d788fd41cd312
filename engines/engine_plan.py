"""Which engines a bundle becomes, with the optimization profiles of each, from its manifest alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.engines.shapes import ShapeRange, Span, decoder_phases, shape_range, spans, text_spans
from edgeprune.errors import UserError
from edgeprune.manifest import Graph, Manifest

Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class EnginePlan:
    """One graph that becomes one engine.

    Attributes:
        file: name of the engine's file.
        name: the method, "text" (the text encoder) or "decoder".
        profiles: name -> input -> range, in the order in which the engine has them: TensorRT knows them by number.
    """

    file: str
    graph: Graph
    profiles: Mapping[str, Profile]
    name: str = "decoder"

    @property
    def stage(self) -> str:
        """The word that `--precision` has for it."""
        return "decoder" if self.name == "decoder" else "vision"

    def profiles_json(self) -> list[dict[str, Any]]:
        """JSON-ready: [{"name", "inputs": {input: {"min", "opt", "max"}}}]."""
        return [
            {"name": name, "inputs": {key: dataclasses.asdict(r) for key, r in ranges.items()}}
            for name, ranges in self.profiles.items()
        ]


def plans(manifest: Manifest) -> list[EnginePlan]:
    """Every vision graph, the text encoder and the decoder; the embedding stays a table whose rows are copied.

    Raises:
        UserError: nothing in the manifest bounds a dimension of an input.
    """
    found = [
        EnginePlan(engine_name(graph), graph, {"vision": _profile(graph, vision_spans(manifest, method))}, method)
        for method, stages in manifest.graphs.vision.items()
        for graph in stages
    ]
    text = manifest.graphs.text
    if text is not None:
        found.append(EnginePlan(engine_name(text), text, {"text": _profile(text, text_spans(manifest))}, "text"))
    decoder = manifest.graphs.decoder
    phases = {name: _profile(decoder, known) for name, known in decoder_phases(manifest).items()}
    return [*found, EnginePlan(engine_name(decoder), decoder, phases)]


def engine_name(graph: Graph) -> str:
    """onnx/decoder.onnx -> decoder.engine."""
    return graph.file.rpartition("/")[2].removesuffix(".onnx") + ".engine"


def vision_spans(manifest: Manifest, method: str) -> dict[str, Span]:
    """The spans of one method's graphs: K is a count that the method serves, nearest to the keep ratio asked for."""
    known = text_spans(manifest) if manifest.methods.each[method].text_encoder else spans(manifest)
    served = list(_served(manifest, method))
    if not served:
        return known
    wanted = known["K"]
    inside = [count for count in served if wanted.min <= count <= wanted.max] or served
    opt = min(inside, key=lambda count: abs(count - wanted.opt))
    return {**known, "K": Span(min(inside), opt, max(inside))}


def _served(manifest: Manifest, method: str) -> Iterator[int]:
    """The counts that a method is restricted to; none: any count."""
    for run in manifest.methods.each[method].keep_counts or ():
        yield from range(run.first, run.last + 1, run.step)


def _profile(graph: Graph, known: Mapping[str, Span]) -> Profile:
    try:
        return {tensor.name: shape_range(tensor.shape, known) for tensor in graph.inputs}
    except ValueError as error:
        raise UserError(f"{graph.file} cannot become an engine yet: {error}.") from error
